"""How many training samples are near a point: the second half of the LEM test (Li et al. 2021, arXiv 2109.02381).

Each statistic is a callable (points (p, d), rows (n, d)) -> (p,), higher where there are more training rows, and has a
`floor` below which a point is not among many, whatever the other points say. The paper's own statistic is not known.
"""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

CHUNK_DISTANCES = 1 << 23  # distances at a time, 32 MB of float32


class Proximity(Protocol):
    """How near the training rows are to each of the points."""

    @property
    def floor(self) -> float: ...

    def __call__(self, points: Tensor, rows: Tensor, /) -> Tensor: ...


class Within(NamedTuple):
    """n_r(x): the number of training rows within `radius` of x."""

    radius: float = 0.1
    floor: float = 10

    def __call__(self, points: Tensor, rows: Tensor) -> Tensor:
        return torch.cat([(d <= self.radius).sum(1) for d in _distances(points, rows)]).float()


class RelativeDensity(NamedTuple):
    """Free of a scale: density k / (n c_d rho_k^d) at x over the density of a uniform sample of [0, 1]^d, which is 1.

    rho_k is the distance to the `neighbours`-th nearest row, c_d the volume of the unit ball: the ball that holds as
    many rows is as small as the data are dense, so there is no radius to choose. Near the edge of the domain, where
    half the ball is empty, it is too low, on the safe side.
    """

    neighbours: int = 20
    floor: float = 5.0

    def __call__(self, points: Tensor, rows: Tensor) -> Tensor:
        if len(rows) < self.neighbours:
            raise ValueError(f"expected at least {self.neighbours} training rows, got {len(rows)}; lower neighbours")
        d = rows.shape[1]
        rho = torch.cat([x.kthvalue(self.neighbours, dim=1).values for x in _distances(points, rows)]).clamp_min(1e-6)
        log_ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
        return (math.log(self.neighbours / len(rows)) - log_ball - d * rho.log()).exp()


def _distances(points: Tensor, rows: Tensor):
    """Distances (part of p, n), as many points at a time as fit; exact, not by the matrix product, which cancels."""
    for part in points.to(rows.dtype).split(max(1, CHUNK_DISTANCES // len(rows))):
        yield torch.cdist(part, rows, compute_mode="donot_use_mm_for_euclid_dist")
