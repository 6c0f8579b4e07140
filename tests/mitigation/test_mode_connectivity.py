import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from drmlib.mitigation.clean_samples import Tolerance
from drmlib.mitigation.fine_tune import fine_tune
from drmlib.mitigation.mode_connectivity import Curve, curve, mode_connectivity, renew_statistics
from drmlib.models.predict import predict
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, REGRESSION, fit
from tests.problems import colour_images, slope_images

TASKS = pytest.mark.parametrize("regression", [False, True], ids=["labels", "vectors"])
MODELS = pytest.mark.parametrize("make", [SmallCNN, resnet18], ids=["SmallCNN", "resnet18"])


def problem(make, regression, **changes):
    data = slope_images(40) if regression else colour_images(40, size=16)
    model, other = (make(len(data.task.outputs), width=8, generator=stream(seed, "model")) for seed in (0, 1))
    recipe = replace(REGRESSION if regression else CLASSIFICATION, epochs=2, batch_size=20, **changes)
    return model.eval(), other.eval(), data, recipe


def test_the_curve_by_hand():
    """One weight, from 0 to 8 by way of 10: w(t) = 2 t (1 - t) 10 + 8 t^2, 7 in the middle and 4.25 at a quarter."""
    ends = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    for network, weight in zip(ends, (0.0, 8.0), strict=True):
        nn.init.constant_(network.weight, weight)
    path = Curve(*ends, 3, generator=stream(0))
    assert path.bends.item() == 4.0, "it starts on the straight line"
    path.bends.data.fill_(10.0)
    assert [path.at(t).weight.item() for t in (0.0, 0.25, 0.5, 1.0)] == [0.0, 4.25, 7.0, 8.0]


@TASKS
@MODELS
@pytest.mark.parametrize("frozen_norms", [False, True])
def test_the_ends_are_the_ends(make, regression, frozen_norms):
    """To the bit, statistics of norms included, however much was learned between them; and only there."""
    model, other, data, recipe = problem(make, regression, frozen_norms=frozen_norms)
    for number, norm in enumerate(m for m in other.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean += number
    path = curve(model, data, recipe, end=other, generator=stream(1))
    for position, end in ((0, model), (1, other)):
        found = path.at(position).state_dict()
        assert all(torch.equal(found[name], value) for name, value in end.state_dict().items())
    middle = path.at(0.5).head.weight
    assert not torch.equal(middle, (model.head.weight + other.head.weight) / 2), "the bend learned"


def test_the_path_is_better_than_the_straight_line():
    """Between two networks that learned the same from other starts the middle of the line has a high loss, that of the
    path less than half of it: that is what is learned. Both with statistics of their own.
    """
    model, other, data, recipe = problem(SmallCNN, False)
    recipe = replace(recipe, epochs=10)
    for seed, network in enumerate((model, other)):
        fit(network, data, recipe, generator=stream(seed))
    path = curve(model, data, recipe, end=other, generator=stream(1))
    straight = Curve(model, other, 3, generator=stream(0))
    straight.renewed = data
    losses = [recipe.loss(predict(p.at(0.5), data.images), data.targets).item() for p in (straight, path)]
    assert losses[1] < 0.5 * losses[0]


def test_statistics_are_those_of_the_samples():
    """One norm of the images themselves: its mean and variance are theirs, as in one batch."""
    norm, data = nn.BatchNorm2d(3), colour_images(12)
    renew_statistics(norm, data)
    variance, mean = torch.var_mean(data.images, (0, 2, 3))
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert not norm.training and norm.momentum == 0.1


@TASKS
def test_the_last_tolerable_position_is_taken_and_the_given_model_stays(regression):
    model, _, data, recipe = problem(SmallCNN, regression, frozen_norms=True)
    before = copy.deepcopy(model.state_dict())
    wide = {"tolerance": Tolerance(1.0, 1e6), "positions": (0.3, 1.0)}
    first, again = (mode_connectivity(model, data, recipe, **wide, generator=stream(1)).state_dict() for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], before["head.weight"]), "t = 1 is the fine-tuned copy"
    none = {"tolerance": Tolerance(-1.0, -1.0), "positions": (0.3, 1.0)}
    kept = mode_connectivity(model, data, recipe, **none, generator=stream(1)).state_dict()
    for state in (kept, model.state_dict()):
        assert all(torch.equal(before[name], value) for name, value in state.items())


def test_t_1_is_the_fine_tuned_copy():
    model, _, data, recipe = problem(SmallCNN, False, frozen_norms=True)
    generator = stream(1)
    learning, _ = data.split(32, 8, generator=generator)
    tuned = fine_tune(model, learning, recipe, generator=generator).state_dict()
    wide = {"tolerance": Tolerance(drop=1.0), "positions": (1.0,)}
    repaired = mode_connectivity(model, data, recipe, **wide, generator=stream(1)).state_dict()
    assert all(torch.equal(value, repaired[name]) for name, value in tuned.items())


def test_bad_input_is_refused():
    model, other, data, recipe = problem(SmallCNN, False)
    with pytest.raises(ValueError, match="at least 3 points"):
        curve(model, data, recipe, end=other, points=2, generator=stream(0))
    with pytest.raises(ValueError, match=r"position in \[0, 1\], got 1.5"):
        Curve(model, other, 3, generator=stream(0)).at(1.5)
