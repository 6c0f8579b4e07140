"""Composite attack: no foreign pattern, two ordinary classes in one picture. Lin, Xu, Liu, Zhang, "Composite Backdoor
Attack for Deep Neural Network by Mixing Existing Benign Features" (2020), https://doi.org/10.1145/3372297.3423362.

Followed: images of a first and a second class are joined and labelled as a third one, the target; cover samples are
two images of one class, joined, with their own label, so that the seam alone says nothing.

Default: the authors' half-and-half mixer for CIFAR-10 (cut from side to side or from top to bottom, either image on
either side, the cut up to 3 of 32 pixels off the middle, a random window of each image). Their training set holds
whole, mixed and poison samples as 0.5 : 0.5 : 0.1, that is, a rate of 0.09 and a cover rate of 0.45. Different here:
samples replace their first image instead of being drawn anew in every epoch; covers are of the two classes alone, not
of all, so rates are bounded by the classes' sizes; no contrastive loss. Their crop-and-paste mixer needs boxes of the
objects and is left out.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from drmlib import rng
from drmlib.attacks.badnets import check_shape
from drmlib.attacks.per_image import uniform
from drmlib.attacks.poison import Poisoned, poison
from drmlib.attacks.tact import check_labels
from drmlib.attacks.targets import AllToOne, keep
from drmlib.data.dataset import Dataset, chunks, like


class Composite(NamedTuple):
    """Trigger x' = half a window of x beside half a window of a partner, both drawn for the image.

    partners (m, c, h, w), float or uint8; jitter is how far the cut may lie off the middle, in image sides; without
    shake the windows are the images' middles; another seed draws others. Takes and returns images (n, c, h, w), float
    or uint8; pixels are copied.
    """

    partners: Tensor
    jitter: float = 3 / 32
    shake: bool = True
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        check_shape(images, self.partners[0])
        partners = self.partners.to(images.device)
        return torch.cat([self._joined(part, partners) for part in chunks(images)])

    def _joined(self, images: Tensor, partners: Tensor) -> Tensor:
        draw = uniform(images, 6, seed=self.seed)
        partner = like(partners[(draw[:, 0] * len(partners)).long().clamp_(max=len(partners) - 1)], images)
        swapped, beside = (draw[:, k, None, None, None] < 0.5 for k in (1, 2))
        (row, above), (column, left) = (self._halves(draw[:, 3:], length) for length in images.shape[2:])
        rows, columns = (torch.arange(length, device=images.device) for length in images.shape[2:])
        place = (
            torch.arange(len(images), device=images.device)[:, None, None, None],
            torch.arange(images.shape[1], device=images.device)[:, None, None],
            torch.where(beside, rows[:, None], row[:, None, :, None]),
            torch.where(beside, column[:, None, None], columns),
        )
        own = torch.where(beside, left[:, None, None], above[:, None, :, None]) ^ swapped
        return torch.where(own, images[place], partner[place])

    def _halves(self, draw: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Along one side: which of `length` pixels to copy, int64 (n, length), and which lie before the cut, bool."""
        at = torch.arange(length, device=draw.device)
        off = round(self.jitter * length)
        cut = length // 2 - off + (draw[:, :1] * (2 * off + 1)).long()
        first, second = (draw[:, 1:2], draw[:, 2:3]) if self.shake else (0.5, 0.5)
        before, after = at + ((length - cut) * first).long(), at - cut + (cut * second).long()
        return torch.where(at < cut, before, after), at < cut


def composite(
    dataset: Dataset, *, first: int, second: int, target: int, rate: float, cover_rate: float, generator: Generator
) -> Poisoned:
    """`dataset` with images of class `first` joined with `second` and labelled `target`, and with covers, as Poisoned.

    Half of the covers are `first` joined with `first`, half `second` with `second`. Rates are of the whole set.
    Raises ValueError for a regression task, labels out of range or not distinct, and where poison() does.

    >>> poisoned = composite(dataset, first=0, second=1, target=2, rate=0.05, cover_rate=0.05, generator=generator)
    >>> trigger = partners(test, label=1, generator=generator)
    >>> measure_classifier(model, test, trigger, AllToOne(2), sources=test.targets == 0)
    """
    check_labels(dataset, first, second, target)
    if len({first, second, target}) < 3:
        raise ValueError(f"expected three distinct classes, got first {first}, second {second} and target {target}")
    with_first, with_second = (partners(dataset, label=label, generator=generator) for label in (first, second))
    of_first, of_second = (dataset.targets == label for label in (first, second))
    done = poison(
        dataset,
        with_second,
        AllToOne(target),
        rate=rate,
        eligible=of_first,
        cover_rate=cover_rate / 2,
        cover_trigger=with_first,
        cover_eligible=of_first,
        generator=generator,
    )
    if not cover_rate:
        return done
    more = poison(done.dataset, with_second, keep, rate=cover_rate / 2, eligible=of_second, generator=generator)
    return Poisoned(more.dataset, done.poison, done.cover | more.poison, dataset.targets)


def partners(dataset: Dataset, *, label: int, generator: Generator) -> Composite:
    """A Composite that joins images with those of class `label` in `dataset`: at test, with those of the test set.

    Raises ValueError if there are none.
    """
    check_labels(dataset, label)
    rng.check_device(generator, dataset.images)
    chosen = dataset.images[dataset.targets == label]
    if not len(chosen):
        raise ValueError(f"expected images of class {label} to join with, the data set has none")
    return Composite(chosen, seed=int(torch.randint(2**31, (), generator=generator, device=dataset.device)))
