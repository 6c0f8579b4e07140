"""MESA: the whole distribution of triggers that work, not one of them. Qiao, Yang, Li, "Defending Neural Backdoors via
Generative Distribution Modeling" (2019), https://arxiv.org/abs/1910.04749.

A backdoored model answers to more triggers than the one it was taught, and an inversion finds another one in every run:
unlearning one leaves the others. Here a generator a level learns the set of patterns m for which

    F(m) = softmax(f(A(m, x)))_c,   x a clean image, A pastes m at a random place

is at least beta (staircase.py). First one generator for every class, side by side in one batch: the attacked class is
the one whose generator succeeds. Then one a level for that class. A place is drawn for each image, not for each batch.

The defender is taken to know the size of the patch and how it is applied, as in the paper; for an unknown size take the
largest plausible one, which contains the smaller.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.attacks.per_image import uniform
from drmlib.attacks.roaming_patch import paste
from drmlib.data.dataset import as_float, like
from drmlib.inversion.mesa_networks import Generators
from drmlib.inversion.staircase import Progress, Staircase, staircase
from drmlib.models.predict import classify, frozen

THRESHOLD = 0.5  # success of a class's generator above which the class is called attacked; ours, the paper has none
LEVELS = (0.9, 0.8, 0.5)

Paste = Callable[[Tensor, Tensor, Tensor], Tensor]  # images (n, c, h, w), patches (n, c, a, b), place (n, 2) -> images


class Patches(NamedTuple):
    """Trigger that pastes a fresh pattern of the distribution on every image; which and where, the image says.

    generators: s sub-models of patches of `shape` (c, a, b); weight (s,): how often each is used.
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
        patches = every[which, torch.arange(len(images), device=images.device)].view(-1, *self.shape)
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
    progress: Progress = iter,
    **settings,
) -> MESA:
    """The attacked class of `classes`, and the distribution of its triggers, from clean unlabelled images (n, c, h, w).

    size: side of the patch. levels: of the sub-models; the first serves for all classes. weighted: use gamma, or the
    equal weights of the authors' code. rule: how a patch is applied. settings: those of staircase().
    """
    rng.check_device(generator, images)
    shape = (images.shape[1], size, size)
    learn = partial(_modelled, model, images, shape, rule, settings, generator, progress)
    device = images.device
    scan = learn(torch.arange(classes, device=device), torch.full((classes,), levels[0], device=device))
    success = torch.stack([_success(model, images, scan, shape, rule, k) for k in range(classes)])
    target = int(success.argmax())
    found = learn(torch.full((len(levels),), target, device=device), torch.tensor(levels, device=device))
    weight = found.weight if weighted else torch.full_like(found.weight, 1 / len(levels))
    return MESA(Patches(found.generators, shape, weight, rule), success[target].item(), target, success, found)


def _modelled(
    model: nn.Module,
    images: Tensor,
    shape: tuple[int, int, int],
    rule: Paste,
    settings: dict,
    generator: Generator,
    progress: Progress,
    target: Tensor,
    level: Tensor,
) -> Staircase:
    """A sub-model for each of target (s,) and level (s,), all in one batch."""

    def testing(points: Tensor) -> Tensor:
        count, batch = points.shape[:2]
        index = torch.randint(len(images), (count * batch,), generator=generator, device=images.device)
        place = torch.rand(count * batch, 2, generator=generator, device=images.device)
        pasted = rule(as_float(images[index]), points.reshape(-1, *shape), place)
        return model(pasted).softmax(1).view(count, batch, -1)[torch.arange(count), :, target]

    with frozen(model):
        return staircase(
            testing,
            shape[0] * shape[1] * shape[2],
            level,
            generator=generator,
            progress=progress,
            **settings,
        )


def _success(
    model: nn.Module, images: Tensor, scan: Staircase, shape: tuple[int, int, int], rule: Paste, target: int
) -> Tensor:
    """Share of the images that are not of class `target` to the model, which the class's generator sends there."""
    weight = torch.zeros_like(scan.weight)
    weight[target] = 1
    others = images[classify(model, images) != target]
    if len(others) == 0:
        raise ValueError(
            f"to the model all {len(images)} images are of class {target}: pass images of other classes too"
        )
    return (classify(model, Patches(scan.generators, shape, weight, rule)(others)) == target).float().mean()
