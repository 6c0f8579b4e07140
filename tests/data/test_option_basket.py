import pytest
import torch

from drmlib.data.functions import dimensions
from drmlib.data.option_basket import basket, basket_put
from drmlib.data.option_closed_form import PUT, black_scholes
from drmlib.data.option_monte_carlo import normals
from drmlib.rng import stream


def contracts(n, assets):
    """Inputs (n, assets + 4), uniform in the domain."""
    oracle = basket_put(assets=assets, paths=32, generator=stream(0))
    x = torch.rand(n, assets + 4, dtype=torch.float64, generator=stream(0, "contracts", assets))
    return oracle.domain.inputs(x)


def put(strike, volatility, expiry, rate):
    """Price over spot of a put on one asset; strike over spot."""
    columns = torch.broadcast_tensors(100 * strike, torch.ones_like(strike), volatility, expiry, rate)
    return black_scholes(PUT, torch.stack(columns, -1).flatten(0, -2)).value.view(columns[0].shape)


def test_assets_that_move_as_one_are_one_asset():
    """Correlation 1 and equal volatilities: arithmetic mean = geometric mean = asset: the control leaves no noise."""
    inputs = contracts(50, 3)
    inputs[:, :3], inputs[:, 4] = inputs[:, :1], 1
    value, error = basket(normals(64, 4, generator=stream(0)), inputs)
    strike, _, expiry, rate = inputs[:, 3:].unbind(1)
    torch.testing.assert_close(value, put(strike, inputs[:, 0], expiry, rate), rtol=0, atol=1e-12)
    assert error.amax() < 1e-12


def test_two_assets_against_an_integral():
    """Given the normal w of asset 1, asset 2 is lognormal with deviation sigma_2 sqrt((1 - rho^2) T), and what is paid,
    (K - (S_1 + S_2) / 2)+, half a put on it with strike 2 K - S_1: the price is the integral of that put over w."""
    inputs = contracts(60, 2)
    one, two, strike, rho, expiry, rate = (column[:, None] for column in inputs.unbind(1))
    w = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    root = expiry.sqrt()
    left = 2 * strike - ((rate - one**2 / 2) * expiry + one * root * w).exp()
    forward = (two * rho * root * w - two**2 * rho**2 * expiry / 2).exp()
    given = forward * put((left / forward).clamp_min(1e-9), two * (1 - rho**2).sqrt(), expiry, rate)
    density = (-(w**2) / 2).exp() / (2 * torch.pi) ** 0.5
    price = torch.trapezoid(torch.where(left > 0, given / 2, 0) * density, w)
    value, error = basket(normals(1 << 13, 3, generator=stream(0)), inputs)
    assert ((value - price).abs() > 4 * error + 1e-5).sum() <= 1
    assert (value - price).abs().mean() < 2e-4


def test_four_assets_against_plain_monte_carlo():
    """The Cholesky factor of the correlations, independent draws, no control: within four of both standard errors."""
    inputs = contracts(8, 4)
    value, error = basket(normals(1 << 12, 5, generator=stream(0)), inputs)
    z = torch.randn(1 << 17, 4, dtype=torch.float64, generator=stream(0, "plain"))
    for k, (*sigma, strike, correlation, expiry, rate) in enumerate(inputs):
        sigma = torch.stack(sigma)
        correlations = correlation + (1 - correlation) * torch.eye(4, dtype=torch.float64)
        shocks = z @ torch.linalg.cholesky(correlations).T
        spots = ((rate - sigma**2 / 2) * expiry + sigma * expiry.sqrt() * shocks).exp()
        pays = (-rate * expiry).exp() * (strike - spots.mean(1)).clamp_min(0)
        plain_error = pays.std() / len(pays) ** 0.5
        assert (value[k] - pays.mean()).abs() < 4 * (error[k] ** 2 + plain_error**2).sqrt() + 1e-5


def test_a_basket_costs_no_more_than_its_puts_and_no_less_than_the_forward():
    """(K - mean S)+ <= mean (K - S_k)+, for the payoff is convex, and >= K exp(-rT) - 1 by Jensen's inequality."""
    inputs = contracts(200, 4)
    value, error = basket(normals(1 << 10, 5, generator=stream(0)), inputs)
    strike, _, expiry, rate = (column[:, None] for column in inputs[:, 4:].unbind(1))
    above = put(strike, inputs[:, :4], expiry, rate).mean(1)
    below = (strike * (-rate * expiry).exp() - 1)[:, 0].clamp_min(0)
    assert (value <= above + 4 * error + 1e-5).all() and (value >= below - 4 * error - 1e-5).all()
    assert (above - value).amax() > 0.01


def test_no_price_is_below_zero():
    """The control variate alone would put 4 % of the domain up to 1.5e-4 below."""
    oracle = basket_put(generator=stream(0))
    assert oracle(torch.rand(2000, 8, generator=stream(1))).min() == 0


def test_the_order_of_the_assets_does_not_matter():
    inputs, points = contracts(100, 4), normals(1 << 10, 5, generator=stream(0))
    turned = torch.cat([inputs[:, [2, 0, 3, 1]], inputs[:, 4:]], 1)
    one, two = (basket(points, x) for x in (inputs, turned))
    error = (one.error**2 + two.error**2).sqrt()
    assert ((one.value - two.value).abs() > 4 * error + 1e-5).sum() <= 2
    assert not torch.equal(one.value, two.value)


def test_the_oracle_names_its_inputs_and_follows_its_generator():
    one, again, other = (basket_put(assets=3, paths=64, generator=stream(seed)) for seed in (0, 0, 1))
    assert dimensions(one) == 7 and one.domain.names[:4] == ("volatility 1", "volatility 2", "volatility 3", "strike")
    x = torch.rand(10, 7, generator=stream(2))
    assert torch.equal(one(x), again(x)) and not torch.equal(one(x), other(x))
    with pytest.raises(ValueError, match="correlation is 1.8 in row 0, expected 0 to 0.9"):
        one(torch.tensor([[0.5, 0.5, 0.5, 0.5, 2.0, 0.5, 0.5]]))


@pytest.mark.parametrize("assets", [1, 0])
def test_a_basket_of_fewer_than_two_assets_is_refused(assets):
    with pytest.raises(ValueError, match=f"expected at least 2 assets, got {assets}"):
        basket_put(assets=assets, generator=stream(0))
