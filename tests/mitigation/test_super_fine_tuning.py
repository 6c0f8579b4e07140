import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from drmlib.data.dataset import Dataset
from drmlib.mitigation.super_fine_tuning import super_fine_tuning, triangular
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, REGRESSION
from tests.problems import PAIR, colour_images, slope_images

TASKS = pytest.mark.parametrize("regression", [False, True], ids=["labels", "vectors"])
MODELS = pytest.mark.parametrize("make", [SmallCNN, resnet18], ids=["SmallCNN", "resnet18"])
GENTLE = {"epochs": 2, "first_epochs": 1, "base_rate": 0.01, "first_peak": 0.05, "second_peak": 0.02, "batch_size": 20}


def problem(make, regression):
    data = slope_images(40) if regression else colour_images(40, size=16)
    model = make(len(data.task.outputs), width=8, generator=stream(0, "model")).eval()
    return model, data, REGRESSION if regression else CLASSIFICATION


def test_the_triangle_by_hand():
    """From 1 to 5 and back, two steps each way."""
    assert [triangular(step, 1.0, 5.0, 2) for step in range(7)] == [1, 3, 5, 3, 1, 3, 5]
    assert [triangular(step, 2.0, 2.0, 3) for step in range(5)] == [2] * 5
    with pytest.raises(ValueError, match="half cycle of at least 1"):
        triangular(0, 1.0, 5.0, 0)


def test_the_path_of_one_weight_by_hand():
    """L is the mean output w, so each step takes its rate off the weight. Two epochs of two batches, half a cycle one
    step: rates 0.1, 0.7 with the first peak, then 0.1, 0.4 with the second; 1.3 in all.
    """
    data = Dataset(torch.ones(4, 1), torch.zeros(4, 2), PAIR)
    model = nn.Linear(1, 1, bias=False)
    falling = replace(REGRESSION, loss=lambda outputs, targets: outputs.mean())
    rates = {"base_rate": 0.1, "first_peak": 0.7, "second_peak": 0.4, "half_cycle": 1, "batch_size": 2}
    repaired = super_fine_tuning(model, data, falling, epochs=2, first_epochs=1, **rates, generator=stream(0))
    assert (model.weight - repaired.weight).item() == pytest.approx(1.3, abs=1e-5)


@TASKS
@MODELS
def test_it_learns_and_the_given_model_stays(make, regression):
    model, data, recipe = problem(make, regression)
    before = copy.deepcopy(model.state_dict())
    first, again, other = (
        super_fine_tuning(model, data, recipe, **GENTLE, generator=stream(seed)).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])
    longer = super_fine_tuning(model, data, recipe, **GENTLE | {"epochs": 10}, generator=stream(1))
    losses = [recipe.loss(one(data.images), data.targets).item() for one in (model, longer)]
    assert losses[1] < losses[0]


def test_a_peak_that_is_too_high_is_said():
    model, data, recipe = problem(SmallCNN, False)
    with pytest.raises(FloatingPointError, match=r"epoch \d+; peaks of 1e\+30 and 0.02 are too high"):
        super_fine_tuning(
            model, data, recipe, **GENTLE | {"first_peak": 1e30, "epochs": 9}, half_cycle=1, generator=stream(0)
        )
