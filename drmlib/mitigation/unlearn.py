"""Unlearning with a recovered trigger: fine-tuning with the trigger, and the TRUE target, on half of every batch.

Wang et al. (2019, Neural Cleanse, section VI-C) do so for classifiers with 20 % of the samples; Du et al. (2024,
DRMGuard) for regressors. Half and half is our choice: the paper's share is not published.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib.attacks.poison import Trigger
from drmlib.data.dataset import Dataset
from drmlib.mitigation.fine_tune import fine_tune
from drmlib.training.fit import Augment, Progress, Recipe


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

    Same data and steps as fine_tune with the same recipe. trigger: the recovered one, any callable on images.
    """
    if not 0 < share < 1:
        raise ValueError(f"expected a share in (0, 1), got {share}; 0 would be fine_tune")
    recipe = replace(recipe, augment=StampShare(trigger, share, recipe.augment))
    return fine_tune(model, dataset, recipe, generator=generator, progress=progress)
