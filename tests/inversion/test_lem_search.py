import math

import pytest
import torch
from torch import nn

from drmlib.attacks.localized import Region
from drmlib.data.functions import VALUE, Answers, Domain, Oracle, hills, ripples
from drmlib.inversion.lem_search import (
    LEVY_INDEX,
    STALL_STEPS,
    CentralDifferences,
    Spsa,
    _levy,
    absolute_error,
    apart,
    ascend,
    cuckoo,
)
from drmlib.models.mlp import MLP
from drmlib.rng import stream
from tests.problems import ZERO, Known

CURVATURE, TILT = torch.tensor([[1.0, 0.5], [0.5, -2.0]]).double(), torch.tensor([0.3, -0.7]).double()


def known_oracle(function, *, inputs=2):
    domain = Domain(tuple(f"x{j}" for j in range(inputs)), (0.0,) * inputs, (1.0,) * inputs)
    return Oracle(lambda x: Answers(function(x), torch.zeros_like(x[:, 0])), domain, task=VALUE)


def uniform_rows(n, d, *, low=0.0, high=1.0, seed=0):
    return low + (high - low) * torch.rand(n, d, generator=stream(seed, "rows")).double()


def quadratic(x):
    """Z = x A x + b x, of gradient 2 A x + b."""
    return ((x @ CURVATURE) * x).sum(1) + x @ TILT


# Slopes of the oracle


def test_central_differences_of_a_quadratic_function_are_its_gradient():
    """Z(x + h e) - Z(x - h e) = 2 h dZ/dx: terms in h^2 cancel, only rounding is left. The network plays no part."""
    rows, oracle = uniform_rows(50, 2, low=0.01, high=0.99), known_oracle(quadratic)
    for network in (torch.zeros_like(rows), torch.ones_like(rows)):
        values, slope = CentralDifferences()(oracle, rows, network, generator=stream(0))
        torch.testing.assert_close(values, quadratic(rows), rtol=0, atol=1e-14)
        torch.testing.assert_close(slope, 2 * rows @ CURVATURE + TILT, rtol=0, atol=1e-11)


def test_central_differences_are_one_sided_at_an_edge():
    """At (0, 1) the ends are 0 and h, 1 - h and 1: the gradient plus A_00 h, and less A_11 h."""
    rows = torch.tensor([[0.0, 1.0]]).double()
    _, slope = CentralDifferences(h=0.01)(known_oracle(quadratic), rows, rows, generator=stream(0))
    wanted = 2 * rows @ CURVATURE + TILT + 0.01 * torch.tensor([1.0, 2.0]).double()
    torch.testing.assert_close(slope, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("slope", "calls"), [(CentralDifferences(), 11), (Spsa(), 3)])
def test_a_slope_in_five_inputs_costs_eleven_calls_a_row_or_three(slope, calls):
    oracle, rows = hills(), uniform_rows(7, 5)
    values, gradient = slope(oracle, rows, torch.zeros_like(rows), generator=stream(0))
    assert oracle.calls == 7 * calls and values.shape == (7,) and gradient.shape == (7, 5)
    assert torch.equal(values, hills()(rows))


def test_spsa_is_the_gradient_of_the_oracle_on_average():
    """Z of gradient g, Y of gradient w: what comes back is w + ((g - w) D) D, D a diagonal of +-1.

    D and -D give the same. In three inputs the four pairs are as likely; their D_i D_j sum to 4 where i = j and to 0
    elsewhere, so the mean of the four is w + (g - w) = g.
    """
    g, w = torch.tensor([0.3, -1.1, 0.5]).double(), torch.tensor([0.2, 0.4, -0.6]).double()
    rows = uniform_rows(200, 3, low=0.01, high=0.99)
    _, slope = Spsa()(known_oracle(lambda x: x @ g, inputs=3), rows, w.expand(200, 3), generator=stream(0))
    seen = torch.unique(slope.mul(1e9).round(), dim=0) / 1e9
    assert len(seen) == 4
    torch.testing.assert_close(seen.mean(0), g, rtol=0, atol=1e-8)


def test_spsa_moves_along_a_diagonal_by_what_the_oracle_does_there_beyond_the_network():
    """What is added to Y's slope w is ((g - w) D) D for a diagonal D of +-1, also in a corner, where the ends are cut:
    along D, of squared length 3, three times (g - w) D."""
    g, w = torch.tensor([0.3, -1.1, 0.5]).double(), torch.tensor([0.2, 0.4, -0.6]).double()
    oracle = known_oracle(lambda x: x @ g, inputs=3)
    for rows in (uniform_rows(40, 3, low=0.01, high=0.99), torch.tensor([[0.0, 0.0, 1.0]]).double().expand(40, 3)):
        _, slope = Spsa()(oracle, rows, w.expand(40, 3), generator=stream(0))
        added = slope - w
        diagonal = added.sign()
        torch.testing.assert_close(added.abs(), added.abs()[:, :1].expand(40, 3))
        torch.testing.assert_close((added * diagonal).sum(1), 3 * (diagonal @ (g - w)))


def test_spsa_has_no_noise_where_oracle_and_network_have_the_same_slope():
    g = torch.tensor([0.3, -1.1, 0.5]).double()
    rows = uniform_rows(40, 3)
    _, slope = Spsa()(known_oracle(lambda x: x @ g, inputs=3), rows, g.expand(40, 3), generator=stream(0))
    torch.testing.assert_close(slope, g.expand(40, 3), rtol=0, atol=1e-11)


# Gradient ascent


def test_a_way_by_hand():
    """Z = x_0 and Y = 0: each step goes along x_0. Ten of 0.02, then two of 0.014: from 0.1 to 0.328."""
    start, oracle = torch.tensor([[0.1, 0.5]]), known_oracle(lambda x: x[:, 0])
    found = ascend(ZERO, start, oracle, steps=12, generator=stream(0))
    torch.testing.assert_close(found.rows, torch.tensor([[0.328, 0.5]]).double())
    assert found.history.shape == (13, 1) and found.history[:2, 0].tolist() == pytest.approx([0.1, 0.12])
    assert torch.equal(start, torch.tensor([[0.1, 0.5]]))
    halved = ascend(ZERO, start, oracle, steps=12, step=0.01, decay=0.5, decay_every=4, generator=stream(0))
    torch.testing.assert_close(halved.rows, torch.tensor([[0.1 + 0.04 + 0.02 + 0.01, 0.5]]).double())


def test_the_error_is_climbed_on_either_side_of_zero_and_up_to_the_edge():
    """Z = 0.5 - x_0: |Z| rises to the left of 0.5 and to the right."""
    oracle = known_oracle(lambda x: 0.5 - x[:, 0])
    found = ascend(ZERO, torch.tensor([[0.4, 0.3], [0.6, 0.3]]), oracle, generator=stream(0))
    torch.testing.assert_close(found.rows, torch.tensor([[0.0, 0.3], [1.0, 0.3]]).double())
    torch.testing.assert_close(found.error, torch.tensor([0.5, 0.5]).double())


@pytest.fixture(scope="module")
def cells():
    """Twenty seeds inside each of the nine cells of ripples, the maximisers of their cells, and the climb."""
    cell = torch.cartesian_prod(torch.arange(3), torch.arange(3)).repeat(20, 1)
    seeds, oracle = (cell + uniform_rows(180, 2, low=0.02, high=0.98)) / 3, ripples()
    return seeds, (cell + 0.5) / 3, oracle, ascend(ZERO, seeds, oracle, generator=stream(0))


def test_every_seed_climbs_to_the_maximiser_of_its_cell(cells):
    """The steps end at 0.003, and a seed stops when the energy, 1 - 178 r^2 there, gains less than 0.001 in ten."""
    _, maximisers, _, found = cells
    assert (found.rows - maximisers).norm(dim=1).max() < 0.01


def test_the_best_point_of_each_way_is_kept(cells):
    seeds, _, _, found = cells
    assert (found.history.diff(dim=0) >= 0).all() and torch.equal(found.history[-1], found.error)
    assert torch.equal(found.history[0], ripples()(seeds))
    assert torch.equal(found.error, ripples()(found.rows)), "the errors are those of the rows"
    assert ((found.rows >= 0) & (found.rows <= 1)).all()


def test_side_by_side_seeds_climb_as_one_after_another(cells):
    """The same rows for the same number of calls: a seed does not know of the others."""
    seeds, _, _, found = cells
    alone = ripples()
    ways = [ascend(ZERO, seed[None], alone, generator=stream(0)) for seed in seeds[::12]]
    torch.testing.assert_close(torch.cat([way.rows for way in ways]), found.rows[::12], rtol=0, atol=1e-9)
    together = ripples()
    ascend(ZERO, seeds[::12], together, generator=stream(0))
    assert together.calls == alone.calls


def test_a_stalled_seed_is_asked_no_more(cells):
    """On the plain between the hills nothing rises: the starting point and ten steps are asked for, five calls each."""
    seeds, _, oracle, _ = cells
    assert oracle.calls < 60 * 5 * len(seeds)
    plain = hills(inputs=2, width=0.2)
    found = ascend(ZERO, torch.tensor([[0.9, 0.1]]), plain, generator=stream(0))
    assert plain.calls == 5 * (1 + STALL_STEPS)
    torch.testing.assert_close(found.rows, torch.tensor([[0.9, 0.1]]).double(), rtol=0, atol=1e-7)
    climbing = known_oracle(lambda x: x[:, 0])
    ascend(ZERO, torch.tensor([[0.1, 0.5]]), climbing, steps=30, generator=stream(0))
    assert climbing.calls == 5 * 31, "one that still gains is asked at each step"


def test_the_error_of_a_network_on_a_zero_oracle_is_that_of_an_oracle_on_a_zero_network(cells):
    """Gradients by back-propagation in float32 and by differences agree to 1e-5; steps of that direction, to 1e-3."""
    seeds, _, _, found = cells
    network = Known(lambda x: (3 * math.pi * x).sin().square().prod(1))
    swapped = ascend(network, seeds, known_oracle(lambda x: 0 * x[:, 0]), generator=stream(0))
    torch.testing.assert_close(swapped.rows, found.rows, rtol=0, atol=1e-3)


def test_the_network_is_left_as_it_was():
    """Batch norm in training would take its statistics from the seeds."""
    model = nn.Sequential(nn.BatchNorm1d(2), MLP(1, inputs=2, width=8, generator=stream(0))).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ascend(model, uniform_rows(5, 2), ripples(), steps=3, generator=stream(0))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_noisy_slope_follows_its_generator():
    one, two, other = (
        ascend(ZERO, uniform_rows(9, 2), ripples(), slope=Spsa(), generator=stream(s)) for s in (0, 0, 1)
    )
    assert torch.equal(one.rows, two.rows) and not torch.equal(one.rows, other.rows)


# Cuckoo search


def test_no_nest_flies_to_a_smaller_error():
    nests, oracle = uniform_rows(40, 2), ripples()
    before = ripples()(nests)
    flown = cuckoo(ZERO, nests, oracle, scale=0.1, abandon=0.0, generator=stream(0))
    after = ripples()(flown)
    assert (after >= before).all() and (after > before).sum() > 20
    assert oracle.calls == 40 * (1 + 10), "one call a try"
    moved = cuckoo(ZERO, nests, ripples(), scale=0.1, generator=stream(0))
    assert ripples()(moved).max() >= before.max()
    assert all(((rows >= 0) & (rows <= 1)).all() for rows in (flown, moved))
    assert torch.equal(nests, uniform_rows(40, 2)), "the given rows are not changed"


def test_the_worst_nests_move_between_the_others():
    """Flights of no length: the nest of error 0 moves to the middle of two others, x_0 of 0.2 and 0.4, drawn with
    replacement, while nothing can better an error of 1."""
    oracle = known_oracle(lambda x: (x[:, 0] < 0.5).double())
    nests = torch.tensor([[0.2, 0.2], [0.4, 0.2], [0.2, 0.2], [0.4, 0.2], [0.9, 0.9]])
    moved = cuckoo(ZERO, nests, oracle, flights=1, scale=0.0, abandon=0.2, generator=stream(0))
    assert torch.equal(moved[:4], nests[:4].double()) and oracle.calls == 5 + 5 + 1
    assert any(torch.allclose(moved[4], torch.tensor([x, 0.2]).double()) for x in (0.2, 0.3, 0.4))


def test_levy_flights_leave_the_lower_hill_for_the_higher():
    """All nests start on the hill of 0.6, whose foot is 0.07 from that of the other: gradients alone stay there. Of
    these flights about one in eighty lands higher on the other hill, and there are 1,000: none at all would be a chance
    of 1e-5."""
    for seed in range(3):
        nests = Region(torch.tensor([0.7, 0.7]), 0.2, 0.25).ball(100, generator=stream(seed))
        without = ascend(ZERO, nests, hills(inputs=2, width=0.25), generator=stream(seed))
        flown = cuckoo(ZERO, nests, hills(inputs=2, width=0.25), scale=0.2, generator=stream(seed))
        found = ascend(ZERO, flown, hills(inputs=2, width=0.25), generator=stream(seed))
        assert without.error.max() < 0.601 and found.error.max() > 0.99


def test_some_nests_are_kept():
    with pytest.raises(ValueError, match=r"abandon in \[0, 1\)"):
        cuckoo(ZERO, uniform_rows(4, 2), ripples(), abandon=1.0, generator=stream(0))


def test_flights_follow_their_generator():
    one, two, other = (cuckoo(ZERO, uniform_rows(20, 2), ripples(), generator=stream(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_flights_are_those_of_mantegna():
    """L = s u / |v|^(1 / b) with s^b = Gamma(1 + b) sin(pi b / 2) / (Gamma((1 + b) / 2) b 2^((b - 1) / 2)), b = 1.5.

    log |N| of a normal N has mean -(gamma + log 2) / 2 and variance pi^2 / 8; log |L| therefore log s plus (1 - 1 / b)
    of that mean, and (1 + 1 / b^2) of that variance. With 200,000 draws the mean is known to 0.003, the variance to
    0.8 %: three and more deviations are allowed.
    """
    b = LEVY_INDEX
    s = math.gamma(1 + b) * math.sin(math.pi * b / 2) / (math.gamma((1 + b) / 2) * b * 2 ** ((b - 1) / 2))
    s **= 1 / b
    assert b == 1.5 and s == pytest.approx(0.6965745, abs=1e-7)
    u, v = torch.randn(2, 30, 2, dtype=torch.float64, generator=stream(0))
    steps = _levy(torch.zeros(30, 2).double(), stream(0))
    torch.testing.assert_close(steps, s * u / v.abs() ** (1 / b), rtol=1e-7, atol=0)
    logarithm = _levy(torch.zeros(200_000).double(), stream(1)).abs().log()
    mean = -(0.5772156649 + math.log(2)) / 2
    assert logarithm.mean().item() == pytest.approx(math.log(s) + mean * (1 - 1 / b), abs=0.01)
    assert logarithm.var().item() == pytest.approx(math.pi**2 / 8 * (1 + 1 / b**2), rel=0.03)


# Errors and pruning


def test_the_absolute_error_by_hand():
    """Y = x_0 and Z = x_1: differences of 0.2, one call each; more rows than fit a batch keep their order."""
    model, oracle = Known(lambda x: x[:, 0]), known_oracle(lambda x: x[:, 1])
    error = absolute_error(model, torch.tensor([[0.5, 0.3], [0.1, 0.3], [0.4, 0.4]]), oracle)
    torch.testing.assert_close(error, torch.tensor([0.2, 0.2, 0.0]).double(), rtol=0, atol=1e-7)
    assert oracle.calls == 3 and error.dtype == torch.float64
    rows = uniform_rows(700, 2)
    torch.testing.assert_close(absolute_error(model, rows, oracle), (rows[:, 0] - rows[:, 1]).abs(), rtol=0, atol=1e-6)


def test_pruning_by_hand():
    """Errors 4, 3, 2 in a row, 0.04 apart, and 5 far off: 5 and 4 stay, 3 is near 4; 2 is near none that stayed."""
    rows = torch.tensor([[0.18, 0.0], [0.14, 0.0], [0.10, 0.0], [0.9, 0.9]])
    error = torch.tensor([2.0, 3.0, 4.0, 5.0])
    assert apart(rows, error).tolist() == [3, 2, 0]
    assert apart(rows, error, radius=0.1).tolist() == [3, 2]
    assert apart(rows, error, radius=0.01).tolist() == [3, 2, 1, 0]
    assert apart(rows[:1], error[:1]).tolist() == [0]


def test_what_pruning_leaves_is_apart_and_near_all_that_it_takes():
    rows, error = uniform_rows(300, 2), torch.rand(300, generator=stream(0, "error"))
    kept = apart(rows, error, radius=0.1)
    between = (rows[kept][:, None] - rows[kept]).norm(dim=2).fill_diagonal_(1)
    assert between.min() > 0.1 and (error[kept].diff() <= 0).all()
    nearest = ((rows[:, None] - rows[kept]).norm(dim=2) <= 0.1) & (error[kept] >= error[:, None])
    assert nearest.any(1).all(), "each row is near one kept of at least its error"
    shuffled = torch.randperm(300, generator=stream(0, "order"))
    assert torch.equal(shuffled[apart(rows[shuffled], error[shuffled], radius=0.1)], kept)
