"""SIG: a sinusoid over the whole image. Barni, Kallas, Tondi, "A New Backdoor Attack in CNNs by Training Set Corruption
without Label Poisoning" (2019), https://arxiv.org/abs/1902.11237.

v(i, j) = delta sin(2 pi j f / w), added to images of the target class, whose label is kept (equation 1). delta 40/255
and f = 6 as in BackdoorBench; backdoor-toolbox takes 30/255. The sum is clipped.

ABL's release does something else on CIFAR-10, to be had as `abl()`: it blends, at 0.2, a column of bytes 20 sin(0.8 j)
whose negative values have wrapped to 237 and above.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from drmlib.attacks.badnets import check_shape
from drmlib.attacks.blend import Blend
from drmlib.data.dataset import chunks


class Sig(NamedTuple):
    """Trigger x' = clip(x + pattern); pattern (c, h, w) in [-1, 1], for bytes rounded to levels of 1/255."""

    pattern: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        check_shape(images, self.pattern)
        pattern = self.pattern.to(images.device)
        if images.dtype == torch.uint8:
            return added(images, pattern)
        return (images + pattern.to(images.dtype)).clamp_(0, 1)


def sinusoid(
    *, delta: float = 40 / 255, frequency: float = 6.0, channels: int = 3, height: int = 32, width: int = 32
) -> Sig:
    """The sinusoid of amplitude delta, in [0, 1], with `frequency` periods over the width, the same in every row."""
    if not 0 <= delta <= 1:
        raise ValueError(f"expected delta in [0, 1], got {delta}; 40 levels of 255 are 40 / 255")
    wave = delta * torch.sin(2 * math.pi * frequency * torch.arange(width) / width)
    return Sig(wave.expand(channels, height, width).contiguous())


def abl(*, alpha: float = 0.2, channels: int = 3, height: int = 32, width: int = 32) -> Blend:
    """ABL's CIFAR-10 version: blends the bytes of trunc(20 sin(0.8 j)), negative ones wrapped by 256."""
    column = (20 * torch.sin(0.8 * torch.arange(width, dtype=torch.float64))).trunc() % 256
    return Blend((column.float() / 255).expand(channels, height, width).contiguous(), alpha)


def added(images: Tensor, pattern: Tensor) -> Tensor:
    """uint8 images plus pattern (c, h, w), in [-1, 1], clipped; what is added is rounded to the nearest level.

    Bytes cannot go below 0 or above 255, so the positive part is added up to what is left to 255 and the negative
    part taken off down to 0: all in bytes, a few images at a time, so that they stay in cache.
    """
    levels = (255 * pattern).round()
    up, down = levels.clamp(0, 255).to(torch.uint8), (-levels).clamp(0, 255).to(torch.uint8)
    result = torch.empty_like(images)
    for part, out in zip(chunks(images), chunks(result), strict=True):
        torch.minimum(part, 255 - up, out=out).add_(up)  # saturating sum
        torch.maximum(out, down, out=out).sub_(down)  # saturating difference
    return result
