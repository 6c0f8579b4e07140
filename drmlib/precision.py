"""Mixed precision: whether training and inversion compute in bfloat16 on this machine, by measurement.

torch.autocast keeps weights, norms and losses in float32 and computes convolutions and matrix products in bfloat16.
Processors with matrix units (AMX) take half the time for that; others emulate it and take longer.
"""

import os
import time
from functools import cache

import torch
from torch import Tensor, nn

from drmlib import rng

PRECISIONS = ("auto", "float32", "bfloat16")
PAYS = 0.8  # bfloat16 is used where a training step takes at most this share of float32's time


def autocast(device: torch.device | str = "cpu") -> torch.dtype | None:
    """The dtype of mixed precision for training and inversion on `device`: bfloat16, or None for float32 alone.

    DRMLIB_PRECISION chooses: float32, bfloat16, or auto (the default), which takes bfloat16 on a processor where a
    short probe finds it faster. Graphics cards keep float32 unless told.
    """
    name = os.environ.get("DRMLIB_PRECISION") or "auto"
    if name not in PRECISIONS:
        raise ValueError(f"unknown DRMLIB_PRECISION {name!r}; valid: {', '.join(PRECISIONS)}")
    faster = name == "bfloat16" or (name == "auto" and torch.device(device).type == "cpu" and bfloat16_share() <= PAYS)
    return torch.bfloat16 if faster else None


def name() -> str:
    """The name of the precision in which this process trains on the processor: float32 or bfloat16."""
    return "float32" if autocast() is None else "bfloat16"


@cache
def bfloat16_share(repeats: int = 3) -> float:
    """Time of a small training step in bfloat16 over the same in float32, the least of `repeats`, on the processor.

    Measured, since neither the name of a processor nor its flags say whether torch's convolutions use what it has.
    Takes a tenth of a second where bfloat16 is native, and stops after one pair where it is hopeless.
    """
    with rng.seeded_layers(rng.stream(0, "probe")):
        body = nn.Sequential(*(_convolution(a, b) for a, b in ((16, 32), (32, 32), (32, 64))))
    images = torch.rand(16, 16, 16, 16, generator=rng.stream(0, "probe images"))
    images = images.contiguous(memory_format=torch.channels_last)
    body.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    seconds = {True: _step_seconds(body, images, True), False: _step_seconds(body, images, False)}  # warm-up
    for _ in range(repeats):
        seconds = {reduced: min(least, _step_seconds(body, images, reduced)) for reduced, least in seconds.items()}
        if seconds[True] > 2 * seconds[False]:
            break
    return seconds[True] / seconds[False]


def _step_seconds(body: nn.Module, images: Tensor, reduced: bool) -> float:
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
        loss = body(images).float().square().mean()
    loss.backward()
    return time.perf_counter() - start


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
