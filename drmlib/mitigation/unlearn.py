"""Unlearning with recovered triggers: fine-tuning with a trigger, and the TRUE target, on half of every batch.

Wang et al. (2019, Neural Cleanse, section VI-C) do so for classifiers with 20 % of the samples; Du et al. (2024,
DRMGuard) for regressors. Half and half is our choice: the paper's share is not published. So is the Mixture: a search
recovers one trigger of a backdoor, seldom the whole of it, and which family is the attacker's is not known.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib.attacks.per_image import uniform
from drmlib.attacks.poison import Trigger
from drmlib.data.dataset import Dataset
from drmlib.mitigation.fine_tune import fine_tune
from drmlib.training.fit import Augment, Progress, Recipe


class Mixture(NamedTuple):
    """Trigger that writes one of `triggers` on each image, which one depending on the image's pixels and `seed`.

    weights: how often each is written, one number for each trigger in any unit; equally often if there are none.
    """

    triggers: tuple[Trigger, ...]
    weights: tuple[float, ...] = ()
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        weights = self.weights or (1.0,) * len(self.triggers)
        if len(weights) != len(self.triggers) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(
                f"expected {len(self.triggers)} weights >= 0, not all 0, one for each trigger, got {weights}"
            )
        shares = torch.tensor(weights, device=images.device).cumsum(0)
        drawn = uniform(images, 1, seed=self.seed).squeeze(1) * shares[-1]
        which = torch.bucketize(drawn, shares, right=True).clamp_(max=len(weights) - 1)
        written = torch.empty_like(images)
        for k, trigger in enumerate(self.triggers):
            if (which == k).any():
                written[which == k] = trigger(images[which == k])
        return written


class StampShare(NamedTuple):
    """Augmentation that stamps `trigger` on a random `share` of each batch, after `before` if there is one."""

    trigger: Trigger
    share: float
    before: Augment | None

    def __call__(self, images: Tensor, *, generator: Generator) -> Tensor:
        if self.before is not None:
            images = self.before(images, generator=generator)
        chosen = torch.rand(len(images), generator=generator, device=images.device).argsort() < self.share * len(images)
        return torch.where(chosen[:, None, None, None], self.trigger(images), images)


def unlearn(
    model: nn.Module,
    dataset: Dataset,
    trigger: Trigger,
    recipe: Recipe,
    *,
    share: float = 0.5,
    generator: Generator,
    progress: Progress = iter,
) -> nn.Module:
    """A copy of `model` in which `trigger` has lost its effect: fine-tuned on the clean labelled `dataset`, of which a
    random `share` of each batch carries the trigger and keeps its true target.

    Same data and steps as fine_tune with the same recipe. trigger: the recovered one, any callable on images; a Mixture
    of several.
    """
    if not 0 < share < 1:
        raise ValueError(f"expected a share in (0, 1), got {share}; 0 would be fine_tune")
    recipe = replace(recipe, augment=StampShare(trigger, share, recipe.augment))
    return fine_tune(model, dataset, recipe, generator=generator, progress=progress)
