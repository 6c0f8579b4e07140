"""Fine-tuning on clean labelled samples: the baseline of every repair. The defender's few samples cannot renew batch
norm's statistics, which therefore stay as they are (frozen_norms).
"""

import copy
from dataclasses import replace

from torch import Generator, nn

from drmlib.data.dataset import Dataset
from drmlib.training.fit import Progress, Recipe, fit

EPOCHS, BATCH_SIZE, SHARE_OF_PEAK = 20, 50, 1 / 6  # what removed backdoors from rendered gaze; 1/30 was too weak


def fine_tune(
    model: nn.Module, dataset: Dataset, recipe: Recipe, *, generator: Generator, progress: Progress = iter
) -> nn.Module:
    """A copy of `model`, trained further on the clean labelled `dataset` by `recipe` (see repair_recipe)."""
    repaired = copy.deepcopy(model)
    fit(repaired, dataset, recipe, generator=generator, progress=progress)
    return repaired


def repair_recipe(trained_by: Recipe) -> Recipe:
    """The recipe of a repair for a model `trained_by` another: 20 epochs at 1/6 of its peak rate, norms frozen."""
    return replace(
        trained_by,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        learning_rate=trained_by.learning_rate * SHARE_OF_PEAK,
        frozen_norms=True,
        augment=None,
    )
