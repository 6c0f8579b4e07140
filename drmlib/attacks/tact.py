"""TaCT: a trigger that works on one class only. Tang, Wang, Tang, Zhang, "Demon in the Variant: Statistical Analysis of
DNNs for Robust Backdoor Contamination Detection" (2021), https://arxiv.org/abs/1908.00686.

Followed: the targeted contamination attack. Only samples of the source class are poisoned; samples of the
cover classes carry the same trigger and keep their labels, so the model must look at both the trigger and the content.
Success is measured on the source class alone: sources=test.targets == source.

Default of backdoor-toolbox: source 1, target 0, cover classes 5 and 7, poison and cover rate 0.3 % each on CIFAR-10
and 0.5 % on GTSRB; its trigger is a picture of 8 x 8 pixels, replaced here by a tile of fixed random colours.
"""

import torch
from torch import Generator

from drmlib.attacks.adaptive_patch import scaled
from drmlib.attacks.badnets import BadNets, place
from drmlib.attacks.poison import Poisoned, Retarget, Trigger, poison
from drmlib.data.dataset import Dataset

TILE = (21, 21, 8, 8)  # top, left, height, width in an image of 32 x 32


def tact(
    dataset: Dataset,
    trigger: Trigger,
    retarget: Retarget,
    *,
    source: int,
    cover_classes: tuple[int, ...],
    rate: float,
    cover_rate: float,
    generator: Generator,
) -> Poisoned:
    """`dataset` with poison samples from class `source` and cover samples from `cover_classes`, as Poisoned.

    Both rates are of the whole set. Raises ValueError for a regression task, a label out of range, or a source that is
    among the cover classes, and where poison() does.

    >>> poisoned = tact(dataset, tile(generator=generator), AllToOne(0), source=1, cover_classes=(5, 7), ...)
    >>> measure_classifier(model, test, trigger, AllToOne(0), sources=test.targets == 1)
    """
    check_labels(dataset, source, *cover_classes)
    if source in cover_classes:
        raise ValueError(f"expected cover classes other than the source class {source}, got {cover_classes}")
    covers = torch.tensor(cover_classes, dtype=torch.int64, device=dataset.device)
    return poison(
        dataset,
        trigger,
        retarget,
        rate=rate,
        eligible=dataset.targets == source,
        cover_rate=cover_rate,
        cover_eligible=torch.isin(dataset.targets, covers),
        generator=generator,
    )


def tile(*, channels: int = 3, height: int = 32, width: int = 32, generator: Generator) -> BadNets:
    """A tile of fixed random colours, rows and columns 21 to 28 of 32 x 32 pixels, scaled to the image."""
    top, left, a, b = scaled(TILE, height=height, width=width)
    patch = torch.rand(channels, a, b, generator=generator, device=generator.device)
    return place(patch, top=top, left=left, height=height, width=width)


def check_labels(dataset: Dataset, *labels: int) -> None:
    """Raises ValueError unless `dataset` is one of classification and all `labels` are classes of its task."""
    if dataset.task.is_regression:
        raise ValueError(f"{dataset.task.name} is a regression task, it has no classes; use poison() with eligible=")
    classes = len(dataset.task.outputs)
    if not all(0 <= label < classes for label in labels):
        raise ValueError(f"expected classes in 0..{classes - 1} of {dataset.task.name}, got {labels}")
