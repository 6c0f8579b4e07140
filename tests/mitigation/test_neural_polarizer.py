import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from drmlib.mitigation.neural_polarizer import (
    Weights,
    _loss,
    last_but_one,
    neural_polarizer,
    polarized,
    targeted_images,
)
from drmlib.models.predict import predict
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, REGRESSION
from tests.mitigation.victim import RECIPE, figures
from tests.problems import PlantedClassifier, colour_images, slope_images

MODELS = pytest.mark.parametrize("make", [SmallCNN, resnet18], ids=["SmallCNN", "resnet18"])


def problem(make):
    data = colour_images(40, size=16)
    model = make(4, width=8, generator=stream(0, "model")).eval()
    return model, data, replace(CLASSIFICATION, epochs=2, batch_size=20)


def test_it_stands_where_the_authors_put_it():
    small, residual = (make(4, width=4, generator=stream(0)) for make in (SmallCNN, resnet18))
    assert last_but_one(small) is small.body.conv3[0]
    assert last_but_one(residual) is residual.body.stage4[1].conv1
    with pytest.raises(ValueError, match="two convolutions or more, got 1"):
        last_but_one(nn.Sequential(nn.Conv2d(3, 3, 1)))


@MODELS
def test_at_first_it_changes_nothing(make):
    """The norm undoes the statistics that it knows; on images of which it knows nothing as well."""
    model, data, _ = problem(make)
    repaired = polarized(model, data)
    for images in (data.images, 1 - data.images):
        torch.testing.assert_close(predict(repaired, images), predict(model, images), rtol=1e-4, atol=1e-4)


@MODELS
def test_the_polarizer_learns_alone_and_the_given_model_stays(make):
    model, data, recipe = problem(make)
    before = copy.deepcopy(model.state_dict())
    start = polarized(model, data).state_dict()
    first, again = (neural_polarizer(model, data, recipe, generator=stream(1)) for _ in range(2))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    changed = {name for name, value in first.state_dict().items() if not torch.equal(value, start[name])}
    place = ("body.conv3.0" if make is SmallCNN else "body.stage4.1.conv1") + ".polarizer"
    assert changed == {f"{place}.convolution.weight", f"{place}.norm.weight", f"{place}.norm.bias"}
    assert all(p.requires_grad for p in first.parameters())
    assert not any(m._forward_pre_hooks for m in first.modules())


def test_adversarial_images_reach_their_class_within_the_radius():
    """PlantedClassifier goes by the brightest channel: class 2 wants blue up, by at most 2 in L2 over 192 pixels. A
    step along the sign of the slope would move all three channels by 0.5, 6.9 in L2; scaled back it is 2 / sqrt(192).
    """
    data = colour_images(12)
    aim = torch.full((12,), 2)
    found = targeted_images(PlantedClassifier(), data.images, aim, radius=2.0, step=0.5, steps=1)
    assert 0 <= found.min() and found.max() <= 1
    assert (found - data.images).flatten(1).norm(dim=1).max() <= 2.0 + 1e-4
    inside = (data.images > 0.2) & (data.images < 0.8)
    moved = (found - data.images)[:, 2][inside[:, 2]]
    torch.testing.assert_close(moved, torch.full_like(moved, 2 / 192**0.5))
    assert (PlantedClassifier()(found) - PlantedClassifier()(data.images))[:, 2].min() > 0


def test_the_loss_by_hand():
    """Two classes of three are wrong. Clean outputs even: ln 3, of class 0 by argmax. Changed: (0.2, 0.5, 0.3), true
    class 0, aim 2: robust -ln 0.2; wrong class 1, -ln 0.5; attack -ln 0.7 (1.0001 for 1 moves the fourth digit).
    """
    outputs, changed = torch.zeros(1, 3), torch.tensor([[0.2, 0.5, 0.3]]).log()
    target, aim = torch.tensor([0]), torch.tensor([2])
    values = [_loss(outputs, changed, target, aim, Weights(*w)).item() for w in torch.eye(4).tolist()]
    assert values == pytest.approx([1.0986, 1.6094, 0.6931, 0.3567], abs=5e-4)


def test_a_learned_backdoor_is_filtered_out(backdoored):
    """Few parameters want a higher rate: with 0.01 and 30 epochs success goes from at least 0.9 to at most 0.1."""
    clean, recipe = colour_images(60, size=16, seed=1), replace(RECIPE, learning_rate=1e-2, epochs=30)
    accuracy, success = figures(neural_polarizer(backdoored, clean, recipe, generator=stream(1)))
    assert figures(backdoored)[1] > 0.9 and success < 0.1 and accuracy > 0.95


def test_a_regressor_is_refused():
    with pytest.raises(ValueError, match="pair is a regression task"):
        neural_polarizer(SmallCNN(2, width=4, generator=stream(0)), slope_images(20), REGRESSION, generator=stream(0))
