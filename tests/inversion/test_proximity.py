import pytest
import torch

from drmlib.attacks.localized import Region
from drmlib.inversion import proximity
from drmlib.inversion.proximity import RelativeDensity, Within
from drmlib.rng import stream


def uniform_rows(n, d, *, low=0.0, high=1.0, seed=0):
    return low + (high - low) * torch.rand(n, d, generator=stream(seed, "rows"))


def test_rows_within_a_radius_by_hand():
    """From (0, 0): 0, 0.25 (on the circle, which counts), 0.375, and 0.3125 by 3-4-5. Binary fractions are exact."""
    rows = torch.tensor([[0.0, 0.0], [0.25, 0.0], [0.0, 0.375], [0.1875, 0.25]])
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    counts = [Within(radius)(points, rows).tolist() for radius in (0.125, 0.25, 0.3125, 0.375, 2.0)]
    assert counts == [[1, 0], [2, 0], [3, 0], [4, 0], [4, 4]]


@pytest.mark.parametrize("statistic", [Within(), RelativeDensity()])
def test_points_taken_in_parts_have_the_same_proximity(statistic, monkeypatch):
    points, rows = uniform_rows(50, 2, seed=1), uniform_rows(300, 2)
    whole = statistic(points, rows)
    monkeypatch.setattr(proximity, "CHUNK_DISTANCES", 7 * 300)
    assert whole.shape == (50,) and torch.equal(statistic(points, rows), whole)
    monkeypatch.setattr(proximity, "CHUNK_DISTANCES", 1)
    assert torch.equal(statistic(points, rows), whole)


@pytest.mark.parametrize("inputs", [1, 2, 5])
def test_the_density_of_uniform_rows_is_about_one(inputs):
    """A ball of 20 rows has a volume within a factor of 1 +- 1 / sqrt(20) of its mean; the median is near 1. In five
    inputs its radius is 0.18, so points 0.25 from the edge have it inside."""
    points = uniform_rows(500, inputs, low=0.25, high=0.75, seed=1)
    density = RelativeDensity()(points, uniform_rows(20_000, inputs))
    assert 0.8 < density.median() < 1.25
    assert 0.15 < density.log().std() < 0.3


def test_the_density_is_too_low_in_a_corner():
    """Three quarters of a ball there is outside the domain, where no row is."""
    points = uniform_rows(200, 2, high=0.01, seed=1)
    assert 0.15 < RelativeDensity()(points, uniform_rows(20_000, 2)).median() < 0.45


def clumped(n, *, share=0.1, seed=0):
    """n rows, of which a share is in a disc of radius 0.05 and area 0.00785; and 500 points in its inner part."""
    region = Region(torch.tensor([0.5, 0.5]), 0.05, 0.1)
    clump = region.ball(round(share * n), generator=stream(seed, "clump"))
    points = region.ring(500, 0.0, 0.03, generator=stream(seed, "points"))
    return points, torch.cat([uniform_rows(n - len(clump), 2, seed=seed), clump])


def test_a_clump_is_denser_by_its_share_over_its_area():
    """0.9 + 0.1 / 0.00785 = 13.6; the median of 500 points, in discs of 20 rows, is within 15 % of it."""
    points, rows = clumped(20_000)
    assert RelativeDensity()(points, rows).median().item() == pytest.approx(13.6, rel=0.15)


def test_the_density_does_not_depend_on_how_many_rows_there_are():
    """Twice as many rows, the same share in the clump: counts double, densities stay."""
    (points, few), (_, many) = clumped(10_000), clumped(20_000, seed=1)
    density, count = (
        [statistic(points, rows).median().item() for rows in (few, many)] for statistic in (RelativeDensity(), Within())
    )
    assert density[1] == pytest.approx(density[0], rel=0.15) and count[1] == pytest.approx(2 * count[0], rel=0.05)


def test_rows_given_twice_are_as_dense_to_twice_as_many_neighbours():
    points, rows = uniform_rows(50, 3, seed=1), uniform_rows(400, 3)
    torch.testing.assert_close(
        RelativeDensity(neighbours=40)(points, rows.repeat(2, 1)), RelativeDensity()(points, rows)
    )


def test_many_rows_at_one_place_have_a_finite_density():
    points = torch.full((1, 2), 0.5)
    density = RelativeDensity()(points, points.repeat(30, 1))
    assert density.isfinite().all() and density > 1e6


def test_fewer_rows_than_neighbours_are_refused():
    with pytest.raises(ValueError, match="expected at least 20 training rows, got 19; lower neighbours"):
        RelativeDensity()(uniform_rows(3, 2), uniform_rows(19, 2))
    assert RelativeDensity()(uniform_rows(3, 2), uniform_rows(20, 2)).shape == (3,)
