import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from drmlib.attacks.badnets import square
from drmlib.data.dataset import Dataset
from drmlib.mitigation.anp import anp, neuron_masks
from drmlib.mitigation.clean_samples import Tolerance
from drmlib.models.mlp import MLP
from drmlib.models.predict import predict
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, REGRESSION
from tests.problems import PAIR, SIZE, PlantedChannel, colour_images, dim_images, slope_images

WHITE = square((1.0, 1.0, 1.0), side=2, height=SIZE, width=SIZE)
TASKS = pytest.mark.parametrize("regression", [False, True], ids=["labels", "vectors"])
QUICK = {"iterations": 60, "batch_size": 32}


def recipe(regression):
    return REGRESSION if regression else CLASSIFICATION


class OneNeuron(nn.Module):
    """The batch norm of two pixels, with weight 1 and shift 1; its running statistics are far from those of a batch."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        nn.init.ones_(self.norm.bias)
        nn.init.constant_(self.norm.running_mean, 0.2)

    def forward(self, images):
        return self.norm(images).flatten(1)


@pytest.mark.parametrize("alpha, low, high", [(1.0, 0.7, 0.7), (0.0, 0.412, 0.7), (0.2, 0.4696, 0.7)])
def test_one_step_by_hand(alpha, low, high):
    """Pixels (0, 1) are normalised to z = (-1, 1). With out = u z + c the loss mean(out^3) is 3 u^2 c + c^3, and its
    slope in u is 6 u c. Without perturbation u = m = 1 and c = 1: slope 6. The loss rises in u = m + delta and in
    c = 1 + xi, so a step of 0.4 up from anywhere in [-0.4, 0.4] ends in [0, 0.4], for half of the starts at 0.4: slope
    6 (1 + delta) (1 + xi), from 6 to 6 * 1.4^2 = 11.76. With rate 0.05 the mask goes from 1 to 1 - 0.05 slope: alpha 1
    gives 0.7; alpha 0 gives 0.412 to 0.7; alpha 0.2 gives 1 - 0.05 (0.2 * 6 + 0.8 * 11.76) = 0.4696 to 0.7.
    """
    data = Dataset(torch.tensor([0.0, 1.0]).expand(4, 1, 1, 2), torch.zeros(4, 2), PAIR)
    cubic = replace(REGRESSION, loss=lambda outputs, targets: outputs.pow(3).mean())
    found = torch.cat(
        [
            neuron_masks(
                OneNeuron(), data, cubic, alpha=alpha, learning_rate=0.05, iterations=1, generator=stream(seed)
            )["norm"]
            for seed in range(30)
        ]
    )
    assert found.min() == pytest.approx(low, abs=1e-3) and found.max() <= high + 1e-3
    assert (alpha == 1.0) == (found.std() < 1e-6)


@TASKS
def test_the_planted_channel_has_the_smallest_mask(regression):
    """Perturbed by 0.4, channel 3 fires on clean images and its large weight ruins the last output; the colours do
    nothing of the kind, and without them the clean loss is high. Only the first mask has a reason to fall.
    """
    model, data = PlantedChannel(regression=regression), dim_images(60, regression=regression)
    masks = neuron_masks(model, data, recipe(regression), **QUICK, generator=stream(0))["norm"]
    assert masks[3] < 0.6 and masks[:3].min() > 0.9


@TASKS
def test_the_repaired_model_has_lost_the_planted_channel_and_no_other(regression):
    model, data = PlantedChannel(regression=regression), dim_images(75, regression=regression)
    repaired = anp(model, data, recipe(regression), **QUICK, generator=stream(0))
    assert (repaired.norm.weight == 0).tolist() == [False, False, False, True]
    assert torch.equal(repaired.norm.bias, model.norm.bias), "pruning leaves the shift"
    dim = dim_images(30, regression=regression, seed=1).images
    torch.testing.assert_close(predict(repaired, dim), predict(model, dim))
    shift = (predict(model, WHITE(dim)) - predict(model, dim))[:, -1]
    healed = (predict(repaired, WHITE(dim)) - predict(repaired, dim))[:, -1]
    assert shift.min() > 2 and healed.abs().max() < 0.2


@TASKS
@pytest.mark.parametrize("make", [SmallCNN, resnet18], ids=["SmallCNN", "resnet18"])
def test_every_norm_has_masks_and_the_given_model_stays(make, regression):
    data = slope_images(20) if regression else colour_images(20, size=16)
    model = make(len(data.task.outputs), width=8, generator=stream(0)).train()
    before = copy.deepcopy(model.state_dict())
    quick = {"iterations": 3, "batch_size": 8}
    masks = neuron_masks(model, data, recipe(regression), **quick, generator=stream(0))
    norms = {name: len(m.weight) for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert {name: len(mask) for name, mask in masks.items()} == norms
    flat = torch.cat(list(masks.values()))
    assert flat.min() >= 0 and flat.max() <= 1 and flat.std() > 0
    wide = Tolerance(drop=1.0, growth=1e6)
    repaired = anp(model, data, recipe(regression), **quick, thresholds=(1.0,), tolerance=wide, generator=stream(0))
    assert all((m.weight == 0).all() for m in repaired.modules() if isinstance(m, nn.BatchNorm2d))
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    running = {name: value for name, value in repaired.state_dict().items() if "running" in name}
    assert all(torch.equal(before[name], value) for name, value in running.items())


@TASKS
def test_same_seed_same_bits(regression):
    model, data = PlantedChannel(regression=regression), dim_images(30, regression=regression)
    first, again, other = (
        neuron_masks(model, data, recipe(regression), iterations=3, batch_size=8, generator=stream(seed))["norm"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_model_without_norms_is_refused():
    with pytest.raises(ValueError, match="expected a model with batch norm"):
        anp(MLP(4, inputs=192, generator=stream(0)), colour_images(20), CLASSIFICATION, generator=stream(0))


@pytest.mark.parametrize("wrong", [{"alpha": 1.5}, {"alpha": -0.1}, {"epsilon": -0.4}])
def test_what_is_no_share_or_budget_is_refused(wrong):
    with pytest.raises(ValueError, match=r"alpha in \[0, 1\] and epsilon"):
        anp(PlantedChannel(regression=False), colour_images(20), CLASSIFICATION, **wrong, generator=stream(0))


def test_a_loss_that_is_not_finite_is_refused():
    broken = replace(CLASSIFICATION, loss=lambda outputs, targets: outputs.mean() * torch.nan)
    with pytest.raises(FloatingPointError, match="masks are not finite"):
        anp(PlantedChannel(regression=False), colour_images(20), broken, iterations=2, generator=stream(0))
