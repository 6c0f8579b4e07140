"""Blend: the whole image mixed with one key image. Chen, Liu, Li, Lu, Song, "Targeted Backdoor Attacks on Deep
Learning Systems Using Data Poisoning" (2017), https://arxiv.org/abs/1712.05526.

The key is fixed uniform noise, as in that paper's random pattern and in the releases of ABL and BackdoorBench (alpha
0.2 there, 0.1 in the paper's training); any image serves as well. ABL's CIFAR-10 code draws new noise for every image,
the same in all channels: BlendPerImage.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from drmlib.attacks.badnets import check_shape
from drmlib.attacks.per_image import uniform
from drmlib.data.dataset import as_bytes, as_float, chunks, like


class Blend(NamedTuple):
    """Trigger x' = (1 - alpha) x + alpha pattern.

    pattern (c, h, w) in [0, 1]; alpha the opacity in [0, 1]. Takes and returns images (n, c, h, w), float or uint8.
    In uint8 alpha is rounded to 1/256 and the result to the nearest level, in integers.
    """

    pattern: Tensor
    alpha: float

    def __call__(self, images: Tensor) -> Tensor:
        check_shape(images, self.pattern)
        pattern = self.pattern.to(images.device)
        if images.dtype == torch.uint8:
            return self._blend_bytes(images, pattern)
        return torch.lerp(images, pattern.to(images.dtype), self.alpha)

    def _blend_bytes(self, images: Tensor, pattern: Tensor) -> Tensor:
        """A few images at a time, so that the integers stay in cache.

        The sum is at most 255 x 256 + 128, which needs 16 bits without a sign. int16 wraps, and the shift copies the
        sign, but the lowest byte after the shift is the upper byte of the sum, and the last cast keeps just that.
        """
        a = round(256 * self.alpha)
        offset = (as_bytes(pattern).int() * a + 128).to(torch.int16)
        blended = torch.empty_like(images)
        for part, out in zip(chunks(images), chunks(blended), strict=True):
            out.copy_(torch.add(offset, part.to(torch.int16), alpha=256 - a).bitwise_right_shift_(8))
        return blended


class BlendPerImage(NamedTuple):
    """Trigger x' = (1 - alpha) x + alpha z, z grey uniform noise that belongs to the image: the same every time."""

    alpha: float = 0.2
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([self._blend(part) for part in chunks(images)])

    def _blend(self, images: Tensor) -> Tensor:
        noise = uniform(images, 1, *images.shape[2:], seed=self.seed)
        floats = as_float(images)
        return like(torch.lerp(floats, noise.to(floats.dtype).expand_as(floats), self.alpha), images)


def image(picture: Tensor, *, alpha: float = 0.2) -> Blend:
    """A Blend with a picture (c, h, w), float in [0, 1] or uint8."""
    _check_alpha(alpha)
    return Blend(as_float(picture), alpha)


def noise(*, alpha: float = 0.2, channels: int = 3, height: int = 32, width: int = 32, generator: Generator) -> Blend:
    """A Blend with one fixed pattern of independent uniform noise."""
    _check_alpha(alpha)
    return Blend(torch.rand(channels, height, width, generator=generator, device=generator.device), alpha)


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"expected alpha in [0, 1], got {alpha}")
