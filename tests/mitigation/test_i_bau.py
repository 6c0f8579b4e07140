import copy

import pytest
import torch
from torch import nn

from drmlib.data.dataset import Dataset
from drmlib.mitigation.i_bau import Losses, hypergradient, i_bau, universal_perturbation
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, REGRESSION
from tests.mitigation.victim import RECIPE, figures
from tests.problems import COLOURS, PAIR, Flat, PlantedChannel, colour_images, dim_images, slope_images

TASKS = pytest.mark.parametrize("regression", [False, True], ids=["labels", "vectors"])
MODELS = pytest.mark.parametrize("make", [SmallCNN, resnet18], ids=["SmallCNN", "resnet18"])
A = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
B = torch.tensor([[1.0, -1.0, 2.0], [0.0, 3.0, 1.0]], dtype=torch.float64)
C = torch.tensor([0.3, -0.2], dtype=torch.float64)
THETA = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


def inner(d, parameters):
    return d @ A @ d / 2 - d @ B @ parameters[0]


def outer(d, parameters):
    return (d - C).square().sum() / 2 + parameters[0].square().sum() / 2


def test_the_hypergradient_of_a_quadratic():
    """inner = d A d / 2 - d B theta is least at d* = A^-1 B theta, so dd*/dtheta = A^-1 B, and the slope of
    |d* - c|^2 / 2 + |theta|^2 / 2 is theta + B^T A^-1 (d* - c).
    """
    best = torch.linalg.solve(A, B @ THETA)
    expected = THETA + B.T @ torch.linalg.solve(A, best - C)
    theta = THETA.clone().requires_grad_()
    (found,) = hypergradient(inner, outer, best, [theta], rate=0.4, steps=200)
    torch.testing.assert_close(found, expected)
    assert theta.grad is None


def test_a_few_steps_are_the_partial_sum():
    """v_2 = (I - rate A) g + g with g = d - c; the result is theta + rate B^T v_2. Without steps theta is left."""
    d = torch.tensor([1.0, 2.0], dtype=torch.float64)
    theta, g = THETA.clone().requires_grad_(), d - C
    (two,) = hypergradient(inner, outer, d, [theta], rate=0.1, steps=2)
    torch.testing.assert_close(two, THETA + 0.1 * B.T @ (2 * g - 0.1 * A @ g))
    (none,) = hypergradient(inner, outer, d, [theta], rate=0.1, steps=0)
    torch.testing.assert_close(none, THETA)


def perturbation(model, data, **changed):
    recipe = REGRESSION if data.task.is_regression else CLASSIFICATION
    losses = Losses(model, tuple(n for n, _ in model.named_parameters()), recipe.loss, 0.016)
    settings = {"radius": 2.5, "rate": 0.625} | changed
    order = [torch.arange(len(data))] * 20
    return universal_perturbation(model.eval(), data, order, losses, **settings, generator=stream(0))


def test_one_step_of_the_search_by_hand():
    """Two pixels, two outputs f = x, one image (0, 1) and d = 0. The answer is class 1, of probability p =
    e / (1 + e) = 0.7311: the slope of its cross-entropy in x is (1 - p, p - 1), times rate 2 (0.5379, -0.5379).
    """
    model, losses = nn.Flatten(), Losses(nn.Flatten(), (), CLASSIFICATION.loss, 0.5)
    image, order = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2), [torch.tensor([0])]
    labelled, vector = Dataset(image, torch.tensor([0]), COLOURS), Dataset(image, torch.zeros(1, 2), PAIR)
    run = {"rate": 2.0, "generator": stream(0)}
    d = universal_perturbation(model, labelled, order, losses, radius=9.0, **run)
    torch.testing.assert_close(d.flatten(), torch.tensor([0.5379, -0.5379]), rtol=0, atol=1e-4)
    short = universal_perturbation(model, labelled, order, losses, radius=0.1, **run)
    torch.testing.assert_close(short, d * 0.1 / d.norm())
    flat = Losses(nn.Flatten(), (), REGRESSION.loss, 0.0)
    moved = universal_perturbation(model, vector, order, flat, radius=9.0, **run)
    assert moved.abs().min() > 0.9, "each pixel's slope is 1/2, from a start that is not flat"


def test_only_the_chosen_images_carry_the_perturbation_while_theta_learns():
    """L the mean output of the pixels themselves: two black images, d = (0.5, 0.5) on the second, 0.25. In the search
    all carry it: 0.1 |d|^2 - 0.5 = -0.45.
    """
    data = Dataset(torch.zeros(2, 1, 1, 2), torch.zeros(2, 2), PAIR)
    losses = Losses(nn.Flatten(), (), lambda outputs, targets: outputs.mean(), 0.1)
    d = torch.full((1, 1, 1, 2), 0.5)
    assert losses.of_learning(data, torch.tensor([False, True]))(d, []).item() == pytest.approx(0.25)
    assert losses.of_search(data)(d, []).item() == pytest.approx(-0.45)


def test_the_search_finds_the_planted_trigger():
    """White opens the planted channel: d is brighter in all colours, and with it the last class wins by far."""
    model, data = PlantedChannel(regression=False), dim_images(60, regression=False)
    d = perturbation(model, data, radius=6.0, rate=10.0)
    assert d.norm() <= 6.0 + 1e-4
    assert (model(data.images + d) - model(data.images))[:, -1].mean() > 2


def test_a_regressor_s_answers_are_moved_further_than_at_random():
    """Of a linear regressor of 192 pixels noise of norm 2 moves an answer by 2 |w| / sqrt(192), the search by nearly
    2 |w|: three times as far with room to spare, though two answers want two directions.
    """
    model, data = Flat(192, 2, generator=stream(0)), dim_images(60, regression=True)
    d = perturbation(model, data, radius=2.0, rate=10.0)
    noise = torch.randn(d.shape, generator=stream(1))
    moved = [(model(data.images + x) - model(data.images)).abs().mean() for x in (d, noise * 2 / noise.norm())]
    assert d.norm() <= 2.0 + 1e-4 and moved[0] > 3 * moved[1]


@TASKS
@MODELS
def test_it_learns_the_same_twice_and_the_given_model_stays(make, regression):
    data = slope_images(40) if regression else colour_images(40, size=16)
    model = make(len(data.task.outputs), width=8, generator=stream(0, "model")).train()
    recipe, before = REGRESSION if regression else CLASSIFICATION, copy.deepcopy(model.state_dict())
    first, again, other = (
        i_bau(model, data, recipe, rounds=1, batch_size=20, generator=stream(seed)).state_dict() for seed in (0, 0, 1)
    )
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert all(torch.equal(value, first[name]) for name, value in before.items() if "running" in name)


def test_a_learned_backdoor_is_unlearned(backdoored):
    """At twice the default rate, since 60 samples make few steps: success from at least 0.9 to at most 0.1."""
    clean = colour_images(60, size=16, seed=1)
    run = {"rounds": 5, "searches": 5, "share": 0.5, "batch_size": 20, "learning_rate": 1e-3}
    accuracy, success = figures(i_bau(backdoored, clean, RECIPE, **run, generator=stream(1)))
    assert figures(backdoored)[1] > 0.9 and success < 0.1 and accuracy > 0.95


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_of_none_is_refused(share):
    model = SmallCNN(4, width=4, generator=stream(0))
    with pytest.raises(ValueError, match=r"share in \(0, 1\]"):
        i_bau(model, colour_images(20, size=16), RECIPE, share=share, generator=stream(0))
