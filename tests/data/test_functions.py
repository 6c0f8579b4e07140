import math

import pytest
import torch

from drmlib.data import option_closed_form as closed
from drmlib.data.functions import PRICE, VALUE, Answers, Domain, Oracle, dimensions, hills, labelled, ripples, uniform
from drmlib.data.option_basket import basket_put
from drmlib.data.option_finite_differences import finite_differences
from drmlib.data.option_monte_carlo import monte_carlo
from drmlib.rng import stream

SLOPE = Domain(("height", "tilt"), (10.0, -1.0), (20.0, 1.0))


def slope():
    """Height times tilt; the error is a tenth of the height."""
    return Oracle(lambda x: Answers(x[:, 0] * x[:, 1], x[:, 0] / 10), SLOPE)


def rows(n, d, *names):
    return torch.rand(n, d, dtype=torch.float64, generator=stream(0, "rows", *names))


def gradient(oracle, at, step=1e-4):
    """Central differences (d,) at one row (d,)."""
    moves = step * torch.eye(len(at), dtype=at.dtype)
    return (oracle(at + moves) - oracle(at - moves)) / (2 * step)


def test_an_oracle_by_hand():
    """Row (0.5, 0.75) is height 15 and tilt 0.5: value 7.5, error 1.5; dtype float64 whatever the row's."""
    value, error = slope().answer(torch.tensor([[0.5, 0.75]]))
    assert (value.tolist(), error.tolist()) == ([7.5], [1.5]) and value.dtype == error.dtype == torch.float64
    assert dimensions(slope()) == 2 and slope().task is PRICE


def test_calls_are_the_rows_asked_for():
    """3 by value and 4 with errors make 7, an empty question none, and one that is refused none either."""
    oracle = slope()
    oracle(rows(3, 2))
    oracle.answer(rows(4, 2))
    assert oracle.calls == 7
    assert oracle(rows(0, 2)).shape == (0,) and oracle.calls == 7
    with pytest.raises(ValueError, match="height"):
        oracle(rows(5, 2) + 2)
    assert oracle.calls == 7


@pytest.mark.parametrize(
    "make",
    [
        lambda: closed.closed_form(closed.DOWN_AND_OUT_PUT),
        lambda: finite_differences(closed.DOWN_AND_OUT_PUT, nodes=16, steps=6),
        lambda: monte_carlo(closed.DOWN_AND_OUT_PUT, paths=64, generator=stream(0)),
        lambda: basket_put(paths=64, generator=stream(0)),
        hills,
    ],
    ids=["closed form", "finite differences", "monte carlo", "basket", "hills"],
)
def test_a_chunk_at_a_time_gives_the_same_answers(make):
    """10 rows in chunks of 3 are 3, 3, 3, 1; a sum may round otherwise in another layout, by a few ulps of 1."""
    oracle = make()
    x, sizes, evaluate = rows(10, dimensions(oracle)), [], oracle.evaluate
    whole = oracle.answer(x)
    oracle.chunk, oracle.evaluate = 3, lambda inputs: sizes.append(len(inputs)) or evaluate(inputs)
    parts = oracle.answer(x)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-14)
    assert sizes == [3, 3, 3, 1] and parts.value.shape == parts.error.shape == (10,)


def test_rows_of_float32_are_answered_as_their_float64_values():
    oracle, x = closed.closed_form(closed.CALL), rows(20, 5).float()
    assert torch.equal(oracle(x), oracle(x.double()))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((1.0, 1.5), r"tilt is 2 in row 1, expected -1 to 1"),
        ((-0.1, 0.5), r"height is 9 in row 1, expected 10 to 20"),
        ((math.nan, 0.5), r"height is nan in row 1, expected 10 to 20"),
        ((0.5, math.inf), r"tilt is inf in row 1"),
    ],
)
def test_a_row_outside_the_domain_is_named_with_its_range(row, message):
    with pytest.raises(ValueError, match=message):
        slope()(torch.tensor([(0.5, 0.5), row]))


def test_an_option_outside_its_domain_is_named_in_its_own_units():
    """Strike 220 is row (220 - 50) / 150 = 1.133 of the moderate domain, 50 to 200."""
    contract = torch.tensor([[220.0, 70.0, 0.25, 1.0, 0.03]])
    with pytest.raises(ValueError, match="strike is 220 in row 0, expected 50 to 200"):
        closed.MODERATE.rows(contract)
    with pytest.raises(ValueError, match="strike is 220 in row 0, expected 50 to 200"):
        closed.closed_form(closed.PUT)(torch.tensor([[170 / 150, 0.5, 0.5, 0.5, 0.5]]))
    with pytest.raises(ValueError, match="rate is nan in row 0, expected 0 to 0.1"):
        closed.MODERATE.rows(torch.tensor([[100.0, 70.0, 0.25, 1.0, math.nan]]))


@pytest.mark.parametrize("shape", [(4, 3), (4, 1), (2,), (2, 2, 2)])
def test_rows_of_the_wrong_width_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected rows \(n, 2\) of \('height', 'tilt'\), got \("):
        slope()(torch.full(shape, 0.5))
    with pytest.raises(ValueError, match=r"expected rows \(n, 2\) of"):
        SLOPE.rows(torch.full(shape, 0.5))


@pytest.mark.parametrize(
    "domain",
    [SLOPE, closed.MODERATE, closed.WIDE, closed.ABOVE, basket_put(paths=32, generator=stream(0)).domain],
    ids=["slope", "moderate", "wide", "above", "basket"],
)
def test_rows_and_inputs_are_inverse_and_both_ends_belong_to_the_domain(domain):
    """The ends must come back within [0, 1], where rounding could push them out and have them refused."""
    d = len(domain.names)
    x = torch.cat([rows(50, d), torch.zeros(1, d), torch.ones(1, d)])
    torch.testing.assert_close(domain.rows(domain.inputs(x)), x, rtol=0, atol=1e-14)
    ends = torch.tensor([domain.low, domain.high], dtype=torch.float64)
    torch.testing.assert_close(domain.inputs(domain.rows(ends)), ends, rtol=1e-15, atol=0)


def test_labels_are_the_values_of_the_rows():
    oracle, x = slope(), rows(5, 2).float()
    data = labelled(x, oracle)
    assert torch.equal(data.images, x) and data.images.dtype == data.targets.dtype == torch.float32
    torch.testing.assert_close(data.targets, oracle(x).float()[:, None])
    assert data.task is PRICE and labelled(rows(5, 5).float(), hills()).task is VALUE


def test_uniform_rows_fill_the_domain_and_follow_their_generator():
    """The mean of 2000 uniform values deviates by 1 / sqrt(12 x 2000) = 0.0065; five deviations are 0.033."""
    oracle = slope()
    one, again, other = (uniform(oracle, 2000, generator=stream(seed)) for seed in (0, 0, 1))
    assert one.images.shape == (2000, 2) and one.targets.shape == (2000, 1) and oracle.calls == 6000
    assert one.images.dtype == one.targets.dtype == torch.float32
    assert (one.images.mean(0) - 0.5).abs().max() < 0.033
    assert one.images.amin() < 0.01 and one.images.amax() > 0.99
    assert torch.equal(one.images, again.images) and torch.equal(one.targets, again.targets)
    assert not torch.equal(one.images, other.images)


@pytest.mark.parametrize(("inputs", "width"), [(5, 0.3), (2, 0.2 * math.sqrt(2)), (1, 0.1)])
def test_hills_are_highest_at_their_two_centres(inputs, width):
    """Heights 1 and 0.6 with gradient zero; a quarter of that where |x - c|^2 = width^2 / 2, for (1 - 1/2)^2 = 1/4."""
    oracle = hills(inputs=inputs, width=width)
    for centre, height in ((0.3, 1.0), (0.7, 0.6)):
        top = torch.full((inputs,), centre, dtype=torch.float64)
        side = top.clone()
        side[0] += width / math.sqrt(2) * (1 if centre < 0.5 else -1)
        beyond = top.clone()
        beyond[0] += width * (-1 if centre < 0.5 else 1)
        assert oracle(torch.stack([top, beyond])).tolist() == [pytest.approx(height), pytest.approx(0, abs=1e-15)]
        assert gradient(oracle, top).abs().max() < 1e-10
        near = top + 0.02 * (rows(200, inputs, centre) - 0.5)
        assert (oracle(near) < height).all()
        if inputs > 1:  # in one dimension the side of a hill may lie on the other
            assert oracle(side[None]).item() == pytest.approx(height / 4)
    assert oracle(rows(2000, inputs)).amax() <= 1 and oracle(rows(2000, inputs)).amin() == 0


def test_hills_that_would_overlap_are_refused():
    """Their centres are 0.4 sqrt(5) = 0.894 apart."""
    hills(width=0.447)
    for width in (0.448, 0.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"expected a width in \(0, 0.447\], where hills are apart, got"):
            hills(width=width)


@pytest.mark.parametrize(("inputs", "waves"), [(1, 1), (2, 3), (3, 2)])
def test_ripples_have_all_their_maxima_at_one(inputs, waves):
    """waves^inputs of them, at x_j = (k + 1/2) / waves; zero where an x_j is k / waves; sin^2(pi / 4) = 1/2 between."""
    oracle = ripples(inputs=inputs, waves=waves)
    places = (torch.arange(waves, dtype=torch.float64) + 0.5) / waves
    tops = torch.cartesian_prod(*[places] * inputs).view(-1, inputs)
    assert len(tops) == waves**inputs
    torch.testing.assert_close(oracle(tops), torch.ones(len(tops), dtype=torch.float64), rtol=0, atol=1e-14)
    assert max(gradient(oracle, top).abs().max() for top in tops) < 1e-10
    assert oracle(rows(2000, inputs)).amax() <= 1
    between = tops.clone()
    between[:, 0] -= 1 / (4 * waves)
    torch.testing.assert_close(oracle(between), torch.full_like(oracle(between), 0.5))
    between[:, 0] -= 1 / (4 * waves)
    assert oracle(between.clamp_min(0)).amax() < 1e-14
