"""Every closed-form trigger from uint8 to uint8 against the floor, an in-place masked copy of the same bytes.

poison() is compared with a plain copy of its images, and, for WaNet with its covers, with grid_sample of as many floats
as it warps.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import Row, compare
from drmlib.attacks import (
    adaptive_blend,
    adaptive_patch,
    badnets,
    blend,
    bpp,
    composite,
    ctrl,
    ftrojan,
    k_way,
    low_frequency,
    refool,
    rotation,
    sig,
    tape,
    trojan,
    wanet,
)
from drmlib.attacks.poison import Poisoned, Trigger, poison
from drmlib.attacks.targets import AllToOne
from drmlib.data.dataset import Dataset, Task
from drmlib.rng import stream


def run(n: int = 10_000) -> list[Row]:
    """Triggers on n CIFAR-sized images, and poison() at 10 % of them."""
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "images"))
    everyone = torch.ones(n, dtype=torch.bool)
    copy = torch.empty_like(images)

    def floor() -> None:
        copy[everyone] = images

    rows = [
        compare(f"{name}, {n} uint8 images, against a masked copy", partial(t, images), floor, repeats=5, target=target)
        for name, (t, target) in triggers(images).items()
    ]
    return rows + poisoned(images)


def poisoned(images: Tensor) -> list[Row]:
    """poison() at 10 % against images.clone(), and WaNet with 20 % covers against grid_sample of 30 % of the images."""
    n, warp = len(images), wanet.warp(generator=stream(0, "wanet"))
    data = Dataset(images, torch.zeros(n, dtype=torch.int64), Task("t", ("a", "b")))
    rows = [
        compare(
            f"poison(), {name}, 10 % of {n}, against a copy of the set",
            partial(_poison, data, triggers(images)[name][0]),
            images.clone,
            repeats=15,
            target=target,
        )
        for name, target in (("BadNets", "< 1.3"), ("Blend", "< 1.5"), ("SIG", ""))
    ]
    floats = images[: round(0.1 * n) + round(0.2 * n)].float().div_(255)
    grid = warp.grid.expand(len(floats), -1, -1, -1)
    with_covers = partial(_poison, data, warp, cover_rate=0.2, cover_trigger=warp.noise(0))
    what = f"poison(), WaNet, 10 % and 20 % covers of {n}, against grid_sample"
    sample = partial(F.grid_sample, floats, grid, align_corners=True)
    return [*rows, compare(what, with_covers, sample, repeats=15, target="< 1.3")]


def _poison(data: Dataset, trigger: Trigger, cover_rate: float = 0.0, cover_trigger: Trigger | None = None) -> Poisoned:
    return poison(
        data,
        trigger,
        AllToOne(1),
        rate=0.1,
        cover_rate=cover_rate,
        cover_trigger=cover_trigger,
        generator=stream(0, "poison"),
    )


def triggers(images: Tensor) -> dict[str, tuple[Trigger, str]]:
    """Each trigger with its target ratio, if it has one."""
    bank, warp = images[:500], wanet.warp(generator=stream(0, "wanet"))
    return {
        "BadNets": (badnets.grid(), "<= 2"),
        "SIG": (sig.sinusoid(), "<= 4"),
        "Blend": (blend.noise(generator=stream(0, "key")), "<= 6"),
        "WaNet": (warp, "<= 40"),
        "WaNet, covers": (warp.noise(0), ""),
        "Blend, noise per image": (blend.BlendPerImage(), ""),
        "Trojan": (trojan.reversed_patch(), ""),
        "FTrojan": (ftrojan.ftrojan(), ""),
        "CTRL": (ctrl.ctrl(), ""),
        "low frequency": (low_frequency.low_frequency(generator=stream(0, "low")), ""),
        "Bpp": (bpp.Bpp(), ""),
        "Bpp, covers": (bpp.BppNegative(bpp.Bpp(), bank), ""),
        "rotation": (rotation.Rotation(), ""),
        "Refool": (refool.reflections(bank, generator=stream(0, "refool")), ""),
        "tape": (tape.Tape(), ""),
        "Adaptive-Blend": (adaptive_blend.noise(generator=stream(0, "adaptive")), ""),
        "Adaptive-Patch": (adaptive_patch.patches(generator=stream(0, "patches")), ""),
        "k-way": (k_way.pixels(), ""),
        "composite": (composite.Composite(bank), ""),
    }
