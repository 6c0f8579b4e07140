"""How much each section does: on a card, and as a trial on any processor."""

from typing import NamedTuple

import torch
from torch import Tensor

from drmlib.data.dataset import Dataset, Task
from drmlib.rng import stream


class Sizes(NamedTuple):
    """Numbers of a run.

    images: how many a trigger gets. batches: of training. steps: of each timed piece of a training. search: steps of
    each inversion. classes: of the models inspected. populations: numbers of models side by side. width: channels of
    the small networks. large: width of ResNet-18. side: of the victim's rendered images. victim: steps of the victim.
    share: of the seconds that the sections get. repeats: of each call, at most.
    """

    images: int
    batches: tuple[int, ...]
    steps: int
    search: int
    classes: int
    populations: tuple[int, ...]
    width: int
    large: int
    side: int
    victim: int
    share: float
    repeats: int


CARD = Sizes(10_000, (64, 256, 1024), 20, 60, 16, (8, 32), 16, 64, 224, 10, 1.0, 7)
# A ResNet-18 of width 4 in channels-last layout ends the process on a CPU with torch 2.13 (segmentation fault in
# backward, float32); 8 does not.
TINY = Sizes(20, (4,), 1, 1, 3, (2,), 4, 8, 32, 1, 0.2, 1)


def random_images(count: int, device: torch.device, *, classes: int = 10, side: int = 32) -> Dataset:
    """Noise with random labels, bytes: how fast a network trains does not depend on what it sees."""
    g = stream(0, "noise", device=device)

    def draw(high: int, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.randint(high, shape, dtype=dtype, generator=g, device=device)

    images = draw(256, count, 3, side, side, dtype=torch.uint8)
    task = Task("noise", tuple(map(str, range(classes))))
    return Dataset(images, draw(classes, count, dtype=torch.int64), task)
