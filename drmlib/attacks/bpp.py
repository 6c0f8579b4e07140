"""BppAttack: Wang, Zhai, Ma, "BppAttack: Stealthy and Efficient Trojan Attacks against Deep Neural Networks via Image
Quantization and Contrastive Adversarial Learning" (2022), https://arxiv.org/abs/2205.13383.

The trigger is a poor palette: x' = round(x (q - 1)) / (q - 1) with q = 8 levels a channel. Negative samples, covers
here, carry another image's rounding error and their own label, so that the model learns the palette and not noise.
Dithering (Floyd-Steinberg), which spreads each pixel's error over its neighbours, is the paper's default and
BackdoorBench's option; the plain rounding is BackdoorBench's default and ours.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from drmlib.attacks.badnets import check_shape
from drmlib.attacks.per_image import choice
from drmlib.data.dataset import as_float, chunks, like


class Bpp(NamedTuple):
    """Trigger: every value rounded to the nearest of `levels` equally spaced ones in [0, 1]."""

    levels: int = 8

    def __call__(self, images: Tensor) -> Tensor:
        check_levels(self.levels)
        if images.dtype == torch.uint8:
            table = like(_round(torch.arange(256, device=images.device).float() / 255, self.levels), images)
            return table[images.int()]
        return _round(images, self.levels)


class Dithered(NamedTuple):
    """Trigger: Floyd-Steinberg dithering to `levels` levels, pixel by pixel, all images side by side."""

    levels: int = 8

    def __call__(self, images: Tensor) -> Tensor:
        check_levels(self.levels)
        n, c, h, w = images.shape
        # A border takes the error that leaves the image; a row at a time is diffused, and its error handed down.
        left = torch.zeros(n, c, h + 1, w + 2, dtype=torch.float64, device=images.device)
        left[:, :, :h, 1 : w + 1] = as_float(images)
        for i in range(h):
            for j in range(1, w + 1):
                wanted = left[:, :, i, j].clone()
                left[:, :, i, j] = _round(wanted, self.levels).clamp_(0, 1)
                error = wanted - left[:, :, i, j]
                left[:, :, i, j + 1] += error * (7 / 16)
                left[:, :, i + 1, j - 1] += error * (3 / 16)
                left[:, :, i + 1, j] += error * (5 / 16)
                left[:, :, i + 1, j + 1] += error * (1 / 16)
        return like(left[:, :, :h, 1 : w + 1].float(), images)


class BppNegative(NamedTuple):
    """What cover samples get: clip(x + T(z) - z), the rounding error of another image z of `others` (m, c, h, w)."""

    trigger: Bpp | Dithered
    others: Tensor
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        check_shape(images, self.others[0])
        others = as_float(self.others.to(images.device))
        errors = as_float(self.trigger(others)) - others
        return torch.cat([self._carrying(part, errors) for part in chunks(images)])

    def _carrying(self, images: Tensor, errors: Tensor) -> Tensor:
        drawn = errors[choice(images, len(errors), seed=self.seed)]
        return like((as_float(images) + drawn).clamp(0, 1), images)


def check_levels(levels: int) -> None:
    """Raises ValueError unless levels is at least 2."""
    if levels < 2:
        raise ValueError(f"expected at least 2 levels, got {levels}")


def _round(images: Tensor, levels: int) -> Tensor:
    return (images * (levels - 1)).round_().div_(levels - 1)
