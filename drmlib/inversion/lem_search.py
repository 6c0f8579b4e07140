"""The search for local error maximisers: where |Y - Z| between a network and its oracle is larger than all around.

Li, Kesidis, Miller, Bergeron, Ferguson, Lucic (2021), "Robust and Active Learning for Deep Neural Network Regression",
https://arxiv.org/abs/2107.13124, section 2. All seeds climb side by side: a step is one call of the network and one of
the oracle for all that still move. The oracle has no gradient: it is asked for differences.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from drmlib.data.functions import Oracle
from drmlib.models.predict import frozen, predict

STALL_STEPS, STALL_GAIN = 10, 1e-3  # a seed stops when its best energy grew by less than 0.1 % in 10 steps
SMALLEST_STEP = 1e-3
LEVY_INDEX = 1.5


class Climbed(NamedTuple):
    """Where the seeds got to: rows (n, d), their absolute errors (n,), and the largest so far after each step (s, n).

    The first of the history is that of the seeds; it ends when nothing moves any more, after `steps` at the latest.
    """

    rows: Tensor
    error: Tensor
    history: Tensor


class Slope(Protocol):
    """Any callable (oracle, rows (n, d), gradient of the network there (n, d)) -> values Z (n,) and gradient (n, d)."""

    def __call__(
        self, oracle: Oracle, rows: Tensor, network: Tensor, /, *, generator: Generator
    ) -> tuple[Tensor, Tensor]: ...


class CentralDifferences(NamedTuple):
    """dZ/dx_j from Z(x + h e_j) and Z(x - h e_j): 2 d + 1 calls a row, all in one. Beyond an edge it is one-sided.

    With a Monte-Carlo oracle take h from 0.02 to 0.05; its common random numbers make the difference smooth.
    """

    h: float = 1e-3

    def __call__(
        self, oracle: Oracle, rows: Tensor, network: Tensor, /, *, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        n, d = rows.shape
        step = self.h * torch.eye(d, dtype=rows.dtype, device=rows.device)
        ends = [(rows[:, None] + sign * step).clamp(0, 1) for sign in (1, -1)]
        values = oracle(torch.cat([rows, *(end.reshape(-1, d) for end in ends)]))
        up, down = values[n:].view(2, n, d)
        apart = torch.diagonal(ends[0] - ends[1], dim1=1, dim2=2)
        return values[:n], (up - down) / apart


class Spsa(NamedTuple):
    """Simultaneous perturbation (Spall 1992): one random diagonal D of +-1 a row, 3 calls a row whatever d is.

    w + ((g - w) D) D for the network's slope w and what Z does along D, g D: the mean over D is g. Spall's estimate is
    the one with w = 0; this one has no noise where the error has no slope, so that a search can settle there.
    """

    h: float = 1e-3

    def __call__(
        self, oracle: Oracle, rows: Tensor, network: Tensor, /, *, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        sign = torch.randint(2, rows.shape, generator=generator, device=rows.device).to(rows.dtype) * 2 - 1
        ends = [(rows + side * self.h * sign).clamp(0, 1) for side in (1, -1)]
        here, up, down = oracle(torch.cat([rows, *ends])).view(3, len(rows))
        span = ends[0] - ends[1]
        surprise = (up - down - (network * span).sum(1)) / (span * sign).mean(1)
        return here, network + surprise[:, None] * sign


def ascend(
    model: nn.Module,
    rows: Tensor,
    oracle: Oracle,
    *,
    slope: Slope | None = None,
    steps: int = 60,
    step: float = 0.02,
    decay: float = 0.7,
    decay_every: int = 10,
    generator: Generator,
) -> Climbed:
    """Gradient ascent on E = (Y - Z)^2 from each of `rows` (n, d), in [0, 1]; the best point of each way is kept.

    x <- clamp(x + step grad E / |grad E|); `step` is multiplied by `decay` every `decay_every` steps. A row that has
    stalled is asked no more. slope is CentralDifferences() by default.
    """
    slope = slope or CentralDifferences()
    here = rows.double().clone()
    best, best_error = here.clone(), torch.full_like(here[:, 0], -1)
    history: list[Tensor] = []
    moving = torch.arange(len(rows), device=rows.device)
    for k in range(steps + 1):
        network, network_slope = _network(model, here[moving])
        values, oracle_slope = slope(oracle, here[moving], network_slope, generator=generator)
        error = network - values
        better = error.abs() > best_error[moving]
        best[moving[better]], best_error[moving[better]] = here[moving[better]], error.abs()[better]
        history.append(best_error.clone())
        size = step * decay ** (k // decay_every)
        if k >= STALL_STEPS:  # energies are squares: twice the relative gain of the error
            gained = best_error[moving] > history[-1 - STALL_STEPS][moving] * (1 + STALL_GAIN / 2)
            moving, error, network_slope, oracle_slope = (
                one[gained] for one in (moving, error, network_slope, oracle_slope)
            )
        if k == steps or size < SMALLEST_STEP or not len(moving):
            break
        gradient = error[:, None] * (network_slope - oracle_slope)
        here[moving] = (here[moving] + size * nn.functional.normalize(gradient, dim=1)).clamp(0, 1)
    return Climbed(best, best_error, torch.stack(history))


def cuckoo(
    model: nn.Module,
    rows: Tensor,
    oracle: Oracle,
    *,
    flights: int = 10,
    scale: float = 0.02,
    abandon: float = 0.25,
    generator: Generator,
) -> Tensor:
    """Nests (n, d) after cuckoo search from `rows` (Yang, Deb 2009, "Cuckoo search via Levy flights"): breadth first.

    Each flight tries x + scale L with heavy-tailed steps L for every nest; then the worst share `abandon` of
    the nests tries a flight from the middle between two of the others. A nest moves where |Y - Z| is larger. One oracle
    call a try.
    """
    if not 0 <= abandon < 1:
        raise ValueError(f"expected abandon in [0, 1), a share of the nests, got {abandon}; the others are needed")
    nests = rows.double().clone()
    errors = absolute_error(model, nests, oracle)
    worst = int(abandon * len(nests))
    for _ in range(flights):
        tried = (nests + scale * _levy(nests, generator)).clamp(0, 1)
        found = absolute_error(model, tried, oracle)
        better = found > errors
        nests[better], errors[better] = tried[better], found[better]
        if worst:
            order = errors.argsort()
            pair = order[worst:][torch.randint(len(order) - worst, (2, worst), generator=generator, device=rows.device)]
            moved = (nests[pair].mean(0) + scale * _levy(nests[:worst], generator)).clamp(0, 1)
            found, left = absolute_error(model, moved, oracle), order[:worst]
            better = found > errors[left]
            nests[left[better]], errors[left[better]] = moved[better], found[better]
    return nests


def absolute_error(model: nn.Module, rows: Tensor, oracle: Oracle) -> Tensor:
    """|Y - Z| (n,) float64 at `rows`: one oracle call each."""
    return (predict(model, rows.float())[:, 0].double() - oracle(rows)).abs()


def apart(rows: Tensor, error: Tensor, *, radius: float = 0.05) -> Tensor:
    """Indices, by falling error, of rows (n, d) none of which is within `radius` of one with a larger error."""
    order = error.argsort(descending=True, stable=True)
    near = torch.cdist(rows[order], rows[order]) <= radius
    kept = torch.ones(len(order), dtype=torch.bool, device=rows.device)
    for i in range(len(order)):
        if kept[i]:
            kept[i + 1 :] &= ~near[i, i + 1 :]
    return order[kept]


def _network(model: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Y (n,) and its gradient (n, d), both float64."""
    with frozen(model), torch.enable_grad():
        leaf = rows.float().requires_grad_()
        value = model(leaf)[:, 0]
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach().double(), slope.double()


def _levy(like: Tensor, generator: Generator) -> Tensor:
    """Heavy-tailed steps of index 1.5 in the shape of `like`, by Mantegna (1994): u / |v|^(1 / 1.5), u and v normal."""
    u, v = torch.randn(2, *like.shape, dtype=like.dtype, generator=generator, device=like.device)
    sigma = 0.6965745  # (Gamma(1 + b) sin(pi b / 2) / (Gamma((1 + b) / 2) b 2^((b - 1) / 2)))^(1 / b) at b = 1.5
    return sigma * u / v.abs() ** (1 / LEVY_INDEX)
