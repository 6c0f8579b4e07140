"""Drawing on a batch of images at once: soft edges, ellipsoids under one ray a pixel, backdrops, blur.

Coordinates: an image spans [-1, 1] in x (right) and y (up). Masks (n, h, w) are the share of a pixel that is covered,
from the signed distance to an edge (negative inside), which anti-aliases without supersampling.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

CHUNK_PIXELS = 1 << 18  # pixels drawn at a time: about 50 MB of intermediate results


class Surface(NamedTuple):
    """Where the rays meet an ellipsoid: `point` in its parent's coordinates, unit `normal` and depth `z` to the camera.

    point and normal are triples of (n, h, w); distance (n, h, w) to the outline is negative inside.
    """

    point: tuple[Tensor, Tensor, Tensor]
    normal: tuple[Tensor, Tensor, Tensor]
    z: Tensor
    distance: Tensor

    def inside(self, pixel: Tensor) -> Tensor:
        """Share of each pixel that the surface covers; pixel is the side of one in the same unit."""
        return edge(self.distance, pixel)


def chunks(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of n images of size x size that stay within CHUNK_PIXELS."""
    step = max(1, CHUNK_PIXELS // size**2)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def grid(size: int, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """x and y (1, size, size) of the pixel centres; y falls with the row."""
    line = (torch.arange(size, device=device) * 2 + 1) / size - 1
    y, x = torch.meshgrid(-line, line, indexing="ij")
    return x[None], y[None]


def edge(distance: Tensor, pixel: Tensor) -> Tensor:
    """Covered share of a pixel whose centre lies at a signed distance (negative inside) from an edge."""
    return (0.5 - distance / pixel).clamp(0, 1)


def ellipse(x: Tensor, y: Tensor, a: float, b: float) -> Tensor:
    """Signed distance to the ellipse with semi-axes a, b: exact on the axes' scale, close to it near the outline."""
    return ((x / a).square() + (y / b).square()).sqrt().sub(1).mul(min(a, b))


def paint(image: Tensor, colour: Tensor, mask: Tensor) -> Tensor:
    """`image` (n, 3, h, w) with `colour`, broadcastable to it, laid over it where `mask` (n, h, w) covers."""
    return torch.lerp(image, colour.expand_as(image), mask[:, None])


def ellipsoid(
    x: Tensor,
    y: Tensor,
    turn: Tensor,
    centre: tuple[float, float, float],
    axes: tuple[float, float, float],
    *,
    stretch: Tensor | None = None,
) -> Surface:
    """Surface that the rays through (x, y) (n, h, w) along -z meet, for an ellipsoid turned by `turn` (n, 3, 3).

    centre and semi-axes are in the parent's coordinates; stretch (n,) widens the first axis. In the space where the
    ellipsoid is the unit sphere the ray is o + z d, and |o + z d| = 1 gives z.
    """
    widths = torch.tensor(axes, device=x.device).expand(len(turn), 3).clone()
    if stretch is not None:
        widths[:, 0] *= stretch
    a = [widths[:, k, None, None] for k in range(3)]
    r = [[turn[:, i, k, None, None] for k in range(3)] for i in range(3)]
    o = [(r[0][k] * x + r[1][k] * y - centre[k]) / a[k] for k in range(3)]
    d = [r[2][k] / a[k] for k in range(3)]
    dd = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    nearest = -(o[0] * d[0] + o[1] * d[1] + o[2] * d[2]) / dd
    closest = (o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - dd * nearest.square()).clamp_min(0)
    z = nearest + ((1 - closest).clamp_min(0) / dd).sqrt()
    on_sphere = [o[k] + d[k] * z for k in range(3)]
    point = tuple(on_sphere[k] * a[k] + centre[k] for k in range(3))
    slope = [on_sphere[k] / a[k] for k in range(3)]
    length = (slope[0].square() + slope[1].square() + slope[2].square()).sqrt().clamp_min(1e-6)
    normal = tuple((r[i][0] * slope[0] + r[i][1] * slope[1] + r[i][2] * slope[2]) / length for i in range(3))
    return Surface(point, normal, z, (closest.sqrt() - 1) * min(axes))  # type: ignore[arg-type]


def backdrop(colours: Tensor, size: int, *, generator: Generator) -> Tensor:
    """Images (n, 3, size, size) that mix the two `colours` (n, 2, 3) along a smooth random field."""
    coarse = torch.rand(len(colours), 1, 4, 4, generator=generator, device=colours.device)
    field = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True).clamp(0, 1)
    return torch.lerp(colours[:, 0, :, None, None], colours[:, 1, :, None, None], field)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """`images` (n, c, h, w) under a Gaussian of standard deviation `sigma` (n,) pixels, one each; edges replicate."""
    n, c, h, w = images.shape
    radius = max(1, int(3 * sigma.max().ceil()))
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)
    flat = F.pad(images.reshape(1, n * c, h, w), (radius,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=n * c)
    return F.conv2d(flat, kernel[:, None, None, :], groups=n * c).reshape(n, c, h, w)
