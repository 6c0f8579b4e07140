"""Random numbers that belong to an image: a hash of its bytes, so that a trigger with chance in it stays a function.

Attacks that draw a noise field, a patch or a partner anew for every image draw it here. The same image gets the same
numbers in any batch, any chunk, any process and on any device, so whatever is built on them is a trigger like the
others, images -> images, with no generator to pass and no state. Mixing is the finaliser of SplitMix64 (Steele, Lea,
Flood 2014), on int64, whose products wrap.
"""

import torch
from torch import Tensor

from drmlib.data.dataset import as_bytes

_GOLDEN, _MIX1, _MIX2 = (c - (1 << 64) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_BITS = 24  # as many as a float32 holds exactly


def uniform(images: Tensor, *shape: int, seed: int) -> Tensor:
    """Independent uniform numbers (n, *shape), float32 in [0, 1), for images (n, c, h, w), float or uint8."""
    count = 1
    for size in shape:
        count *= size
    index = _mixed(torch.arange(1, count + 1, device=images.device))
    drawn = _mixed(_key(images, seed)[:, None] + index)
    return (_shifted(drawn, 64 - _BITS).float() * 2.0**-_BITS).view(-1, *shape)


def choice(images: Tensor, among: int, *, seed: int) -> Tensor:
    """For each of the images (n, c, h, w) one of the numbers 0 .. among - 1, int64 (n,), all equally likely."""
    return (uniform(images, 1, seed=seed).squeeze(1) * among).long().clamp_(max=among - 1)


def _key(images: Tensor, seed: int) -> Tensor:
    """One int64 an image, from all its bytes and their places."""
    pixels = as_bytes(images).flatten(1).long()
    places = _mixed(_mixed(torch.arange(1, pixels.shape[1] + 1, device=images.device)) ^ _GOLDEN)
    return _mixed((pixels * places).sum(1) + _mixed(torch.full((), seed, dtype=torch.int64, device=images.device)))


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _MIX1
    x = (x ^ _shifted(x, 27)) * _MIX2
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: torch's own copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
