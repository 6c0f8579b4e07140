"""Vanilla and single-barrier options under Black-Scholes in closed form (Merton 1973; Reiner, Rubinstein 1991).

A knock-out option pays sign (S_T - K)+ unless the spot S_t, watched all the time, has reached the barrier B. Without
dividends or rebate, with V(S) the value of the payoff on the survivors' side of B at expiry, reflection gives

    Z = V(S) - (S / B)^(1 - 2 r / sigma^2) V(B^2 / S),       Z = 0 where S is already beyond B.

V is a difference of normal probabilities; they are taken in the tail where they are small and multiplied by the power
in logarithms, so that sigma = 0.01 neither overflows nor cancels.
"""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from drmlib.data.functions import Answers, Domain, Oracle

SPOT = 100.0
EPSILON = torch.finfo(torch.float64).eps


class Payoff(NamedTuple):
    """sign: 1 a call, -1 a put; barrier: -1 knocked out from above (down-and-out), 1 from below, 0 none."""

    name: str
    sign: int
    barrier: int


class Contract(NamedTuple):
    """Inputs by name, each (n,) float64: strike and barrier in the spot's unit, volatility, years, rate a year."""

    strike: Tensor
    barrier: Tensor
    volatility: Tensor
    expiry: Tensor
    rate: Tensor


DOWN_AND_OUT_PUT = Payoff("down-and-out put", -1, -1)
UP_AND_OUT_CALL = Payoff("up-and-out call", 1, 1)
PUT = Payoff("put", -1, 0)
CALL = Payoff("call", 1, 0)

_NAMES = ("strike", "barrier", "volatility", "expiry in years", "rate")
MODERATE = Domain(_NAMES, (50, 10, 0.05, 0.1, 0.0), (200, 100, 0.6, 3.0, 0.1))
WIDE = Domain(_NAMES, (50, 10, 0.01, 0.01, 0.0), (200, 100, 1.0, 5.0, 0.1))
ABOVE = Domain(_NAMES, (50, 100, 0.05, 0.1, 0.0), (150, 300, 0.6, 3.0, 0.1))  # for a barrier above the spot


def closed_form(payoff: Payoff, *, domain: Domain = MODERATE) -> Oracle:
    """The oracle of `payoff`'s price over the spot, exact to rounding; a vanilla one disregards the barrier."""
    return Oracle(partial(black_scholes, payoff), domain)


def black_scholes(payoff: Payoff, inputs: Tensor) -> Answers:
    """Price over spot (n,) of inputs (n, 5), columns as in Contract; the error is that of rounding."""
    c = Contract(*inputs.unbind(1))
    spot = torch.full_like(c.strike, SPOT)
    value, size = _european(payoff, c, spot, torch.zeros_like(spot))
    if payoff.barrier:
        power = (1 - 2 * c.rate / c.volatility**2) * (spot / c.barrier).log()
        image, image_size = _european(payoff, c, c.barrier**2 / spot, power)
        out = payoff.barrier * (spot - c.barrier) >= 0
        value, size = (torch.where(out, 0, one) for one in (value - image, size + image_size))
    return Answers((value / SPOT).clamp_min(0), 16 * EPSILON * size / SPOT)


def _european(payoff: Payoff, c: Contract, spot: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """exp(log_scale) E[e^(-rT) sign (S_T - K), S_T where it pays and survives], and the size of what was subtracted."""
    low, high = alive(payoff, c)
    low = torch.minimum(low, high)  # where nothing pays the interval is empty
    deviation = c.volatility * c.expiry.sqrt()
    terms = []
    for numeraire, money in ((0.5, spot.log()), (-0.5, c.strike.log() - c.rate * c.expiry)):
        drift = (c.rate + numeraire * c.volatility**2) * c.expiry
        d_low, d_high = (((spot / end).log() + drift) / deviation for end in (low, high))
        terms.append(_between(log_scale + money, d_high, d_low))
    stock, cash = terms
    return payoff.sign * (stock - cash), stock + cash


def alive(payoff: Payoff, c: Contract) -> tuple[Tensor, Tensor]:
    """Ends (n,) of the interval of S_T in which the option pays and is not knocked out; infinity and 0 are open."""
    zero, infinite = torch.zeros_like(c.strike), torch.full_like(c.strike, math.inf)
    low, high = (c.strike, infinite) if payoff.sign > 0 else (zero, c.strike)
    if payoff.barrier < 0:
        low = torch.maximum(low, c.barrier)
    elif payoff.barrier > 0:
        high = torch.minimum(high, c.barrier)
    return low, high


def _between(log_scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """exp(log_scale) (Phi(high) - Phi(low)), from the tail in which both are small."""
    upper = low + high > 0
    a, b = torch.where(upper, -high, low), torch.where(upper, -low, high)
    a, b = (log_scale + torch.special.log_ndtr(end) for end in (a, b))
    return b.exp() - a.exp()
