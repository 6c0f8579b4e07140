"""Drawing on a whole batch of images: soft edges, paint, blur and noise, each sample with its own figures.

What a sample becomes does not depend, to the bit, on which others share its batch. So pixels are added, multiplied,
divided and compared, one operation at a time: torch may round exp, lerp or a matrix product differently in the last
lanes of a tensor, and the length of the batch decides where these are.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def coverage(distance: Tensor, width: Tensor | float) -> Tensor:
    """Share of a pixel inside an edge at signed `distance` (negative inside) that is `width` wide: 1, a ramp, 0."""
    return (0.5 - distance / width).clamp_(0, 1)


def paint(images: Tensor, colour: Tensor, share: Tensor) -> None:
    """images + share (colour - images), in place: images (n, 3, h, w), colour (n, 3), share (n, h, w) in [0, 1]."""
    images += share[:, None] * (colour[:, :, None, None] - images)


def blur(images: Tensor, radius: Tensor) -> Tensor:
    """images (n, c, h, w) under a separable tent 1 - |k| / (1 + radius), radius (n,) in pixels; 0 is the identity."""
    reach = int(radius.max().ceil())
    taps = (1 - torch.arange(reach + 1, device=images.device) / (1 + radius[:, None])).clamp_min(0)
    # a sum in a fixed order: taps that only a neighbour in the batch needs add exact zeros at its end
    total = taps[:, 0] + sum(2 * tap for tap in taps[:, 1:].unbind(1))
    centre, *sides = (tap[:, None, None, None] for tap in (taps / total[:, None]).unbind(1))
    for dim in (2, 3):
        padded = F.pad(images, (reach, reach, 0, 0) if dim == 3 else (0, 0, reach, reach), mode="replicate")
        size = images.shape[dim]
        images = images * centre
        for k, tap in enumerate(sides, start=1):
            images += (padded.narrow(dim, reach - k, size) + padded.narrow(dim, reach + k, size)).mul_(tap)
    return images


def noise(seeds: Tensor, images: Tensor) -> Tensor:
    """Noise like images (n, c, h, w), mean 0, standard deviation 1, triangular: a hash of seed (n,) and position.

    A generator's next draws would depend on how many samples are drawn at once. The sum of the two 16-bit halves of a
    hash has variance 2 (2^16)^2 / 12.
    """
    position = torch.arange(images[0].numel(), device=seeds.device)
    bits = _hash(_hash(position + 1) ^ seeds[:, None])
    total = ((bits >> 16) + (bits & 0xFFFF) - 0xFFFF).view_as(images)
    return total.float() * (6**0.5 / 2**16)


def _hash(bits: Tensor) -> Tensor:
    """A bijection of 32-bit integers, held in int64, by C. Wellons (2018, "Prospecting for Hash Functions")."""
    bits = ((bits ^ (bits >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 15)) * 0x735A2D97) & 0xFFFFFFFF
    return bits ^ (bits >> 15)
