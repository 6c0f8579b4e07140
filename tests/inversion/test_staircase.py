import pytest
import torch

from drmlib.inversion.mesa_networks import Generators, StackedLinear, StackedNorm, Statistics
from drmlib.inversion.staircase import slabs, staircase, weights
from drmlib.rng import stream

SMALL = {"width": 32, "noise": 8, "learning_rate": 2e-3, "batch_size": 64}


def bimodal(x):
    """Two bells in [0, 1], the second 0.6 times as high; the first has height 1."""
    return (-(((x - 0.3) / 0.08) ** 2)).exp() + 0.6 * (-(((x - 0.7) / 0.12) ** 2)).exp()


def total_variation(count, **changes):
    """Between the density of `bimodal` and its staircase, on a grid."""
    f = bimodal(torch.linspace(0, 1, 20_001, dtype=torch.float64))
    return 0.5 * (slabs(f, count, **changes) - f / f.sum()).abs().sum().item()


def test_the_staircase_tends_to_the_density_and_equal_weights_do_not():
    """Weights times volumes are the heights of the steps: the mixture is the density cut into slabs. Equal weights give
    the small sets at the top too much, however many there are. The page of the paper asks for 1.5 times."""
    ours = [total_variation(n) for n in (3, 10, 50)]
    equal = [total_variation(n, equal=True) for n in (3, 10, 50)]
    assert ours[0] < 0.25 and ours[1] < 0.08 and ours[2] < 0.02
    assert all(b > 1.5 * a for a, b in zip(ours, equal, strict=True)) and equal[2] > 0.15


def test_weights_are_the_heights_of_the_steps_times_the_volumes():
    """Levels 0.5, 0.8, 0.9 are steps of 0.5, 0.3, 0.1; with volumes 1, 2, 4 in the ratio 5 : 6 : 4."""
    level, volume = torch.tensor([0.9, 0.5, 0.8]), torch.tensor([4.0, 1.0, 2.0])
    torch.testing.assert_close(weights(level, volume.log()), torch.tensor([4.0, 5.0, 6.0]) / 15)


def test_a_stacked_layer_is_the_layers_one_by_one():
    layer, norm = StackedLinear(3, 4, 5, generator=stream(0)), StackedNorm(3, 5)
    x = torch.randn(3, 7, 4, generator=stream(1))
    alone = torch.stack([x[k] @ layer.weight[k] + layer.bias[k, 0] for k in range(3)])
    torch.testing.assert_close(layer(x), alone)
    torch.testing.assert_close(norm(alone), torch.stack([torch.nn.BatchNorm1d(5)(part) for part in alone]))


def test_sub_models_do_not_touch_one_another():
    makers, critics = (
        Generators(2, 3, noise=8, width=16, generator=stream(0)),
        Statistics(2, 3, noise=8, width=16, generator=stream(1)),
    )
    noise = torch.rand(2, 32, 8, generator=stream(2))
    points = makers(noise)
    critics(noise, points)[0].sum().backward()
    for parameter in [*makers.parameters(), *critics.parameters()]:
        halves = parameter.grad.view(2, -1)
        assert halves[1].abs().sum() == 0
    assert makers.layers[0].weight.grad[0].abs().sum() > 0
    assert ((points > 0) & (points < 1)).all()


@pytest.fixture(scope="module")
def corner():
    """F is 1 deep in the corner x0, x1 > 0.5 of the square and falls off smoothly: a set of a quarter of the volume.

    Without entropy the points are a spot after a few hundred steps; to spread takes a thousand.
    """

    def testing(points):
        return (10 * (points - 0.5)).sigmoid().prod(2)

    level = torch.tensor([0.9, 0.5])
    return {
        a: staircase(testing, 2, level, alpha=a, steps=steps, generator=stream(0), **SMALL)
        for a, steps in ((0.5, 1000), (0.0, 300))
    }


def test_the_points_reach_their_level_and_do_not_go_further(corner):
    """The hinge is satisfied at the level; entropy pushes back, so that the lower level stays lower."""
    found = corner[0.5]
    assert found.reached[0] > 0.7 and 0.45 < found.reached[1] < found.reached[0]
    assert found.history.shape == (1000, 2) and found.history[:20].mean() < found.history[-20:].mean()
    torch.testing.assert_close(found.weight.sum(), torch.tensor(1.0))


def test_entropy_keeps_the_points_apart(corner):
    """The uniform law on a square of side 0.5 has a deviation of 0.14; without entropy the points shrink to a spot."""
    noise = torch.rand(2, 500, 8, generator=stream(3))
    spread = {a: f.generators(noise).std(1).mean().item() for a, f in corner.items()}
    assert spread[0.5] > 0.12 and spread[0.0] < spread[0.5] / 2


def test_the_same_seed_gives_the_same_points():
    runs = [
        staircase(lambda x: x.mean(2), 2, torch.tensor([0.5]), steps=3, generator=stream(seed), **SMALL)
        for seed in (0, 0, 1)
    ]
    first, again, other = (run.generators.layers[0].weight for run in runs)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_levels_and_noise_are_checked():
    with pytest.raises(ValueError, match=r"levels in \(0, 1\]"):
        staircase(lambda x: x.mean(2), 2, torch.tensor([0.5, 1.5]), generator=stream(0))
    with pytest.raises(ValueError, match="4 divides"):
        Generators(1, 2, noise=10, generator=stream(0))
