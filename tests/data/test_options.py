"""The three oracles of one barrier option, against worked values, exact relations of prices, and each other."""

import math

import pytest
import torch
from torch.quasirandom import SobolEngine

from drmlib.data import option_finite_differences
from drmlib.data.functions import Domain
from drmlib.data.option_closed_form import (
    ABOVE,
    CALL,
    DOWN_AND_OUT_PUT,
    MODERATE,
    PUT,
    UP_AND_OUT_CALL,
    WIDE,
    Contract,
    Payoff,
    black_scholes,
    closed_form,
)
from drmlib.data.option_finite_differences import crank_nicolson, extrapolated, finite_differences
from drmlib.data.option_monte_carlo import REPLICATES, monte_carlo, normals, replicated, simulated
from drmlib.rng import stream

DOWN_AND_OUT_CALL, UP_AND_OUT_PUT = Payoff("down-and-out call", 1, -1), Payoff("up-and-out put", -1, 1)
KNOCK_OUTS = [DOWN_AND_OUT_PUT, DOWN_AND_OUT_CALL, UP_AND_OUT_PUT, UP_AND_OUT_CALL]
PAYOFFS = [PUT, CALL, *KNOCK_OUTS]
ROUNDING = 1e-12  # closed forms differ by some 1e-15

each_payoff = pytest.mark.parametrize("payoff", PAYOFFS, ids=lambda payoff: payoff.name)
each_knock_out = pytest.mark.parametrize("payoff", KNOCK_OUTS, ids=lambda payoff: payoff.name)


def domain(payoff):
    return ABOVE if payoff.barrier > 0 else MODERATE


def vanilla(payoff):
    return payoff._replace(barrier=0)


def rows(n, *names):
    return torch.rand(n, 5, dtype=torch.float64, generator=stream(0, "contracts", *names))


def contracts(payoff, n, **columns):
    """Inputs (n, 5), drawn uniformly from the domain, with `columns` instead where they are given."""
    found = Contract(*domain(payoff).inputs(rows(n)).unbind(1))._asdict()
    return torch.stack([torch.as_tensor(columns.get(name, found[name])).expand(n).double() for name in found], 1)


def exact(payoff, inputs):
    return black_scholes(payoff, inputs).value


def apart(a, b):
    return (a - b).abs()


def root_mean_square(x):
    return x.square().mean().sqrt().item()


@pytest.mark.parametrize(
    ("oracle", "tolerance"),
    [
        (closed_form(DOWN_AND_OUT_PUT), 5e-7),
        (monte_carlo(DOWN_AND_OUT_PUT, generator=stream(0)), 3e-4),
        (finite_differences(DOWN_AND_OUT_PUT), 2e-5),
    ],
    ids=["closed form", "monte carlo", "finite differences"],
)
def test_the_price_of_a_known_contract(oracle, tolerance):
    """S = K = 1, B = 0.7, sigma = 0.25, T = 1, r = 0.03: 0.039846 to the six digits known; here S = 100."""
    answer = oracle.answer(oracle.domain.rows(torch.tensor([[100.0, 70, 0.25, 1, 0.03]])))
    assert answer.value.item() == pytest.approx(0.039846, abs=tolerance) and 0 < answer.error.item() < tolerance


def test_a_put_by_hand():
    """K = S, r = 0, sigma sqrt(T) = 0.4: price Phi(0.2) - Phi(-0.2) = 2 x 0.5792597 - 1 = 0.1585194, put or call."""
    inputs = torch.tensor([[100, 50, 0.2, 4.0, 0.0], [100, 50, 0.4, 1.0, 0.0]], dtype=torch.float64)
    assert exact(PUT, inputs).tolist() == exact(CALL, inputs).tolist() == [pytest.approx(0.1585194, abs=1e-7)] * 2


def test_calls_and_puts_keep_parity():
    """C - P = 1 - K exp(-r T) / S."""
    inputs = WIDE.inputs(rows(500))
    strike, _, _, expiry, rate = inputs.unbind(1)
    difference = exact(CALL, inputs) - exact(PUT, inputs)
    torch.testing.assert_close(difference, 1 - strike / 100 * (-rate * expiry).exp(), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("barrier", [60.0, 99.0])
def test_a_down_and_out_call_struck_at_its_barrier_is_a_forward(sigma, barrier):
    """r = 0, K = B: buy the stock and borrow B. Where S reaches B both are worth nothing, so the price is 1 - B / S."""
    inputs = torch.tensor([[barrier, barrier, sigma, 2.0, 0.0]], dtype=torch.float64)
    assert exact(DOWN_AND_OUT_CALL, inputs).item() == pytest.approx(1 - barrier / 100, abs=ROUNDING)


@pytest.mark.parametrize(("payoff", "opposite"), [(DOWN_AND_OUT_CALL, PUT), (UP_AND_OUT_PUT, CALL)])
def test_a_knock_out_is_hedged_by_two_vanilla_options(payoff, opposite):
    """r = 0 and K on the survivors' side of B: Z = V(K) - (K / B) W(B^2 / K) with W the opposite option.

    At S = B both legs are equal, V(B; K) = (K / B) W(B; B^2 / K); W pays nothing where Z survives (Carr, Bowie 1994).
    """
    inputs = contracts(payoff, 300, rate=0.0)
    strike, barrier = inputs[:, 0], inputs[:, 1]
    inputs = inputs[payoff.barrier * (strike - barrier) <= 0]
    strike, barrier = inputs[:, :1], inputs[:, 1:2]
    image = torch.cat([barrier**2 / strike, inputs[:, 1:]], 1)
    hedge = exact(vanilla(payoff), inputs) - (strike / barrier)[:, 0] * exact(opposite, image)
    assert len(inputs) > 100
    torch.testing.assert_close(exact(payoff, inputs), hedge, rtol=0, atol=ROUNDING)


@each_knock_out
def test_a_barrier_that_is_never_reached_leaves_the_vanilla_option(payoff):
    """ln(S / B) of 11.5 either way is more than 10 deviations sigma sqrt(T), which are at most 1.04."""
    far = contracts(payoff, 200, barrier=100 * math.exp(11.5 * payoff.barrier))
    torch.testing.assert_close(exact(payoff, far), exact(vanilla(payoff), far), rtol=0, atol=ROUNDING)


@each_knock_out
def test_a_knock_out_costs_less_than_the_vanilla_option_and_more_with_its_barrier_further_away(payoff):
    near, far = contracts(payoff, 300), contracts(payoff, 300)
    near[:, 1] = 100 + 0.7 * (far[:, 1] - 100)
    one, two, most = exact(payoff, near), exact(payoff, far), exact(vanilla(payoff), far)
    assert (one <= two + ROUNDING).all() and (two <= most + ROUNDING).all()
    assert (two - one).amax() > 0.01 and (most - two).amax() > 0.01, "the barrier matters to some"


@pytest.mark.parametrize("method", ["closed form", "monte carlo", "finite differences"])
@each_knock_out
def test_nothing_is_paid_where_spot_or_strike_is_on_the_wrong_side_of_the_barrier(payoff, method):
    """Z = 0 with the spot at the barrier or beyond it; a down-and-out put also with K <= B, a call with B <= K."""
    side = payoff.barrier
    columns = [{"barrier": 100 - 20 * side}, {"barrier": 100}]
    if payoff.sign == side:
        columns += [{"barrier": 100 + 10 * side, "strike": 100 + k * side} for k in (10, 20)]
    inputs = torch.cat([contracts(payoff, 20, **one) for one in columns])
    evaluate = {
        "closed form": lambda: black_scholes(payoff, inputs),
        "monte carlo": lambda: simulated(payoff, normals(256, 2, generator=stream(0)), inputs),
        "finite differences": lambda: extrapolated(payoff, inputs, nodes=64, steps=16),
    }[method]
    value, error = evaluate()
    assert (value == 0).all() and (error >= 0).all()


@each_payoff
def test_the_closed_form_holds_where_the_volatility_is_least(payoff):
    """sigma = 0.01 in the wide domain: the power of S / B is up to 1999, its logarithm up to 4603; finite all the same,
    not below 0 and not above the vanilla price."""
    wide = WIDE if payoff.barrier <= 0 else Domain(WIDE.names, (50, 100, *WIDE.low[2:]), (200, 300, *WIDE.high[2:]))
    x = rows(1000)
    x[:, 2] = 0
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 5)
    inputs = wide.inputs(torch.cat([x, corners]))
    value, error = black_scholes(payoff, inputs)
    assert value.isfinite().all() and error.isfinite().all() and error.amax() < 1e-13
    assert (value >= 0).all() and (value <= exact(vanilla(payoff), inputs) + ROUNDING).all()
    assert value.amax() > 0.1, "not all are worthless"


def test_the_wide_domain_is_the_vanilla_option_where_volatility_cannot_reach_the_barrier():
    """sigma = 0.01, S = 100, B = 70: ln(S / B) = 0.357 is 36 deviations at T = 1, so the barrier does not matter."""
    inputs = torch.tensor([[105.0, 70, 0.01, 1, 0.03]], dtype=torch.float64)
    assert exact(DOWN_AND_OUT_PUT, inputs).item() == pytest.approx(exact(PUT, inputs).item(), abs=ROUNDING)
    assert exact(PUT, inputs).item() == pytest.approx(1.05 * math.exp(-0.03) - 1, abs=1e-3)


@each_payoff
def test_finite_differences_agree_with_the_closed_form(payoff):
    """200 contracts: within three of its error estimates and 1e-5, in which the fourth order shows."""
    x = rows(200, payoff.name)
    answer = finite_differences(payoff, domain=domain(payoff)).answer(x)
    difference = apart(answer.value, closed_form(payoff, domain=domain(payoff))(x))
    assert (difference <= 3 * answer.error + 1e-5).all()
    assert difference.amax() < 1e-4 and answer.error.amax() < 1e-3


@each_payoff
def test_monte_carlo_agrees_with_the_closed_form_within_its_standard_errors(payoff):
    """The mean of four oracles with half their root mean square error. Of 200 contracts ten may be further than four
    errors and 1e-5 away: all share their paths and go wrong together, and what happens on hardly any path, such as the
    knock-out at a low barrier or a call's largest payment, is missed by the price and by its error."""
    x = rows(200, payoff.name)
    oracles = [monte_carlo(payoff, domain=domain(payoff), paths=1 << 12, generator=stream(k)) for k in range(4)]
    values, errors = (torch.stack(column) for column in zip(*(oracle.answer(x) for oracle in oracles), strict=True))
    difference = apart(values.mean(0), closed_form(payoff, domain=domain(payoff))(x))
    assert (difference > 4 * errors.square().mean(0).sqrt() / 2 + 1e-5).sum() <= 10


def test_a_standard_error_by_hand():
    """Replicates of two paths with means 1 to 16: mean 8.5, variance 16 x 17 / 12 = 22.667, error sqrt(22.667 / 16)."""
    means = torch.arange(1, REPLICATES + 1, dtype=torch.float64)[None, :, None]
    value, error = replicated(torch.cat([means - 3, means + 3], 2))
    assert (value.item(), error.item()) == (8.5, pytest.approx(math.sqrt(17 / 12)))


@pytest.mark.parametrize("payoff", [DOWN_AND_OUT_PUT, UP_AND_OUT_CALL, UP_AND_OUT_PUT, PUT], ids=lambda p: p.name)
def test_monte_carlo_is_within_three_ten_thousandths_of_the_spot(payoff):
    """For 98 in 100. What is paid has a bound here; a call has none, and its tail costs 1e-3 and more at times."""
    x = rows(200)
    oracle = monte_carlo(payoff, domain=domain(payoff), generator=stream(0))
    assert apart(oracle(x), closed_form(payoff, domain=domain(payoff))(x)).quantile(0.98) < 3e-4


@each_knock_out
def test_the_bridge_is_exact_whatever_the_number_of_dates(payoff):
    """1 and 4 dates give one price, but for ten of 100 that a rare path decides; watched at the dates only, most of
    these would cost more by many errors."""
    inputs = contracts(payoff, 100)
    one, four = (simulated(payoff, normals(1 << 12, k, generator=stream(k)), inputs) for k in (1, 4))
    error = (one.error**2 + four.error**2).sqrt()
    assert (apart(one.value, four.value) > 4 * error + 1e-5).sum() <= 10


@each_payoff
def test_prices_of_neighbours_differ_as_smoothly_as_they_should(payoff):
    """Common paths: a step of 1e-4 in each input changes the price as in closed form to 5 % of a standard error, where
    independent paths would differ by 1.4 of them."""
    here = rows(50) * 0.99
    walk = monte_carlo(payoff, domain=domain(payoff), paths=1 << 10, generator=stream(0))
    truth = closed_form(payoff, domain=domain(payoff))
    base, error = walk.answer(here)
    for step in 1e-4 * torch.eye(5, dtype=torch.float64):
        noise = (walk(here + step) - base) - (truth(here + step) - truth(here))
        assert root_mean_square(noise) < 0.05 * root_mean_square(error)


def test_the_paths_follow_their_generator():
    x = rows(20)
    one, again, other = (monte_carlo(DOWN_AND_OUT_PUT, paths=256, generator=stream(seed)) for seed in (0, 0, 1))
    assert torch.equal(one(x), again(x)) and torch.equal(one(x), one(x)) and not torch.equal(one(x), other(x))


@each_payoff
def test_finite_differences_are_of_second_order_and_better_extrapolated(payoff):
    """Twice the nodes and steps leave a quarter of one grid's error, and of the estimate, a third of the difference of
    two grids; extrapolation cancels that order, and the error falls further, to 1/16 where all is smooth."""
    inputs = contracts(payoff, 60)
    truth, c = exact(payoff, inputs), Contract(*inputs.unbind(1))
    sizes = ((48, 16), (96, 32))
    one, two = (extrapolated(payoff, inputs, nodes=nodes, steps=steps) for nodes, steps in sizes)
    coarse, fine = (crank_nicolson(payoff, c, nodes=nodes, steps=steps) / 100 - truth for nodes, steps in sizes)
    assert 3 < root_mean_square(coarse) / root_mean_square(fine) < 5
    assert 3 < root_mean_square(one.error) / root_mean_square(two.error) < 5
    assert root_mean_square(one.value - truth) / root_mean_square(two.value - truth) > 4


@each_knock_out
def test_a_payoff_that_jumps_at_the_barrier_is_damped(payoff):
    """16 steps on 200 nodes: sigma^2 dt / h^2 is 10 and more, and undamped a jump's oscillations cost 0.01 and more."""
    inputs = contracts(payoff, 60)
    value = extrapolated(payoff, inputs, nodes=200, steps=16).value
    assert apart(value, exact(payoff, inputs)).amax() < 1e-4


@pytest.mark.parametrize(("payoff", "strike"), [(CALL, 50.0), (PUT, 200.0)], ids=["call", "put"])
def test_the_ends_of_the_grid_follow_the_discounted_forward(payoff, strike, monkeypatch):
    """Far in the money u = sign (S - K exp(-r t)) is the solution on any grid, be it one deviation wide."""
    monkeypatch.setattr(option_finite_differences, "WIDTH", 1.0)
    value = extrapolated(payoff, torch.tensor([[strike, 100, 0.05, 1, 0.1]]).double(), nodes=64, steps=32).value
    assert value.item() == pytest.approx(payoff.sign * (1 - strike / 100 * math.exp(-0.1)), abs=1e-6)


@pytest.mark.parametrize(("nodes", "steps"), [(201, 64), (200, 63), (14, 64), (200, 4)])
def test_a_grid_that_cannot_be_halved_is_refused(nodes, steps):
    with pytest.raises(ValueError, match=f"expected even nodes >= 16 and steps >= 6, got {nodes} and {steps}"):
        finite_differences(PUT, nodes=nodes, steps=steps)


def test_normals_have_mean_zero_variance_one_and_no_correlation():
    """1024 even points a replicate: their mean is off by far less than the 1 / sqrt(1024) = 0.03 of plain draws."""
    z = normals(REPLICATES * 1024, 3, generator=stream(0))
    assert z.shape == (REPLICATES, 1024, 3) and z.dtype == torch.float64 and z.isfinite().all()
    assert z.mean(1).abs().amax() < 0.01 and (z.var(1) - 1).abs().amax() < 0.05
    covariance = torch.einsum("rmi,rmj->rij", z, z) / 1024
    assert (covariance - torch.eye(3, dtype=torch.float64)).abs().amax() < 0.1


def test_each_replicate_has_one_normal_in_each_cell_of_equal_probability():
    """A scrambled net of 2^k points has one in every interval [j, j + 1) / 2^k of every dimension; no two are equal."""
    z = normals(REPLICATES * 64, 4, generator=stream(1))
    cells = (torch.special.ndtr(z) * 64).floor().sort(1).values
    assert torch.equal(cells, torch.arange(64, dtype=torch.float64)[None, :, None].expand_as(cells))
    assert len({tuple(one.flatten().tolist()) for one in z}) == REPLICATES


def test_normals_are_finite_where_a_point_is_on_the_edge(monkeypatch):
    """Points 0 and 1 become 2^-31 and 1 - 2^-31, whose normals are -6.12 and 6.12."""
    edges = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    monkeypatch.setattr(SobolEngine, "draw", lambda self, n, dtype: edges.expand(n, 1).to(dtype))
    low, high = normals(2 * REPLICATES, 1, generator=stream(0))[0, :, 0].tolist()
    assert (low, high) == (pytest.approx(-6.12, abs=0.01), pytest.approx(6.12, abs=0.01))


@pytest.mark.parametrize("paths", [0, 16, 40, 1000])
def test_paths_that_cannot_be_shared_by_the_replicates_are_refused(paths):
    with pytest.raises(ValueError, match=f"expected paths as a multiple of 16, at least 32, got {paths}"):
        normals(paths, 1, generator=stream(0))
