"""Relabelling near a flagged maximiser: the repair that follows LEM (Li, Kesidis, Miller, Lucic 2021,
https://arxiv.org/abs/2109.02381; fine-tuning on relabelled samples is what arXiv 2107.13124 offers).

The oracle is asked again about every training sample near a suspicious maximiser, and the network learns on. The
papers leave the radius and the schedule open; here 0.15 and 10 epochs at a third of the training's peak rate.
"""

from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from drmlib.data.dataset import Dataset
from drmlib.data.functions import Oracle
from drmlib.mitigation.fine_tune import fine_tune
from drmlib.training.fit import Progress, Recipe

RADIUS = 0.15
EPOCHS, SHARE_OF_PEAK = 10, 1 / 3


def relabel(
    model: nn.Module,
    dataset: Dataset,
    oracle: Oracle,
    centres: Tensor,
    recipe: Recipe,
    *,
    radius: float = RADIUS,
    generator: Generator,
    progress: Progress = iter,
) -> nn.Module:
    """A copy of `model`, trained further on `dataset` with the oracle's targets within `radius` of `centres` (t, d).

    recipe: that of the repair, see relabel_recipe. centres: LEM.trigger. Raises ValueError if no sample is near any.
    """
    return fine_tune(
        model, relabelled(dataset, oracle, centres, radius=radius), recipe, generator=generator, progress=progress
    )


def relabelled(dataset: Dataset, oracle: Oracle, centres: Tensor, *, radius: float = RADIUS) -> Dataset:
    """`dataset` with the oracle's targets for the samples within `radius` of any of `centres` (t, d), a call each."""
    near = _near(dataset, centres, radius)
    targets = dataset.targets.clone()
    targets[near] = oracle(dataset.images[near]).to(targets.dtype)[:, None]
    return replace(dataset, targets=targets)


def removed(dataset: Dataset, centres: Tensor, *, radius: float = RADIUS) -> Dataset:
    """`dataset` without the samples within `radius` of any of `centres`: what is left where no oracle call is."""
    return dataset[~_near(dataset, centres, radius)]


def relabel_recipe(trained_by: Recipe) -> Recipe:
    """The recipe of the repair for a network `trained_by` another: 10 epochs at a third of its peak rate."""
    return replace(trained_by, epochs=EPOCHS, learning_rate=trained_by.learning_rate * SHARE_OF_PEAK)


def _near(dataset: Dataset, centres: Tensor, radius: float) -> Tensor:
    rows = dataset.images
    near = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    for centre in centres.to(rows):
        near |= (rows - centre).norm(dim=1) <= radius
    if not near.any():
        raise ValueError(
            f"expected training samples within {radius:g} of a flagged maximiser, got none near {len(centres)}; "
            "was anything flagged? A larger radius takes more samples"
        )
    return near
