"""MESA: the whole distribution of triggers that work, not one of them. Qiao, Yang, Li, "Defending Neural Backdoors via
Generative Distribution Modeling" (2019), https://arxiv.org/abs/1910.04749.

A backdoored model answers to more triggers than the one it was taught, and an inversion finds another one in every run:
unlearning one leaves the others. Here a generator a level learns the set of patterns m for which

    F(m) = softmax(f(A(m, x)))_c,   x a clean image, A pastes m at a random place

is at least beta (staircase.py). First one generator for every class, side by side in one batch: the attacked class is
the one whose generator succeeds. Then one a level for that class. A place is drawn for each image, not for each batch.

The defender is taken to know the size of the patch and how it is applied, as in the paper; for an unknown size take the
largest plausible one, which contains the smaller. Steps, widths and rates are the authors', as staircase() has them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.attacks.per_image import uniform
from drmlib.attacks.roaming_patch import paste
from drmlib.data.dataset import as_bytes, as_float, like
from drmlib.inversion.mesa_networks import Generators
from drmlib.inversion.staircase import Staircase, staircase
from drmlib.models.predict import classify, frozen

THRESHOLD = 0.5  # success of a class's generator above which the class is called attacked; ours, the paper has none
LEVELS = (0.9, 0.8, 0.5)

Paste = Callable[[Tensor, Tensor, Tensor], Tensor]  # images (n, c, h, w), patches (n, c, a, b), place (n, 2) -> images


class Patches(NamedTuple):
    """Trigger that pastes a pattern of the distribution on every image, a fresh one each; which and where, it says.

    generators: s sub-models of patches of `shape` (c, a, b); weight (s,): how often each is used. Patterns are rounded
    to the levels of bytes, which keeps them the same in a batch of any size.
    """

    generators: Generators
    shape: tuple[int, int, int]
    weight: Tensor
    rule: Paste = paste
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        drawn = uniform(images, self.generators.noise + 3, seed=self.seed)
        share = self.weight.cumsum(0)
        which = torch.bucketize(drawn[:, 0].contiguous() * share[-1], share, right=True).clamp_(max=len(share) - 1)
        with torch.no_grad():
            every = self.generators(drawn[:, 3:].expand(len(self.weight), -1, -1))
        mine = every[which, torch.arange(len(images), device=images.device)]
        patches = as_float(as_bytes(mine)).view(-1, *self.shape)
        return like(self.rule(as_float(images), patches, drawn[:, 1:3]), images)


class MESA(NamedTuple):
    """trigger: the mixture for the attacked class; score: the success of that class's generator, attacked above
    THRESHOLD; target: the class.

    success (K,): share of images of other classes that each class's generator sends there; staircase: of the target.
    """

    trigger: Patches
    score: float
    target: int
    success: Tensor
    staircase: Staircase


def mesa(
    model: nn.Module,
    images: Tensor,
    classes: int,
    *,
    size: int = 3,
    levels: tuple[float, ...] = LEVELS,
    weighted: bool = True,
    rule: Paste = paste,
    generator: Generator,
    **settings: Any,
) -> MESA:
    """The attacked class of `classes`, and the distribution of its triggers, from clean unlabelled images (n, c, h, w).

    size: side of the patch. levels: of the sub-models; the first serves for all classes. weighted: use gamma, or the
    equal weights of the authors' code. rule: how a patch is applied. settings: those of staircase().
    """
    success = class_success(
        model, images, classes, size=size, level=levels[0], rule=rule, generator=generator, **settings
    )
    target = int(success.argmax())
    trigger, found = trigger_distribution(
        model, images, target, size=size, levels=levels, weighted=weighted, rule=rule, generator=generator, **settings
    )
    return MESA(trigger, success[target].item(), target, success, found)


def class_success(
    model: nn.Module,
    images: Tensor,
    classes: int,
    *,
    size: int = 3,
    level: float = LEVELS[0],
    rule: Paste = paste,
    generator: Generator,
    **settings: Any,
) -> Tensor:
    """Success (classes,) of a generator for every class, all trained in one batch: the first step of MESA."""
    rng.check_device(generator, images)
    labels = torch.arange(classes, device=images.device)
    found = _staircase(
        model, images, labels, torch.full((classes,), level, device=images.device), size, rule, generator, settings
    )
    alone = torch.eye(classes, device=images.device)
    shape = (images.shape[1], size, size)
    answered, rates = classify(model, images), []
    for k in range(classes):
        others = images[answered != k]
        if len(others) == 0:
            raise ValueError(
                f"to the model all {len(images)} images are of class {k}: pass images of other classes too"
            )
        rates.append((classify(model, Patches(found.generators, shape, alone[k], rule)(others)) == k).float().mean())
    return torch.stack(rates)


def trigger_distribution(
    model: nn.Module,
    images: Tensor,
    label: int,
    *,
    size: int = 3,
    levels: tuple[float, ...] = LEVELS,
    weighted: bool = True,
    rule: Paste = paste,
    generator: Generator,
    **settings: Any,
) -> tuple[Patches, Staircase]:
    """The distribution of patches that send images (n, c, h, w) to class `label`: the second step of MESA."""
    rng.check_device(generator, images)
    device = images.device
    labels = torch.full((len(levels),), label, device=device)
    found = _staircase(model, images, labels, torch.tensor(levels, device=device), size, rule, generator, settings)
    weight = found.weight if weighted else torch.full_like(found.weight, 1 / len(levels))
    return Patches(found.generators, (images.shape[1], size, size), weight, rule), found


def _staircase(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    level: Tensor,
    size: int,
    rule: Paste,
    generator: Generator,
    settings: dict[str, Any],
) -> Staircase:
    """A sub-model for each of labels (s,) at its level (s,), all in one batch."""
    shape = (images.shape[1], size, size)

    def testing(points: Tensor) -> Tensor:
        count, batch = points.shape[:2]
        index = torch.randint(len(images), (count * batch,), generator=generator, device=images.device)
        place = torch.rand(count * batch, 2, generator=generator, device=images.device)
        pasted = rule(as_float(images[index]), points.reshape(-1, *shape), place)
        return model(pasted).softmax(1).view(count, batch, -1)[torch.arange(count, device=labels.device), :, labels]

    with frozen(model):
        return staircase(testing, shape[0] * size * size, level, generator=generator, **settings)
