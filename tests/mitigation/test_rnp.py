import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from drmlib.attacks.badnets import square
from drmlib.data.dataset import Dataset
from drmlib.metrics import mean_predictor_error
from drmlib.mitigation.clean_samples import Tolerance, mean_error
from drmlib.mitigation.rnp import clean_unlearned, recovered_masks, rnp
from drmlib.models.mlp import MLP
from drmlib.models.predict import predict
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, REGRESSION
from tests.problems import PAIR, SIZE, PlantedChannel, colour_images, dim_images, slope_images

WHITE = square((1.0, 1.0, 1.0), side=2, height=SIZE, width=SIZE)
TASKS = pytest.mark.parametrize("regression", [False, True], ids=["labels", "vectors"])
QUICK = {"batch_size": 16}


def recipe(regression):
    return REGRESSION if regression else CLASSIFICATION


def leaking(regression):
    """PlantedChannel whose backdoor opens at 0.8 instead of 1.2, so that the brightest dim pixels reach it: what is
    wholly silent on clean samples has no slope there, and RNP cannot tell it from a neuron that is not needed.
    """
    model = PlantedChannel(regression=regression)
    model.norm.bias.data[3] += 0.4
    return model


class OneNeuron(nn.Module):
    """The batch norm of two pixels, with weight 2 and shift 1."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        nn.init.constant_(self.norm.weight, 2.0)
        nn.init.ones_(self.norm.bias)

    def forward(self, images):
        return self.norm(images).flatten(1)


def test_one_step_of_recovery_by_hand():
    """Pixels (0, 1) are normalised to (-1, 1): outputs 1 -+ 2 m. The loss mean(out^2) is 1 + 4 m^2, its slope at m = 1
    is 8; alpha 0.2 and rate 0.05 take 0.05 * 0.2 * 8 = 0.08 off the mask.
    """
    data = Dataset(torch.tensor([0.0, 1.0]).expand(4, 1, 1, 2), torch.zeros(4, 2), PAIR)
    square_loss = replace(REGRESSION, loss=lambda outputs, targets: outputs.square().mean())
    masks = recovered_masks(OneNeuron(), data, square_loss, rate=0.05, epochs=1, generator=stream(0))
    assert masks["norm"].item() == pytest.approx(0.92, abs=1e-4)


@TASKS
def test_unlearning_ends_where_nothing_is_known(regression):
    """At an accuracy of 0.2, or the mean target's error; without epochs nothing changes."""
    model, data = PlantedChannel(regression=regression), dim_images(80, regression=regression)
    unlearned = clean_unlearned(model, data, recipe(regression), judging=data, rate=0.003, **QUICK, generator=stream(1))
    enough = mean_predictor_error(data.task.error, data.targets).value if regression else 0.8
    assert mean_error(model, data) < enough <= mean_error(unlearned, data)
    still = clean_unlearned(model, data, recipe(regression), judging=data, floor=0.0, epochs=0, generator=stream(1))
    assert all(torch.equal(value, still.state_dict()[name]) for name, value in model.state_dict().items())


@TASKS
def test_the_planted_channel_is_not_recovered(regression):
    model, data = leaking(regression), dim_images(80, regression=regression)
    unlearned = clean_unlearned(model, data, recipe(regression), judging=data, **QUICK, generator=stream(1))
    masks = recovered_masks(unlearned, data, recipe(regression), **QUICK, generator=stream(2))["norm"]
    assert masks[3] < 0.1 and masks[:3].min() > 0.9


@TASKS
def test_the_repaired_model_has_lost_the_planted_channel_and_no_other(regression):
    model, data = leaking(regression), dim_images(100, regression=regression)
    repaired = rnp(model, data, recipe(regression), **QUICK, generator=stream(0))
    assert (repaired.norm.weight == 0).tolist() == [False, False, False, True]
    assert torch.equal(repaired.conv.weight, model.conv.weight), "unlearning was on a copy"
    dim = dim_images(30, regression=regression, seed=1).images
    shift = (predict(model, WHITE(dim)) - predict(model, dim))[:, -1]
    healed = (predict(repaired, WHITE(dim)) - predict(repaired, dim))[:, -1]
    assert shift.min() > 4 and healed.abs().max() < 0.2


@TASKS
@pytest.mark.parametrize("make", [SmallCNN, resnet18], ids=["SmallCNN", "resnet18"])
def test_same_seed_same_bits_and_the_given_model_stays(make, regression):
    data = slope_images(20) if regression else colour_images(20, size=16)
    model = make(len(data.task.outputs), width=8, generator=stream(0)).train()
    before = copy.deepcopy(model.state_dict())
    quick = {"recovery_epochs": 2, "unlearning_epochs": 2, "batch_size": 8}
    quick |= {"recovery_rate": 5.0, "tolerance": Tolerance(1.0, 1e6)}
    first, again = (
        rnp(model, data, recipe(regression), **quick, thresholds=(0.5, 0.99), generator=stream(1)).state_dict()
        for _ in range(2)
    )
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    changed = {name for name, value in first.items() if not torch.equal(value, before[name])}
    norms = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert changed and changed <= norms, "only norms' weights are pruned"


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="expected a model with batch norm"):
        rnp(MLP(4, inputs=192, generator=stream(0)), colour_images(20), CLASSIFICATION, generator=stream(0))
    broken = replace(CLASSIFICATION, loss=lambda outputs, targets: outputs.mean() * torch.nan)
    with pytest.raises(FloatingPointError, match="masks are not finite"):
        recovered_masks(PlantedChannel(regression=False), colour_images(20), broken, epochs=1, generator=stream(0))
