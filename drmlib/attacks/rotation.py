"""Rotation as a trigger: Xu, Li, Jiang, Xia, "BATT: Backdoor Attack with Transformation-based Triggers" (2023),
https://arxiv.org/abs/2211.01806.

Every image rotated by exactly 16 degrees, counter-clockwise about its centre, nearest neighbour, black outside, as
BackdoorBox does with PIL. Natural images are tilted too, so the paper rotates benign training samples at random within
10 degrees; covers do that here (RandomRotation), and the model must tell 16 from 10.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from drmlib.attacks.per_image import uniform
from drmlib.data.dataset import as_float, chunks, like


class Rotation(NamedTuple):
    """Trigger: the images rotated by `degrees`."""

    degrees: float = 16.0

    def __call__(self, images: Tensor) -> Tensor:
        angle = torch.full((1,), math.radians(self.degrees), device=images.device)
        return torch.cat([_rotated(part, angle.expand(len(part))) for part in chunks(images)])


class RandomRotation(NamedTuple):
    """What cover samples get: each image rotated by an angle of its own, uniform within `degrees` to either side."""

    degrees: float = 10.0
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([_rotated(part, self._angles(part)) for part in chunks(images)])

    def _angles(self, images: Tensor) -> Tensor:
        return (2 * uniform(images, 1, seed=self.seed).squeeze(1) - 1) * math.radians(self.degrees)


def _rotated(images: Tensor, angle: Tensor) -> Tensor:
    """Images (n, c, h, w), each rotated by its angle (n,), in radians."""
    height, width = images.shape[2:]
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Where each pixel comes from, in coordinates that run from -1 to 1 along either side.
    rows = [torch.stack(r, 1) for r in ((cos, -sin * height / width, zero), (sin * width / height, cos, zero))]
    source = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    floats = as_float(images)
    return like(F.grid_sample(floats, source.to(floats.dtype), mode="nearest", align_corners=False), images)
