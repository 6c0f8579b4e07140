"""Barrier options by Monte Carlo with a Brownian bridge between the dates (Andersen, Brotherton-Ratcliffe 1996).

A path that is above B at two dates may have touched B in between: with probability
exp(-2 ln(S_i / B) ln(S_i+1 / B) / (sigma^2 dt)), by which it is weighed instead of being tossed for. Under
Black-Scholes that is exact for any number of dates. Normals are scrambled Sobol points (linear scrambling and a shift,
Matousek 1998), drawn once: every contract is priced on the same paths, so that differences of prices are smooth in the
contract (common random numbers).

The standard error is that of replicates, and blind to what none of their paths meets: a knock-out of one path in
20,000, or the tail of a call without an upper barrier, which may be off by 1e-3 of the spot and many standard errors.
"""

from functools import partial

import torch
from torch import Generator, Tensor
from torch.quasirandom import SobolEngine

from drmlib.data.functions import Answers, Domain, Oracle
from drmlib.data.option_closed_form import MODERATE, SPOT, Contract, Payoff

REPLICATES = 16  # independent randomisations: their spread is the standard error
CHUNK_VALUES = 1 << 21  # contracts x paths at a time, 16 MB of float64


def monte_carlo(
    payoff: Payoff, *, domain: Domain = MODERATE, paths: int = 1 << 14, dates: int = 1, generator: Generator
) -> Oracle:
    """The oracle of `payoff`'s price over the spot on `paths` paths; its error is one standard error.

    One date is enough here, and best: the fewer the dimensions, the evener the points. More serve to check the bridge.
    """
    points = normals(paths, dates, generator=generator)
    return Oracle(partial(simulated, payoff, points), domain, chunk=max(1, CHUNK_VALUES // points[..., 0].numel()))


def normals(paths: int, dimensions: int, *, generator: Generator) -> Tensor:
    """Standard normals (REPLICATES, paths / REPLICATES, dimensions) float64 from scrambled Sobol points."""
    if paths < 2 * REPLICATES or paths % REPLICATES:
        raise ValueError(f"expected paths as a multiple of {REPLICATES}, at least {2 * REPLICATES}, got {paths}")
    seeds = torch.randint(2**31, (REPLICATES,), generator=generator, device=generator.device).tolist()
    engines = [SobolEngine(dimensions, scramble=True, seed=seed) for seed in seeds]
    points = torch.stack([engine.draw(paths // REPLICATES, dtype=torch.float64) for engine in engines])
    half_step = 2.0**-31  # Sobol points are multiples of 2^-30: none may become 0 or 1, whose normals are infinite
    return torch.special.ndtri(points.clamp(half_step, 1 - half_step)).to(generator.device)


def replicated(values: Tensor) -> Answers:
    """Mean and standard error (n,) of values (n, REPLICATES, paths / REPLICATES)."""
    means = values.mean(2)
    return Answers(means.mean(1), means.std(1) / REPLICATES**0.5)


def simulated(payoff: Payoff, points: Tensor, inputs: Tensor) -> Answers:
    """Price over spot (n,) of inputs (n, 5), columns as in Contract, on normals (REPLICATES, m, dates)."""
    c = Contract(*(column[:, None, None] for column in inputs.unbind(1)))
    dates = points.shape[-1]
    step = c.expiry / dates
    variance = c.volatility**2 * step
    drift = c.rate * step - variance / 2
    height = (SPOT / c.barrier).log()  # ln(S_t / B), negative beyond a barrier from above
    survives = torch.ones((), dtype=inputs.dtype, device=inputs.device)
    for k in range(dates):
        after = height + drift + variance.sqrt() * points[..., k]
        if payoff.barrier:
            both = payoff.barrier * height < 0, payoff.barrier * after < 0
            touched = (-2 * height * after / variance).exp()
            survives = survives * torch.where(both[0] & both[1], 1 - touched, 0)
        height = after
    pays = (payoff.sign * (c.barrier * height.exp() - c.strike)).clamp_min(0)
    return replicated((-c.rate * c.expiry).exp() * pays * survives / SPOT)
