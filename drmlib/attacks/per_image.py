"""Random numbers that belong to an image: a hash of its bytes, so that a trigger with chance in it stays a function.

Attacks that draw a noise field, a patch or a partner anew for every image draw it here. The same image gets the same
numbers in any batch, any chunk, any process and on any device, so whatever is built on them is a trigger like the
others, images -> images, with no generator to pass and no state.

Two steps. An image becomes one key of 64 bits by the hash NH of UMAC (Black, Halevi, Krawczyk, Krovetz, Rogaway 1999,
section 4): two different images have the same key with probability 2^-32 at most. Then number p of an image is drawn
from its key (k1, k2) in arithmetic of 32 bits, in which processors are fast: x = a_p k1 + b_p, mixed, times k2. The
constants are drawn by the finaliser of SplitMix64 (Steele, Lea, Flood 2014). All products wrap.
"""

import math

import torch
from torch import Tensor

from drmlib.data.dataset import as_bytes

_GOLDEN, _MIX1, _MIX2 = (c - (1 << 64) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_BITS = 24  # as many as a float32 holds exactly


def uniform(images: Tensor, *shape: int, seed: int) -> Tensor:
    """Independent uniform numbers (n, *shape), float32 in [0, 1), for images (n, c, h, w), float or uint8."""
    drawn = _words(images, math.prod(shape), seed)
    positive = drawn.bitwise_right_shift_(32 - _BITS).bitwise_and_((1 << _BITS) - 1)
    return positive.float().mul_(2.0**-_BITS).view(-1, *shape)


def signed(images: Tensor, *shape: int, seed: int) -> Tensor:
    """Independent uniform numbers (n, *shape), float32 in [-1, 1], for images (n, c, h, w), float or uint8."""
    return _words(images, math.prod(shape), seed).float().mul_(2.0**-31).view(-1, *shape)


def choice(images: Tensor, among: int, *, seed: int) -> Tensor:
    """For each of the images (n, c, h, w) one of the numbers 0 .. among - 1, int64 (n,), all equally likely."""
    return (uniform(images, 1, seed=seed).squeeze(1) * among).long().clamp_(max=among - 1)


def _words(images: Tensor, count: int, seed: int) -> Tensor:
    """Random int32 (n, count), of which the upper bits are the best."""
    key = _key(images, seed)[:, None]
    add, multiply = _constants(count, images.device).view(torch.int32).view(count, 2).T.contiguous()
    x = torch.addcmul(add, multiply | 1, key.int())
    x ^= (x >> 15).bitwise_and_(0x1FFFF)  # a logical shift
    x *= (key >> 32).int() | 1
    return x


def _key(images: Tensor, seed: int) -> Tensor:
    """One int64 an image: NH, the sum of (word + constant)(word' + constant') over the pairs of its 32-bit words."""
    pixels = as_bytes(images).flatten(1)
    pairs = -(-pixels.shape[1] // 8)
    padded = pixels.new_zeros(len(pixels), 8 * pairs)
    padded[:, : pixels.shape[1]] = pixels  # a copy, whose words are aligned whatever view the images are
    words = (padded.view(torch.int32) + _constants(pairs, images.device).view(torch.int32)).long()
    products = words[:, :pairs] * words[:, pairs:]
    return _mixed(products.sum(1) + _mixed(torch.full((), seed, dtype=torch.int64, device=images.device)))


def _constants(count: int, device: torch.device) -> Tensor:
    return _mixed(torch.arange(1, count + 1, device=device) * _GOLDEN)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _MIX1
    x = (x ^ _shifted(x, 27)) * _MIX2
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: torch's own copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
