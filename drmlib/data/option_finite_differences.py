"""Barrier options by finite differences: Crank-Nicolson with a Rannacher start (Rannacher 1984), all contracts at once.

In x = ln S the Black-Scholes equation has constant coefficients, u_t = sigma^2/2 u_xx + (r - sigma^2/2) u_x - r u in
time to expiry, so each contract has one tridiagonal Toeplitz matrix, factored once. The barrier is a node with u = 0;
elsewhere the grid ends 8 standard deviations away, where u is the discounted forward's intrinsic value. The payoff is
averaged over each cell, which keeps second order at the strike. The first two steps are four implicit half steps: they
damp what a payoff that jumps at the barrier excites. The price is extrapolated from two grids (Richardson 1911); a
third of their difference is the error estimate.
"""

from functools import partial

import torch
from torch import Tensor

from drmlib.data.functions import Answers, Domain, Oracle
from drmlib.data.option_closed_form import MODERATE, SPOT, Contract, Payoff

WIDTH = 8.0  # standard deviations of ln S from the spot to the end of the grid
DAMPED = 2  # time steps that are taken as two implicit half steps


def finite_differences(payoff: Payoff, *, domain: Domain = MODERATE, nodes: int = 200, steps: int = 64) -> Oracle:
    """The oracle of `payoff`'s price over the spot on `nodes` cells and `steps` time steps, both even."""
    if nodes % 2 or steps % 2 or nodes < 16 or steps < 2 * (DAMPED + 1):
        raise ValueError(f"expected even nodes >= 16 and steps >= {2 * (DAMPED + 1)}, got {nodes} and {steps}")
    return Oracle(partial(extrapolated, payoff, nodes=nodes, steps=steps), domain, chunk=4096)


def extrapolated(payoff: Payoff, inputs: Tensor, *, nodes: int, steps: int) -> Answers:
    """Price over spot (n,) of inputs (n, 5), columns as in Contract, from the grid and the one twice as coarse."""
    c = Contract(*inputs.unbind(1))
    fine, coarse = (crank_nicolson(payoff, c, nodes=nodes // k, steps=steps // k) for k in (1, 2))
    third = (fine - coarse) / 3
    return Answers((fine + third).clamp_min(0) / SPOT, third.abs() / SPOT)


def crank_nicolson(payoff: Payoff, c: Contract, *, nodes: int, steps: int) -> Tensor:
    """Prices (n,) in the spot's unit on one grid; 0 where the spot is beyond the barrier."""
    out = payoff.barrier * (SPOT - c.barrier) >= 0 if payoff.barrier else torch.zeros_like(c.strike, dtype=torch.bool)
    c = c._replace(barrier=torch.where(out, SPOT * (1 + payoff.barrier / 2), c.barrier))  # any grid: it is not used
    x, left, right = _grid(payoff, c, nodes)
    u = _cell_means(payoff, c, x)
    u[0], u[-1] = (
        _boundary(payoff, c, x[end], known, torch.zeros_like(c.rate)) for end, known in ((0, left), (-1, right))
    )
    half = c.expiry / steps / 2
    h, drift = x[1] - x[0], c.rate - c.volatility**2 / 2
    diffusion, convection = c.volatility**2 / 2 / h**2, drift / (2 * h)
    below, centre, above = (
        half * (diffusion - convection),
        -half * (2 * diffusion + c.rate),
        half * (diffusion + convection),
    )
    pivots = _pivots(-below, 1 - centre, -above, nodes - 1)
    time = torch.zeros_like(half)
    for k in range(steps + DAMPED):
        if k < 2 * DAMPED:
            time, known = time + half, u[1:-1].clone()
        else:
            time, known = time + 2 * half, u[1:-1] + below * u[:-2] + centre * u[1:-1] + above * u[2:]
        u[0], u[-1] = (_boundary(payoff, c, x[end], side, time) for end, side in ((0, left), (-1, right)))
        known[0] += below * u[0]
        known[-1] += above * u[-1]
        _solve(pivots, -below, -above, known)
        u[1:-1] = known
    return torch.where(out, 0, _at_spot(x, u))


def _grid(payoff: Payoff, c: Contract, nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes x (nodes + 1, n), and for either end whether (n,) it is the barrier."""
    spread = WIDTH * c.volatility * c.expiry.sqrt() + (c.rate - c.volatility**2 / 2).abs() * c.expiry
    spot, barrier = torch.full_like(spread, SPOT).log(), c.barrier.log()
    low, high = spot - spread, spot + spread
    left = barrier > low if payoff.barrier < 0 else torch.zeros_like(low, dtype=torch.bool)
    right = barrier < high if payoff.barrier > 0 else torch.zeros_like(low, dtype=torch.bool)
    low, high = torch.where(left, barrier, low), torch.where(right, barrier, high)
    share = torch.linspace(0, 1, nodes + 1, dtype=low.dtype, device=low.device)[:, None]
    return low + share * (high - low), left, right


def _boundary(payoff: Payoff, c: Contract, x: Tensor, is_barrier: Tensor, time: Tensor) -> Tensor:
    """u (n,) at an end of the grid, `time` before expiry."""
    intrinsic = payoff.sign * (x.exp() - c.strike * (-c.rate * time).exp())
    return torch.where(is_barrier, 0, intrinsic.clamp_min(0))


def _cell_means(payoff: Payoff, c: Contract, x: Tensor) -> Tensor:
    """Mean of sign (e^x - K)+ over the cell around each node, (nodes + 1, n)."""
    half = (x[1] - x[0]) / 2
    a, b = x - half, x + half
    strike = torch.minimum(torch.maximum(c.strike.log(), a), b)
    a, b = (strike, b) if payoff.sign > 0 else (a, strike)
    return payoff.sign * (b.exp() - a.exp() - c.strike * (b - a)) / (2 * half)


def _pivots(below: Tensor, centre: Tensor, above: Tensor, n: int) -> list[Tensor]:
    """Pivots of the elimination of the Toeplitz matrix (below, centre, above)."""
    pivots = [centre]
    for _ in range(n - 1):
        pivots.append(centre - below * above / pivots[-1])
    return pivots


def _solve(pivots: list[Tensor], below: Tensor, above: Tensor, known: Tensor) -> None:
    """Overwrites `known` (nodes - 1, n) with the solution, one elimination down and one substitution up."""
    factors = [below / pivot for pivot in pivots]
    rows = known.unbind(0)
    for i in range(1, len(rows)):
        rows[i].addcmul_(factors[i - 1], rows[i - 1], value=-1)
    rows[-1].div_(pivots[-1])
    for i in range(len(rows) - 2, -1, -1):
        rows[i].addcmul_(above, rows[i + 1], value=-1).div_(pivots[i])


def _at_spot(x: Tensor, u: Tensor) -> Tensor:
    """u (n,) at the spot by the cubic through the four nodes around it."""
    place = (torch.full_like(x[0], SPOT).log() - x[0]) / (x[1] - x[0])
    first = (place.floor().long() - 1).clamp(0, len(x) - 4)
    t = place - first
    value = torch.zeros_like(t)
    for k in range(4):
        weight = torch.ones_like(t)
        for j in range(4):
            if j != k:
                weight = weight * (t - j) / (k - j)
        value = value + weight * u.gather(0, (first + k)[None])[0]
    return value
