import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from drmlib.mitigation.fine_tune import fine_tune
from drmlib.mitigation.ft_sam import ft_sam, loss_at_the_worst
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, REGRESSION
from tests.problems import colour_images, slope_images

TASKS = pytest.mark.parametrize("regression", [False, True], ids=["labels", "vectors"])
MODELS = pytest.mark.parametrize("make", [SmallCNN, resnet18], ids=["SmallCNN", "resnet18"])


def problem(make, regression, **changes):
    data = slope_images(40) if regression else colour_images(40, size=16)
    model = make(len(data.task.outputs), width=8, generator=stream(0, "model")).eval()
    return model, data, replace(REGRESSION if regression else CLASSIFICATION, epochs=2, batch_size=20, **changes)


def test_one_weight_by_hand():
    """L = (w x)^2 with w = 3, x = 1: g = 6 and T g = |w| g = 18 = its own norm, so e = rho |w| = 1.5 with rho 0.5. At
    4.5 the loss is 20.25 and its slope 9. With w = -3 all is mirrored: the loss grows away from zero.
    """
    for sign in (1.0, -1.0):
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, 3.0 * sign)
        x = torch.ones(1, 1)
        loss = loss_at_the_worst(model, x, model(x), x, lambda outputs, _: outputs.square().sum(), rho=0.5)
        loss.backward()
        assert loss.item() == pytest.approx(20.25) and model.weight.grad.item() == pytest.approx(9.0 * sign)


def test_large_weights_are_moved_further():
    """L = w_1 x_1 + w_2 x_2 at w = (1, 3), x = (1, 1): g = (1, 1), T g = (1, 3) of norm sqrt(10), e = rho (1, 9) /
    sqrt(10): of the loss 4 it makes 4 + 10 rho / sqrt(10) = 4 + sqrt(10) with rho 1.
    """
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 3.0]])
    x = torch.ones(1, 2)
    loss = loss_at_the_worst(model, x, model(x), x, lambda outputs, _: outputs.sum(), rho=1.0)
    assert loss.item() == pytest.approx(4 + 10**0.5)


@TASKS
@MODELS
@pytest.mark.parametrize("frozen_norms", [False, True])
def test_without_rho_it_is_fine_tuning(make, regression, frozen_norms):
    """Statistics of norms included, which take no note of the second look."""
    model, data, recipe = problem(make, regression, frozen_norms=frozen_norms)
    repaired = ft_sam(model, data, recipe, rho=0.0, generator=stream(1)).state_dict()
    tuned = fine_tune(model, data, recipe, generator=stream(1)).state_dict()
    for name, value in tuned.items():
        torch.testing.assert_close(repaired[name], value, rtol=1e-4, atol=1e-5)


@TASKS
def test_the_minimum_is_flatter_than_fine_tuning_s(regression):
    """The loss grows by less when weights are moved to the worst by rho 0.5: that is what was learned."""
    model, data, recipe = problem(SmallCNN, regression, frozen_norms=True)
    recipe = replace(recipe, epochs=24, learning_rate=recipe.learning_rate / 2)
    growth = []
    for repaired in (
        ft_sam(model, data, recipe, rho=0.5, generator=stream(1)),
        fine_tune(model, data, recipe, generator=stream(1)),
    ):
        outputs = repaired(data.images)
        worst = loss_at_the_worst(repaired, data.images, outputs, data.targets, recipe.loss, rho=0.5)
        growth.append((worst - recipe.loss(outputs, data.targets)).item())
    assert 0 < growth[0] < 0.9 * growth[1]


@TASKS
def test_the_given_model_stays_and_the_copy_has_no_hooks(regression):
    model, data, recipe = problem(SmallCNN, regression)
    before = copy.deepcopy(model.state_dict())
    first, again = (ft_sam(model, data, recipe, rho=0.5, generator=stream(2)) for _ in range(2))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    assert not torch.equal(first.head.weight, model.head.weight)
    for watched in (model, first):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in watched.modules())


def test_negative_rho_is_refused():
    model, data, recipe = problem(SmallCNN, False)
    with pytest.raises(ValueError, match="expected rho of at least 0, got -1"):
        ft_sam(model, data, recipe, rho=-1, generator=stream(0))
