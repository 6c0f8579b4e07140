"""A put on the mean of several assets, by Monte Carlo with the geometric mean as control variate (Kemna, Vorst 1990).

Assets follow Black-Scholes with spot 1, a volatility each and one correlation for all pairs. The arithmetic mean has no
closed form; the geometric mean is lognormal, and what it pays is so much like it that subtracting its error leaves
little noise, but for puts so far out of the money that hardly a path pays. Normals are common to all contracts, as in
option_monte_carlo.py.
"""

from functools import partial

import torch
from torch import Generator, Tensor

from drmlib.data.functions import Answers, Domain, Oracle
from drmlib.data.option_monte_carlo import CHUNK_VALUES, normals, replicated


def basket_put(*, assets: int = 4, paths: int = 1 << 12, generator: Generator) -> Oracle:
    """The oracle of the put's price over the basket's spot; d = assets + 4 inputs.

    Inputs: a volatility an asset, then strike over spot, correlation, expiry in years, rate. The error is one standard
    error. Raises ValueError for fewer than two assets.
    """
    if assets < 2:
        raise ValueError(f"expected at least 2 assets, got {assets}; one asset is option_closed_form.PUT")
    names = (*(f"volatility {k + 1}" for k in range(assets)), "strike", "correlation", "expiry in years", "rate")
    domain = Domain(names, (*[0.05] * assets, 0.5, 0.0, 0.1, 0.0), (*[0.6] * assets, 1.5, 0.9, 3.0, 0.1))
    points = normals(paths, assets + 1, generator=generator)
    return Oracle(partial(basket, points), domain, chunk=max(1, CHUNK_VALUES // points.numel()))


def basket(points: Tensor, inputs: Tensor) -> Answers:
    """Price over spot (n,) of inputs (n, assets + 4) on normals (REPLICATES, m, assets + 1); the last is common."""
    assets = points.shape[-1] - 1
    volatility = inputs[:, :assets]
    strike, correlation, expiry, rate = (column[:, None, None] for column in inputs[:, assets:].unbind(1))
    common = correlation.sqrt() * points[..., assets]
    logs = total = torch.zeros_like(common)
    for k in range(assets):
        sigma = volatility[:, k, None, None]
        own = common + (1 - correlation).sqrt() * points[..., k]
        log = (rate - sigma**2 / 2) * expiry + sigma * expiry.sqrt() * own
        logs, total = logs + log, total + log.exp()
    discount = (-rate * expiry).exp()
    arithmetic, geometric = (
        discount * (strike - mean).clamp_min(0) for mean in (total / assets, (logs / assets).exp())
    )
    exact = _geometric(volatility, *(one[:, 0, 0] for one in (strike, correlation, expiry, rate)))
    value, error = replicated(arithmetic - (geometric - exact[:, None, None]))
    return Answers(value.clamp_min(0), error)


def _geometric(volatility: Tensor, strike: Tensor, correlation: Tensor, expiry: Tensor, rate: Tensor) -> Tensor:
    """Price (n,) of the put on the geometric mean, which is lognormal."""
    squares, assets = volatility.square().sum(1), volatility.shape[1]
    variance = ((1 - correlation) * squares + correlation * volatility.sum(1) ** 2) / assets**2 * expiry
    mean = (rate - squares / (2 * assets)) * expiry
    deviation = variance.sqrt()
    d2 = (mean - strike.log()) / deviation
    forward = (mean + variance / 2).exp()
    phi = torch.special.ndtr
    return (-rate * expiry).exp() * (strike * phi(-d2) - forward * phi(-d2 - deviation))
