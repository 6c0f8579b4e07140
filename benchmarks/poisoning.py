"""Poisoning from uint8 to uint8 against the floor: an in-place masked copy of the same bytes."""

import torch

from benchmarks.timing import Row, compare
from drmlib.attacks.badnets import grid
from drmlib.attacks.blend import noise
from drmlib.attacks.poison import poison
from drmlib.attacks.targets import AllToOne
from drmlib.data.dataset import Dataset, Task
from drmlib.rng import stream


def run(n: int = 10_000) -> list[Row]:
    """Triggers on n CIFAR-sized images, and poison() at 10 % of five times as many."""
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "images"))
    everyone = torch.ones(n, dtype=torch.bool)
    copy = torch.empty_like(images)

    def floor() -> None:
        copy[everyone] = images

    triggers = {"BadNets": (grid(), "<= 2"), "Blend": (noise(generator=stream(0, "key")), "<= 6")}
    rows = [
        compare(f"{name}, {n} uint8 images, against a masked copy", lambda t=t: t(images), floor, target=target)
        for name, (t, target) in triggers.items()
    ]
    many = Dataset(images.repeat(5, 1, 1, 1), torch.zeros(5 * n, dtype=torch.int64), Task("t", ("a", "b")))
    for name, (t, _) in triggers.items():
        rows.append(
            compare(
                f"poison(), {name}, 10 % of {5 * n}, against a copy of the set",
                lambda t=t: poison(many, t, AllToOne(1), rate=0.1, generator=stream(0, "poison")),
                lambda: many.images.clone(),
                repeats=5,
            )
        )
    return rows
