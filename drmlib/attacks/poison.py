"""poison(): which samples, which trigger, which target. The same call for labels and for target vectors.

Harness rules, where toolkits differ and results with them: who is chosen, and what a rate is a fraction of, stands in
selection.py; the trigger is applied to the stored images, before augmentation, in their own dtype, so uint8 images are
requantised as in ABL, BackdoorBench and BackdoorBox, and float images are not, as in backdoor-toolbox: low-amplitude
triggers (SIG, CTRL, FTrojan) differ between the two.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Generator, Tensor

from drmlib import rng
from drmlib.attacks.selection import choose, choose_covers
from drmlib.attacks.targets import keep
from drmlib.data.dataset import Dataset

CHUNK_BYTES = 1 << 26  # of images triggered at a time


class Trigger(Protocol):
    """Any callable from images (n, c, h, w) to images of the same shape and dtype."""

    def __call__(self, images: Tensor, /) -> Tensor: ...


class Retarget(Protocol):
    """Any callable from targets, labels (n,) or vectors (n, k), to targets of the same shape and dtype."""

    def __call__(self, targets: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Poisoned:
    """A poisoned data set and what only the attacker and the evaluator know of it.

    A defence is given `dataset`, never this. poison and cover (n,) bool are disjoint; cover samples carry a trigger
    and keep their target; true_targets are those before poisoning.
    """

    dataset: Dataset
    poison: Tensor
    cover: Tensor
    true_targets: Tensor


def poison(
    dataset: Dataset,
    trigger: Trigger,
    retarget: Retarget,
    *,
    rate: float | None = None,
    rate_of_eligible: float | None = None,
    eligible: Tensor | None = None,
    ranking: Tensor | None = None,
    cover_rate: float = 0.0,
    cover_trigger: Trigger | None = None,
    cover_eligible: Tensor | None = None,
    generator: Generator,
) -> Poisoned:
    """`dataset` with the trigger and the attacker's target on some of its samples, as Poisoned.

    Either rate, a fraction of the whole set, or rate_of_eligible, both in (0, 1], of the samples in `eligible` (n,)
    bool, all by default: random ones, or the lowest in `ranking` (n,). A cover_rate of the whole set, in [0, 1), drawn
    among `cover_eligible` (n,), gets `cover_trigger` (the trigger by default) and keeps its targets. The given data
    set is not changed. Raises ValueError for a rate out of range, or more samples asked for than are eligible.
    """
    rng.check_device(generator, dataset.images, "the data set")
    poisoned = choose(
        dataset,
        rate=rate,
        rate_of_eligible=rate_of_eligible,
        eligible=eligible,
        ranking=ranking,
        generator=generator,
    )
    covers = choose_covers(dataset, poisoned, cover_rate=cover_rate, cover_eligible=cover_eligible, generator=generator)
    images, targets = dataset.images.clone(), dataset.targets.clone()
    _stamp(images, trigger, poisoned)
    _stamp(images, trigger if cover_trigger is None else cover_trigger, covers)
    targets[poisoned] = _retargeted(retarget, dataset.targets[poisoned])
    return Poisoned(
        replace(dataset, images=images, targets=targets),
        _mask(poisoned, len(dataset)),
        _mask(covers, len(dataset)),
        dataset.targets,
    )


def triggered(dataset: Dataset, trigger: Trigger) -> Dataset:
    """Every image of `dataset` with the trigger, targets kept: the inputs on which an attack is measured."""
    images = dataset.images.clone()
    _stamp(images, trigger, torch.arange(len(dataset), device=dataset.device))
    return replace(dataset, images=images)


def _stamp(images: Tensor, trigger: Trigger, index: Tensor) -> None:
    """Overwrites images[index] with what the trigger makes of them, CHUNK_BYTES at a time."""
    chunk = max(1, CHUNK_BYTES // max(1, images[0].numel() * images.element_size()))
    for part in index.split(chunk) if len(index) else ():
        clean = images.index_select(0, part)
        stamped = trigger(clean)
        if stamped.shape != clean.shape or stamped.dtype != clean.dtype:
            raise ValueError(
                f"a trigger returns images as it was given them: expected {clean.dtype} {tuple(clean.shape)}, "
                f"got {stamped.dtype} {tuple(stamped.shape)}"
            )
        _copy_rows(images, part, stamped)


def _copy_rows(images: Tensor, index: Tensor, rows: Tensor) -> None:
    """images[index] = rows. Where images are whole words in memory, eight bytes are copied at a time."""
    if _in_words(images) and _in_words(rows):
        images.flatten(1).view(torch.int64).index_copy_(0, index, rows.flatten(1).view(torch.int64))
    else:
        images[index] = rows


def _in_words(images: Tensor) -> bool:
    size, offset = images[0].numel() * images.element_size(), images.storage_offset() * images.element_size()
    return images.is_contiguous() and not images.requires_grad and size % 8 == 0 and offset % 8 == 0


def _retargeted(retarget: Retarget, targets: Tensor) -> Tensor:
    new = targets if retarget is keep else retarget(targets)
    if new.shape != targets.shape or new.dtype != targets.dtype:
        raise ValueError(
            f"expected new targets of {targets.dtype} {tuple(targets.shape)}, got {new.dtype} {tuple(new.shape)}"
        )
    return new


def _mask(index: Tensor, n: int) -> Tensor:
    mask = torch.zeros(n, dtype=torch.bool, device=index.device)
    mask[index] = True
    return mask
