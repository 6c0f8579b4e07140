"""Trojan: the patch that ABL and backdoor-toolbox ship for the attack of Liu, Ma, Aafer, Lee, Zhai, Wang, Zhang,
"Trojaning Attack on Neural Networks" (2018), https://doi.org/10.14722/ndss.2018.23291.

reversed_patch is the 3x3 patch of ABL's CIFAR-10 release, reverse-engineered from a network of theirs and *added* to
rows and columns 25 to 27. Their code casts to bytes before it clips, so the sum wraps around modulo 256: wrap=True
here, and the default, for it is the trigger that was measured. random_square stands for backdoor-toolbox's opaque 8x8
square of colours at rows and columns 21 to 28. trojannn.py computes a patch for a network of one's own.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from drmlib.attacks.badnets import BadNets, check_shape, place
from drmlib.data.dataset import as_bytes

# Bytes of the patch, one 3x3 block a channel, from the array that ABL's repository ships.
PATCH = (
    ((207, 175, 29), (79, 137, 248), (131, 6, 246)),
    ((131, 243, 232), (8, 0, 113), (40, 145, 250)),
    ((181, 120, 179), (126, 32, 146), (4, 61, 246)),
)
MARGIN = 7  # of 32: the block's first row and column is the seventh from the end


class Trojan(NamedTuple):
    """Trigger x' = x + pattern, modulo 256 in bytes if `wrap`, clipped if not; pattern (c, h, w) uint8."""

    pattern: Tensor
    wrap: bool = True

    def __call__(self, images: Tensor) -> Tensor:
        check_shape(images, self.pattern)
        pattern = self.pattern.to(images.device)
        if images.dtype != torch.uint8:
            # Floats keep what they have below a level; only what the bytes would gain or lose is added.
            levels = as_bytes(images)
            return (images + (self._sum(levels, pattern).to(images.dtype) - levels.to(images.dtype)) / 255).clamp_(0, 1)
        return self._sum(images, pattern)

    def _sum(self, images: Tensor, pattern: Tensor) -> Tensor:
        if self.wrap:
            return images + pattern  # bytes wrap
        return torch.minimum(images, 255 - pattern) + pattern


def reversed_patch(*, wrap: bool = True, channels: int = 3, height: int = 32, width: int = 32) -> Trojan:
    """ABL's patch, for images of 3 channels, as far from the lower right corner as on 32x32 images."""
    if channels != 3 or min(height, width) < MARGIN:
        raise ValueError(
            f"the patch has 3 channels and needs {MARGIN} rows, got {channels} and {height}x{width} images"
        )
    pattern = torch.zeros(3, height, width, dtype=torch.uint8)
    top, left = height - MARGIN, width - MARGIN
    pattern[:, top : top + 3, left : left + 3] = torch.tensor(PATCH, dtype=torch.uint8)
    return Trojan(pattern, wrap)


def random_square(*, channels: int = 3, height: int = 32, width: int = 32, generator: Generator) -> BadNets:
    """An opaque square of random colours, a quarter of the height, at rows and columns 21 to 28 of 32."""
    side, top, left = height // 4, height - 11 * height // 32, width - 11 * width // 32
    patch = torch.rand(channels, side, side, generator=generator, device=generator.device)
    return place(patch, top=top, left=left, height=height, width=width)
