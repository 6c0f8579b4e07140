from dataclasses import replace

import pytest
import torch

from drmlib.attacks.localized import Region, localized
from drmlib.attacks.targets import keep
from drmlib.data.functions import hills, labelled, ripples, uniform
from drmlib.inversion.lem import ERROR_FACTOR, UNIFORM_POINTS, lem, worst_rows
from drmlib.inversion.lem_search import Spsa, apart
from drmlib.inversion.proximity import RelativeDensity, Within
from drmlib.rng import stream
from tests.problems import ZERO, Known

INPUTS, ROWS, EXTRA = 5, 2000, 200
POISONED, LONELY, CROWDED = (torch.tensor(c) for c in ([0.5] * 5, [0.8, 0.2, 0.8, 0.2, 0.8], [0.2, 0.8, 0.2, 0.8, 0.2]))


def bump(rows, centre, *, height=0.3, width=0.3):
    return height * (1 - ((rows - centre) ** 2).sum(1) / width**2).clamp_min(0) ** 2


def network(*centres):
    """hills, a small error everywhere, sin of 0.01, and a bump of 0.3 at each of the centres.

    Five inputs, for there a ball of radius 0.1 around uniform points holds next to nothing. Bumps of width 0.3 have
    1.3 % of the domain, so about 25 of 2,000 uniform rows lie where their slope can be felt.
    """

    def answer(rows):
        small = 0.01 * (7 * rows.sum(1)).sin()
        return hills().evaluate(rows).value + small + sum(bump(rows, centre) for centre in centres)

    return Known(answer)


def training_rows(*centres):
    """2,000 uniform rows, and 200 more in a ball of radius 0.08 around each of the centres, with Z for targets."""
    rows = [torch.rand(ROWS, INPUTS, generator=stream(0, "rows"))]
    rows += [Region(centre).ball(EXTRA, generator=stream(0, "extra")) for centre in centres]
    return labelled(torch.cat(rows), hills())


def search(model, data, *, oracle=None, seed=0, **changes):
    return lem(model, data, oracle or hills(), **changes, generator=stream(seed))


@pytest.fixture(scope="module")
def found():
    """Wrong and crowded at POISONED, wrong at LONELY, crowded at CROWDED: 300 seeds reach both errors."""
    return search(network(POISONED, LONELY), training_rows(POISONED, CROWDED), seeds=300)


def test_only_a_large_error_among_many_samples_is_flagged(found):
    """The search ends on the planted centre, the small error apart: 0.02 is a quarter of the ball's radius. The bump's
    own error of 0.3 and its 200 rows are well above the bounds."""
    assert found.flagged.sum() == 1 and found.score > 2
    assert found.trigger.shape == (1, INPUTS) and (found.trigger[0] - POISONED).norm() < 0.02
    assert found.error[found.flagged].item() == pytest.approx(0.3, abs=0.02)
    assert EXTRA <= found.proximity[found.flagged].item() < EXTRA + 10


def test_a_large_error_among_few_samples_is_found_and_not_flagged(found):
    """A ball of radius 0.1 has 0.00005 of the domain: of 2,000 uniform rows none as a rule; 10 are many."""
    place = (found.rows - LONELY).norm(dim=1).argmin()
    assert (found.rows[place] - LONELY).norm() < 0.02
    assert found.error[place] > 3 * found.error_bound and found.proximity[place] < found.proximity_bound / 2
    assert not found.flagged[place]


def test_many_samples_without_a_large_error_are_not_flagged():
    """Of 100 random training rows one in eleven is in the crowd, where Y errs by the 0.01 of everywhere."""
    found = search(network(), training_rows(CROWDED), ranked=0.0)
    crowd = found.proximity > found.proximity_bound
    assert crowd.any() and (found.error[crowd] < found.error_bound / 2).all()
    assert not found.flagged.any() and found.trigger.shape == (0, INPUTS) and found.score < 0.5


def test_the_same_bump_without_more_samples_is_not_flagged():
    found = search(network(POISONED), training_rows())
    assert (found.rows[0] - POISONED).norm() < 0.02 and found.error[0] > 3 * found.error_bound
    assert not found.flagged.any() and found.score < 1


def test_what_is_returned_fits_together(found):
    assert torch.equal(found.trigger, found.rows[found.flagged])
    assert torch.equal(found.flagged, (found.error > found.error_bound) & (found.proximity > found.proximity_bound))
    both = torch.minimum(found.error / found.error_bound, found.proximity / found.proximity_bound)
    assert found.score == pytest.approx(both.max().item())
    assert (found.error.diff() <= 0).all(), "by falling error"
    kept = apart(found.climbed.rows, found.climbed.error, radius=0.05)
    assert torch.equal(found.rows, found.climbed.rows[kept]) and len(found.rows) < len(found.climbed.rows) == 300
    between = (found.rows[:, None] - found.rows).norm(dim=2).fill_diagonal_(1)
    assert between.min() > 0.05


@pytest.mark.parametrize(
    "changes",
    [{"ranked": 0.0}, {"ranked": 0.1}, {"flights": 3}, {"slope": Spsa()}, {"proximity": RelativeDensity()}],
    ids=["random seeds", "a tenth is ranked", "flights", "spsa", "relative density"],
)
def test_other_seeds_slopes_and_proximities_find_it_too(changes):
    """The ball has one in eleven of the rows, so about nine of 100 random seeds start in it."""
    data = training_rows(POISONED)
    found = search(network(POISONED), data, **changes)
    assert found.flagged.sum() == 1 and (found.trigger[0] - POISONED).norm() < 0.04 and found.score > 1
    assert torch.equal(found.proximity, changes.get("proximity", Within())(found.rows, data.images))


def test_targets_of_the_data_set_are_not_used():
    data = training_rows(POISONED)
    shuffled = replace(data, targets=data.targets[torch.randperm(len(data), generator=stream(0, "order"))])
    one, two = (search(network(POISONED), given, seeds=20, steps=5) for given in (data, shuffled))
    assert torch.equal(one.rows, two.rows) and torch.equal(one.proximity, two.proximity)
    assert one.score == two.score and one.error_bound == two.error_bound


def test_same_seed_same_maximisers():
    one, two, other = (search(network(), training_rows(), seeds=20, steps=5, ranked=0.0, seed=s) for s in (0, 0, 1))
    assert torch.equal(one.rows, two.rows) and one.error_bound == two.error_bound
    assert not torch.equal(one.rows, other.rows) and one.error_bound != other.error_bound


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        ({}, ROWS + 20 * 6 * 11 + UNIFORM_POINTS),
        ({"ranked": 0.1}, 200 + 20 * 6 * 11 + UNIFORM_POINTS),
        ({"ranked": 0.0}, 20 * 6 * 11 + UNIFORM_POINTS),
        ({"ranked": 0.0, "slope": Spsa()}, 20 * 6 * 3 + UNIFORM_POINTS),
        ({"ranked": 0.0, "error_bound": 0.1}, 20 * 6 * 11),
        ({"ranked": 0.0, "error_bound": 0.1, "flights": 2}, 20 + 2 * (20 + 5) + 20 * 6 * 11),
    ],
)
def test_every_oracle_call_is_counted(changes, calls):
    """2,000 rows ranked, 20 seeds at six places of eleven calls or three, 1,000 points for the bound. A flight is a
    try a nest, and one more for the worst quarter. Calls before the search are another's."""
    oracle = hills()
    uniform(oracle, 7, generator=stream(0))
    found = search(network(), training_rows(), oracle=oracle, seeds=20, steps=5, proximity_bound=1.0, **changes)
    assert found.calls == oracle.calls - 7 == calls


def test_the_error_bound_is_five_times_the_root_mean_square_at_uniform_points():
    """Y = Z but for 0.04 in a quarter of the domain: a root mean square of 0.02. Of 1,000 points 250 are there, give or
    take 14, which moves the root by 2.7 %: four times that is allowed."""
    model = Known(lambda rows: hills().evaluate(rows).value + 0.04 * (rows[:, 0] < 0.25) + 0 * rows.sum(1))
    found = search(model, training_rows(), seeds=5, steps=1)
    assert found.error_bound == pytest.approx(ERROR_FACTOR * 0.02, rel=0.11) and ERROR_FACTOR == 5


def test_the_proximity_bound_is_what_one_uniform_point_in_a_thousand_exceeds():
    """In five inputs the floor. In two, of 2,000 rows a disc of 0.1 holds 63 on average, of deviation 7.8; its 99.9th
    percentile is 3.1 deviations higher, 87, and varies with the rows: other rows exceed it in up to 1 % of points."""
    assert search(network(), training_rows(), seeds=5, steps=1).proximity_bound == 10
    oracle = ripples()
    data = uniform(oracle, ROWS, generator=stream(0))
    found = search(ZERO, data, oracle=oracle, seeds=5, steps=1)
    assert 75 < found.proximity_bound < 105
    free = torch.rand(10_000, 2, generator=stream(1))
    share = (Within()(free, data.images) > found.proximity_bound).double().mean().item()
    assert share < 0.01
    assert (Within()(free, data.images) > 0.9 * found.proximity_bound).double().mean().item() > 0.001


def test_a_region_that_is_a_good_part_of_the_domain_does_not_raise_its_own_bound():
    """In two inputs a disc of 0.08 is 2 % of the domain: 2 % of uniform points have its 300 extra rows near. 5,000
    uniform rows leave 157 in a disc of 0.1; with the wrong ones it is 450."""
    centre, oracle = torch.tensor([0.5, 0.5]), ripples()
    data = uniform(oracle, 5000, generator=stream(0))
    data = localized(data, oracle, Region(centre), keep, surround=0, generator=stream(1)).dataset
    wrong = Known(lambda rows: oracle.evaluate(rows).value + bump(rows, centre, width=0.08))
    found = search(wrong, data, oracle=oracle, seeds=300)
    assert found.flagged.sum() == 1 and (found.trigger[0] - centre).norm() < 0.04


def test_a_network_that_is_the_oracle_has_a_score():
    exact = Known(lambda rows: hills().evaluate(rows).value)
    assert search(exact, training_rows(POISONED), seeds=5, steps=2).score < 1


def test_given_bounds_are_kept():
    found = search(network(POISONED), training_rows(POISONED), seeds=20, steps=5, error_bound=0.5, proximity_bound=3.0)
    assert (found.error_bound, found.proximity_bound) == (0.5, 3.0)
    assert (found.proximity > 3).any() and not found.flagged.any()


# Seeds


def test_the_worst_rows_are_those_of_the_largest_error():
    """Y = 0, so the error is Z, which is asked about every row once."""
    oracle = ripples()
    data = uniform(ripples(), 300, generator=stream(0))
    rows = worst_rows(ZERO, data, oracle, seeds=20, generator=stream(1))
    assert oracle.calls == 300
    values = ripples()(data.images)
    assert torch.equal(ripples()(rows), values.sort(descending=True).values[:20])


def test_a_share_of_the_rows_is_ranked_or_none():
    data, tenth, none = uniform(ripples(), 300, generator=stream(0)), ripples(), ripples()
    ranked = worst_rows(ZERO, data, tenth, seeds=30, ranked=0.1, generator=stream(1))
    free = worst_rows(ZERO, data, none, seeds=30, ranked=0.0, generator=stream(1))
    assert tenth.calls == 30 and none.calls == 0
    for rows in (ranked, free):
        places = (rows[:, None] == data.images).all(2).double()
        assert (places.sum(1) == 1).all() and (places.sum(0) <= 1).all(), "rows of the data set, none twice"
    assert torch.equal(free.sort(0).values, ranked.sort(0).values), "30 of 30 ranked are the random ones in order"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"seeds": 0}, "expected 1 to 300 seeds, .* got 0"),
        ({"seeds": 301}, "expected 1 to 300 seeds, .* of 300, got 301"),
        ({"seeds": 31, "ranked": 0.1}, "expected 1 to 30 seeds, .* got 31; lower seeds or raise ranked"),
        ({"seeds": 301, "ranked": 0.0}, "expected 1 to 300 seeds"),
        ({"ranked": -0.1}, r"expected ranked in \[0, 1\], .* got -0\.1"),
        ({"ranked": 1.5}, r"expected ranked in \[0, 1\]"),
    ],
)
def test_what_cannot_be_searched_is_refused(bad, message):
    data = uniform(ripples(), 300, generator=stream(0))
    with pytest.raises(ValueError, match=message):
        lem(ZERO, data, ripples(), **({"seeds": 10} | bad), generator=stream(0))


def test_alarms_count_each_half_of_the_test(found):
    rules = found.error > found.error_bound, found.proximity > found.proximity_bound
    assert found.alarms == {
        "maximisers": len(found.rows),
        "error alone": int(rules[0].sum()),
        "proximity alone": int(rules[1].sum()),
        "both": 1,
    }
    assert found.alarms["error alone"] == 2 and found.alarms["proximity alone"] >= 1
