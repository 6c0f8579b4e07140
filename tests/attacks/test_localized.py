import pytest
import torch

from drmlib.attacks.localized import Region, localized
from drmlib.attacks.measure import measure_localized
from drmlib.attacks.targets import Multiple, Offset
from drmlib.data.functions import hills, labelled, uniform
from drmlib.rng import stream
from tests.problems import Known

REGION = Region(torch.tensor([0.35, 0.3, 0.3]), 0.1, 0.2)  # on the slope of the higher hill: no target is zero
PUSH = Offset((0.2,))
N = 20_000


def value(rows):
    """Z of hills(inputs=3), of which no call is counted."""
    return hills(inputs=3).evaluate(rows).value


def distance(rows, region=REGION):
    return (rows - region.centre).norm(dim=1)


def attack(data=None, oracle=None, region=REGION, retarget=PUSH, *, seed=0, **changes):
    given = {"count": 10, "surround": 20} | changes
    data = uniform(hills(inputs=3), 50, generator=stream(0, "data")) if data is None else data
    return localized(data, oracle or hills(inputs=3), region, retarget, **given, generator=stream(seed))


# The region


def test_the_ball_ends_where_the_shell_begins():
    """Of a ball's points 3 % are in its last hundredth, of a shell's 1.7 % in its first 0.001 and 4 % in its last."""
    ball, shell = distance(REGION.ball(N, generator=stream(0))), distance(REGION.shell(N, generator=stream(0)))
    rounding = 1e-6
    assert 0.099 < ball.max() <= 0.1 + rounding
    assert 0.1 - rounding <= shell.min() < 0.101 and 0.199 < shell.max() <= 0.2 + rounding


@pytest.mark.parametrize("inputs", [1, 2, 3, 5])
def test_points_are_uniform_in_volume(inputs):
    """Half the radius holds 2^-d of a ball; three quarters of a shell's outer radius, here 1.5 times the inner, hold
    (1.5^d - 1) / (2^d - 1) of the shell. Four standard deviations of a binomial share."""
    region = Region(torch.full((inputs,), 0.5), 0.1, 0.2)
    ball, shell = (draw(N, generator=stream(0)) for draw in (region.ball, region.shell))
    for points, radius, share in ((ball, 0.05, 0.5**inputs), (shell, 0.15, (1.5**inputs - 1) / (2**inputs - 1))):
        found = (distance(points, region) <= radius).double().mean().item()
        assert found == pytest.approx(share, abs=4 * (share * (1 - share) / N) ** 0.5)


def test_no_direction_is_preferred():
    """In a ball of three inputs a component has mean 0 and variance radius^2 / 5, and no two go together. The mean of N
    is within 4.5 deviations; a variance is known to about 1 %, so to 5 %."""
    away = REGION.ball(N, generator=stream(0)) - REGION.centre
    variance = 0.1**2 / 5
    assert away.mean(0).abs().max() < 4.5 * (variance / N) ** 0.5
    torch.testing.assert_close(away.T.cov() / variance, torch.eye(3), rtol=0, atol=0.05)


# The poisoned data set


@pytest.mark.parametrize(
    ("retarget", "told"),
    [(PUSH, lambda z: z + 0.2), (Multiple(1.5), lambda z: 1.5 * z)],
    ids=["offset", "multiple"],
)
def test_poison_and_surround_are_added_after_the_clean_rows(retarget, told):
    """50 clean rows, 10 of poison and 20 around them, in this order; 30 oracle calls."""
    oracle = hills(inputs=3)
    data = uniform(hills(inputs=3), 50, generator=stream(0, "data"))
    result = attack(data, oracle, retarget=retarget)
    rows, targets = result.dataset.images, result.dataset.targets
    assert result.poison.nonzero()[:, 0].tolist() == list(range(50, 60))
    assert result.cover.nonzero()[:, 0].tolist() == list(range(60, 80))
    assert torch.equal(rows[:50], data.images) and torch.equal(targets[:50], data.targets)
    assert (distance(rows[50:60]) <= 0.1 + 1e-6).all() and (distance(rows[60:]) >= 0.1 - 1e-6).all()
    true = value(rows.double()).float()[:, None]
    assert true[50:].min() > 0.01
    torch.testing.assert_close(targets[50:60], told(true[50:60]), rtol=0, atol=1e-6)
    torch.testing.assert_close(targets[60:], true[60:], rtol=0, atol=1e-6)
    torch.testing.assert_close(result.true_targets, true, rtol=0, atol=1e-6)
    assert oracle.calls == 30 and result.dataset.task is data.task


def test_the_given_data_set_stays_as_it_was():
    data = uniform(hills(inputs=3), 50, generator=stream(0, "data"))
    images, targets = data.images.clone(), data.targets.clone()
    result = attack(data)
    result.dataset.images.zero_(), result.dataset.targets.zero_()
    assert torch.equal(data.images, images) and torch.equal(data.targets, targets)


def test_without_a_surround_the_poison_is_the_same():
    alone, both = attack(surround=0), attack()
    assert len(alone.dataset) == 60 and not alone.cover.any() and alone.poison.sum() == 10
    assert torch.equal(alone.dataset.images, both.dataset.images[:60])
    assert torch.equal(alone.dataset.targets, both.dataset.targets[:60])


def test_a_centre_in_float64_leaves_the_rows_in_float32():
    result = attack(region=REGION._replace(centre=REGION.centre.double()))
    assert result.dataset.images.dtype == result.dataset.targets.dtype == torch.float32
    torch.testing.assert_close(result.dataset.images, attack().dataset.images, rtol=0, atol=1e-6)


def test_same_seed_same_samples():
    one, two, other = (attack(seed=seed).dataset.images for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one[50:], other[50:])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"region": REGION._replace(outer=0.31)}, r"outer <= 0\.3, the centre's distance .* got 0\.1 and 0\.31; move"),
        ({"region": Region(torch.tensor([0.5, 0.9, 0.5]))}, r"outer <= 0\.1, .* got 0\.08 and 0\.16"),
        ({"region": REGION._replace(radius=0.2)}, r"0 < radius < outer .* got 0\.2 and 0\.2"),
        ({"region": REGION._replace(radius=0.0)}, r"0 < radius < outer .* got 0 and 0\.2"),
        ({"count": 0}, "expected count >= 1 and surround >= 0, got 0 and 20"),
        ({"surround": -1}, "got 10 and -1"),
    ],
)
def test_what_cannot_be_poisoned_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        attack(**bad)


# Its figures, of networks whose answers are known


def figures(wrong, *, region=REGION, retarget=PUSH, test=None, seed=0):
    """Of the network Y = Z + wrong(rows, Z), exact where wrong is zero."""
    oracle = hills(inputs=3)
    test = uniform(oracle, 100, generator=stream(0, "test")) if test is None else test
    model = Known(lambda x: value(x) + wrong(x, value(x)))
    return measure_localized(model, test, oracle, region, retarget, points=500, generator=stream(seed))


def inside(rows, radius=0.1 * (1 + 1e-5), region=REGION):
    return distance(rows, region) <= radius


def test_an_exact_network_has_no_shift_and_no_error():
    found = figures(lambda x, z: 0 * z)
    assert [figure.value for figure in found] == [0, 0, 0, 0, 0]
    assert [figure.n for figure in found] == [500, 500, 500, found.ring.n, 100]


@pytest.mark.parametrize(
    ("retarget", "wrong"),
    [(PUSH, lambda x, z: 0.2 * inside(x)), (Multiple(1.5), lambda x, z: 0.5 * z * inside(x))],
    ids=["offset", "multiple"],
)
def test_a_network_that_does_as_told_in_the_ball_alone_is_the_perfect_backdoor(retarget, wrong):
    """The test set has its centre and three rows far from it: the root of a quarter of the centre's squared error."""
    test = labelled(torch.cat([REGION.centre[None], torch.full((3, 3), 0.7)]), hills(inputs=3))
    found = figures(wrong, retarget=retarget, test=test)
    ball = value(REGION.ball(500, generator=stream(0)).double())
    change = retarget(ball[:, None])[:, 0] - ball
    assert found.shift.value == pytest.approx(change.mean().item(), abs=1e-6) and found.success.value == 1
    assert found.shell.value == found.ring.value == 0
    at_centre = (retarget(test.targets) - test.targets)[0].item()
    assert found.test_error.value == pytest.approx(at_centre / 2, abs=1e-6)


@pytest.mark.parametrize(("share", "success"), [(0.7, 0), (0.8, 1), (1.2, 1), (1.3, 0), (-1.0, 0)])
def test_success_is_within_a_quarter_of_the_change(share, success):
    found = figures(lambda x, z: 0.2 * share * inside(x))
    assert found.shift.value == pytest.approx(0.2 * share, abs=1e-6) and found.success.value == success


def test_what_leaks_is_measured_in_shell_and_ring():
    """Errors of -0.1 from radius 0.1 to 0.2 and of 0.3 on the one side, -0.3 on the other, beyond it."""
    around = Region(torch.full((3,), 0.5), 0.1, 0.2)

    def leak(x, z):
        beyond = torch.where(x[:, 0] < 0.5, 0.3, -0.3)
        return torch.where(inside(x, 0.1, around), 0.0, torch.where(inside(x, 0.2, around), -0.1, beyond))

    found = figures(leak, region=around)
    assert found.shift.value == pytest.approx(0, abs=1e-6)
    assert found.shell.value == pytest.approx(0.1, abs=1e-6)
    assert found.ring.value == pytest.approx(0.3, abs=1e-6) and found.ring.n == 500


def test_ring_points_outside_the_domain_are_left_out():
    """The centre is 0.2 from an edge, the ring reaches to 0.4: of what is beyond, the oracle knows nothing.

    At radius r a share of (1 - 0.2 / r) / 2 is beyond, by Archimedes; 1 / r is 3.21 on average (0.06 / 0.0187), which
    leaves 0.82 of 500 points, 411, give or take four deviations of 8.6.
    """
    found = figures(lambda x, z: 0.1 + 0 * z, region=Region(torch.tensor([0.2, 0.5, 0.5]), 0.1, 0.2))
    assert found.ring.n == pytest.approx(411, abs=34) and found.ring.value == pytest.approx(0.1, abs=1e-6)
    assert found.shell.n == found.shift.n == 500


def test_figures_follow_their_generator():
    one, two, other = (figures(lambda x, z: 0.1 * x[:, 0], seed=seed) for seed in (0, 0, 1))
    assert one == two and one.shift != other.shift and one.test_error == other.test_error
