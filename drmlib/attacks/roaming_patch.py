"""A patch that is pasted anywhere: the attack of Qiao, Yang, Li, "Defending Neural Backdoors via Generative
Distribution Modeling" (2019), https://arxiv.org/abs/1910.04749, section 4.

Their 51 black-and-white patterns of 3 x 3 pixels are the 512 binary ones, of which those that a rotation, a reflection
or an exchange of black and white turn into each other count once. Others are of random colours. They paste one place a
batch and never use the last row and column; here every image has its own place, a hash of its bytes, and all are used.
"""

from itertools import product
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from drmlib.attacks.per_image import uniform
from drmlib.data.dataset import like

SIDE = 3


class RoamingPatch(NamedTuple):
    """Trigger that overwrites a window of the image with `patch` (c, a, b) in [0, 1]; where, image and `seed` say."""

    patch: Tensor
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        patch = like(self.patch, images).to(images.device)
        return paste(images, patch.expand(len(images), -1, -1, -1), uniform(images, 2, seed=self.seed))


def paste(images: Tensor, patches: Tensor, place: Tensor) -> Tensor:
    """Images (n, c, h, w) with patches (n, c, a, b) at a window that place (n, 2), in [0, 1), chooses: row, column.

    All windows within the image are equally likely where place is uniform. Gradients reach the patches. Raises
    ValueError for patches that do not fit.
    """
    (n, c, h, w), (a, b) = images.shape, patches.shape[2:]
    if patches.shape[:2] != (n, c) or a > h or b > w:
        raise ValueError(f"expected patches ({n}, {c}, <= {h}, <= {w}), got {tuple(patches.shape)}")
    room = torch.tensor([h - a + 1, w - b + 1], device=images.device)
    top, left = (place * room).long().unbind(1)
    rows = top[:, None] + torch.arange(a, device=images.device)
    columns = left[:, None] + torch.arange(b, device=images.device)
    index = (rows[:, :, None] * w + columns[:, None, :]).view(n, 1, a * b).expand(-1, c, -1)
    return images.flatten(2).scatter(2, index, patches.flatten(2)).view_as(images)


def binary(code: int, *, channels: int = 3, seed: int = 0) -> RoamingPatch:
    """The 3 x 3 pattern whose pixels, row by row, are the bits of `code`, the most significant first; 1 is white."""
    if not 0 <= code < 2 ** (SIDE * SIDE):
        raise ValueError(f"expected a code from 0 to {2 ** (SIDE * SIDE) - 1}, got {code}")
    bits = [float(code >> k & 1) for k in reversed(range(SIDE * SIDE))]
    return RoamingPatch(torch.tensor(bits).view(1, SIDE, SIDE).repeat(channels, 1, 1), seed)


def coloured(*, channels: int = 3, side: int = SIDE, seed: int = 0, generator: Generator) -> RoamingPatch:
    """A square pattern of random colours."""
    return RoamingPatch(torch.rand(channels, side, side, generator=generator, device=generator.device), seed)


def binary_codes() -> list[int]:
    """The 51 codes, the smallest of each class, rising."""
    found = set()
    for bits in product((0, 1), repeat=SIDE * SIDE):
        square = torch.tensor(bits).view(SIDE, SIDE)
        alike = [s.rot90(k) for s in (square, square.T, 1 - square, 1 - square.T) for k in range(4)]
        found.add(min(int("".join(map(str, one.flatten().tolist())), 2) for one in alike))
    return sorted(found)
