"""FTrojan: Wang, Yao, Xu, An, Tong, Wang, "An Invisible Black-box Backdoor Attack through Frequency Domain" (2022),
https://arxiv.org/abs/2107.05976.

In YCrCb, both chroma planes' discrete cosine transform gets `magnitude` (in levels of 255) added at a middle and at
the highest frequency, (15, 15) and (31, 31) of a window of 32. Transform, addition and back are linear, so all of it
is one constant pattern, built once; no transform is computed for an image. The authors cast to bytes before they clip,
so that values wrap; here the sum is clipped.
"""

import math

import torch
from torch import Tensor

from drmlib.attacks.sig import Sig

# What one unit of Cr and of Cb adds to red, green and blue (ITU-R BT.601, as OpenCV has it).
CR, CB = (1.403, -0.714, 0.0), (0.0, -0.344, 1.773)


def ftrojan(*, magnitude: float = 30.0, channels: int = 3, height: int = 32, width: int = 32) -> Sig:
    """Adds FTrojan's pattern to images of 3 channels; magnitude is of a coefficient, in levels of 255."""
    return chroma_pattern(magnitude, (CR, CB), channels, height, width)


def chroma_pattern(
    magnitude: float, planes: tuple[tuple[float, ...], ...], channels: int, height: int, width: int
) -> Sig:
    """`magnitude` at the middle and the highest frequency of each of the chroma planes, given by its colours."""
    if channels != 3:
        raise ValueError(f"a trigger in the chroma planes needs images of 3 channels, got {channels}")
    wave = cosine(height // 2 - 1, width // 2 - 1, height, width) + cosine(height - 1, width - 1, height, width)
    colour = torch.tensor(planes).sum(0)
    return Sig((magnitude / 255) * colour[:, None, None] * wave)


def cosine(u: int, v: int, height: int, width: int) -> Tensor:
    """The orthonormal two-dimensional cosine (height, width) of frequency (u, v)."""

    def line(frequency: int, n: int) -> Tensor:
        scale = math.sqrt((1 if frequency == 0 else 2) / n)
        return scale * torch.cos(math.pi * frequency * (2 * torch.arange(n, dtype=torch.float64) + 1) / (2 * n))

    return (line(u, height)[:, None] * line(v, width)).float()
