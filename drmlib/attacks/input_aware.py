"""Input-aware dynamic backdoor: Nguyen, Tran, "Input-Aware Dynamic Backdoor Attack" (2020),
https://arxiv.org/abs/2010.08138.

x' = x + (P(x) - x) M(x): a pattern network P and a mask network M make every image its own trigger, which must not
work on another image. The mask network is trained first (section 3.4), then P together with the victim: cross-entropy
on clean samples, poisoned ones (target) and cross samples, which carry another image's trigger and keep their target;
plus the diversity loss |x1 - x2| / |P(x1) - P(x2)|.

For regression the cross-entropy is the recipe's loss and the target a vector; the rest is the same. The victim may be
the model trained here, as in the paper, or one trained from scratch on a set poisoned with the trigger and with
CrossTrigger as covers, as ABL and the confusion-training paper use the attack. Epochs are given in steps.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.attacks.learned import adam, random_batches, ready
from drmlib.attacks.per_image import choice
from drmlib.attacks.poison import Retarget
from drmlib.data.dataset import Dataset, as_float, like
from drmlib.models.autoencoder import Autoencoder
from drmlib.models.predict import frozen, predict
from drmlib.training.fit import Recipe, adamw

DENSITY = 0.032  # share of the image that a mask may cover at no cost


class InputAware(NamedTuple):
    """Trigger x' = x + (P(x) - x) M(x); pattern and mask are networks from images to (n, c or 1, h, w) in [0, 1]."""

    pattern: nn.Module
    mask: nn.Module

    def __call__(self, images: Tensor) -> Tensor:
        return _write(self, images, images)


class CrossTrigger(NamedTuple):
    """What cover samples get: the trigger that was made for another image, one of `others` (m, c, h, w)."""

    trigger: InputAware
    others: Tensor
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        return _write(self.trigger, images, self.others[choice(images, len(self.others), seed=self.seed)])


def input_aware(
    model: nn.Module,
    dataset: Dataset,
    retarget: Retarget,
    recipe: Recipe,
    *,
    width: int = 32,
    mask_steps: int = 2000,
    steps: int = 10_000,
    rate: float = 0.1,
    cross_rate: float = 0.1,
    diversity: float = 1.0,
    learning_rate: float = 1e-3,
    generator: Generator,
) -> InputAware:
    """The trigger learned together with `model`, which is trained in place and ends backdoored.

    width: of the pattern network, the mask network has half of it. rate, cross_rate: shares of each batch that are
    poisoned and crossed; diversity: weight of the diversity loss. recipe gives loss, batch size, peak learning rate
    and schedule for the model; learning_rate is that of the networks (Adam). steps are batches.
    """
    rng.check_device(generator, dataset.images, "the data set")
    channels = dataset.images.shape[1]
    pattern = ready(Autoencoder(channels=channels, width=width, generator=generator), dataset)
    mask = ready(Autoencoder(channels=channels, made=1, width=max(1, width // 2), generator=generator), dataset)
    _learn_mask(mask, dataset, recipe.batch_size, mask_steps, learning_rate, diversity, generator)
    trigger = InputAware(pattern, mask)
    size = recipe.batch_size
    counts = max(1, round(rate * size)), max(1, round(cross_rate * size))
    victim, artist = adamw(ready(model, dataset), recipe), adam(pattern, learning_rate)
    with frozen(mask):
        for step, both in enumerate(random_batches(dataset, 2 * size, steps, generator=generator)):
            for group in victim.param_groups:
                group["lr"] = recipe.learning_rate * recipe.schedule(step / steps)
            loss = _joint_loss(model, trigger, both[:size], both[size:], retarget, recipe, counts, diversity)
            victim.zero_grad(set_to_none=True)
            artist.zero_grad(set_to_none=True)
            loss.backward()
            victim.step()
            artist.step()
    model.eval()
    pattern.eval()
    return trigger


def _joint_loss(
    model: nn.Module,
    trigger: InputAware,
    batch: Dataset,
    other: Dataset,
    retarget: Retarget,
    recipe: Recipe,
    counts: tuple[int, int],
    diversity: float,
) -> Tensor:
    """Loss over poisoned, cross and clean samples of one batch, in this order, plus the diversity of the patterns."""
    n, m = counts[0], sum(counts)
    x, z = as_float(batch.images), as_float(other.images[:m])
    made, foreign = trigger.pattern(x[:n]), trigger.pattern(z)
    poisoned = _mix(x[:n], made, sharp(trigger.mask(x[:n])))
    crossed = _mix(x[n:m], foreign[n:], sharp(trigger.mask(z[n:])))
    targets = torch.cat([retarget(batch.targets[:n]), batch.targets[n:]])
    learned = recipe.loss(model(torch.cat([poisoned, crossed, x[m:]])), targets)
    return learned + diversity * _diversity(x[:n], z[:n], made, foreign[:n])


def _learn_mask(
    mask: nn.Module, dataset: Dataset, batch: int, steps: int, rate: float, diversity: float, generator: Generator
) -> None:
    """100 E[relu(M - DENSITY)] + diversity, section 3.4: small masks that differ from image to image."""
    optimizer = adam(mask, rate)
    for both in random_batches(dataset, 2 * batch, steps, generator=generator):
        x, z = as_float(both.images).chunk(2)
        first, second = sharp(mask(x)), sharp(mask(z))
        loss = 100 * (first - DENSITY).relu().mean() + diversity * _diversity(x, z, first, second)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    mask.eval()


def sharp(mask: Tensor) -> Tensor:
    """tanh(20 z - 10) / 2 + 1/2: what a mask network returns in [0, 1], pushed to the ends."""
    return (20 * mask - 10).tanh() / 2 + 0.5


def _diversity(x: Tensor, z: Tensor, of_x: Tensor, of_z: Tensor) -> Tensor:
    """E |x - z| / |P(x) - P(z)|: large where two images get one pattern; distances are root mean squares."""
    images, made = ((a - b).square().flatten(1).mean(1).sqrt() for a, b in ((x, z), (of_x, of_z)))
    return (images / (made + 1e-7)).mean()


def _mix(images: Tensor, pattern: Tensor, mask: Tensor) -> Tensor:
    return images + (pattern - images) * mask


def _write(trigger: InputAware, images: Tensor, of: Tensor) -> Tensor:
    """`images` with the triggers of the images `of`."""
    pattern, mask = predict(trigger.pattern, as_float(of)), sharp(predict(trigger.mask, as_float(of)))
    return like(_mix(as_float(images), pattern, mask), images)
