import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from drmlib.attacks.badnets import square
from drmlib.mitigation.clean_samples import Tolerance
from drmlib.mitigation.fine_pruning import _prefix_errors, fine_pruning, last_maps
from drmlib.models.mlp import MLP
from drmlib.models.predict import predict
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, REGRESSION
from tests.problems import SIZE, PlantedChannel, colour_images, dim_images, slope_images

WHITE = square((1.0, 1.0, 1.0), side=2, height=SIZE, width=SIZE)
TASKS = pytest.mark.parametrize("regression", [False, True], ids=["labels", "vectors"])


def recipe(regression, **changes):
    return replace(REGRESSION if regression else CLASSIFICATION, epochs=2, batch_size=16, **changes)


def pruned_from(regression, **tuned):
    model, data = PlantedChannel(regression=regression), dim_images(90, regression=regression)
    still = recipe(regression, learning_rate=1e-12, frozen_norms=True)  # shows what pruning alone does
    return model, fine_pruning(model, data, still, generator=stream(0), **tuned)


@TASKS
def test_the_planted_channel_is_pruned_and_no_other(regression):
    """Channel 3 is silent on dim images, so it comes first and costs nothing. The next one is a colour: without it a
    third of the labels are wrong, 0.33 > 0.04, and both components of a vector that hold it miss some 0.15 to 0.25,
    which is more than ten times the noise of 0.01.
    """
    model, repaired = pruned_from(regression)
    assert repaired.pool.kept.tolist() == [True, True, True, False]
    dim = dim_images(30, regression=regression, seed=1).images
    torch.testing.assert_close(predict(repaired, dim), predict(model, dim))
    shift = (predict(model, WHITE(dim)) - predict(model, dim))[:, -1]
    healed = (predict(repaired, WHITE(dim)) - predict(repaired, dim))[:, -1]
    assert shift.min() > 4 and healed.abs().max() < 0.2


@TASKS
def test_the_tolerance_decides_how_many(regression):
    """By activation the order is 3, then colours. A tolerance of everything leaves the one channel that always stays;
    one that asks for less error than before stops at once, before even channel 3.
    """
    everything = pruned_from(regression, tolerance=Tolerance(drop=1.0, growth=1e6))[1]
    nothing = pruned_from(regression, tolerance=Tolerance(drop=-0.1, growth=-0.1))[1]
    assert everything.pool.kept.sum() == 1 and nothing.pool.kept.all()


@TASKS
@pytest.mark.parametrize("make", [SmallCNN, resnet18], ids=["SmallCNN", "resnet18"])
def test_pruned_channels_stay_zero_through_fine_tuning(make, regression):
    """Batch norm with a shift and, in ResNet-18, a shortcut stand behind the last convolution: neither may bring a
    channel back, nor may training, norms included, at a high rate.
    """
    data = slope_images(40) if regression else colour_images(40, size=16)
    # Not narrower: on one thread torch 2.13's backward of a ResNet of 2, 4 or 6 channels corrupts the heap (AMD EPYC).
    model = make(len(data.task.outputs), width=8, generator=stream(0))
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.bias += 0.5
    before = copy.deepcopy(model.state_dict())
    wide = Tolerance(drop=1.0, growth=0.5)
    trained = fine_pruning(model, data, recipe(regression, learning_rate=0.03), tolerance=wide, generator=stream(1))
    maps = []
    trained.body.pool.register_forward_hook(lambda module, args, output: maps.append(output))
    predict(trained, 1 - data.images)
    kept = trained.body.pool.kept
    assert 0 < kept.sum() < len(kept)
    assert (maps[0][:, ~kept] == 0).all() and (maps[0][:, kept] != 0).any()
    assert not torch.equal(trained.head.weight, model.head.weight)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_all_prefixes_at_once_are_the_prefixes_one_by_one():
    """The model with its first k channels masked by hand has the error that the one pass gives for k."""
    data = slope_images(7)
    model = SmallCNN(2, width=2, generator=stream(0)).eval()
    order = torch.randperm(8, generator=stream(1))
    errors = _prefix_errors(model, model.body.pool, order, data, 3)
    for count in range(8):
        masked = copy.deepcopy(model)
        with torch.no_grad():
            weight = masked.body.linear.weight.view(-1, 8, 16)  # the layer behind the maps: no input from a channel
            weight[:, order[:count]] = 0
        expected = data.task.error(predict(masked, data.images), data.targets).mean()
        torch.testing.assert_close(errors[count], expected)


@TASKS
def test_same_seed_same_bits(regression):
    first, again = (pruned_from(regression)[1].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_last_maps_are_those_that_the_dense_layers_take():
    images = colour_images(2, size=16).images
    for make in (SmallCNN, resnet18):
        model = make(4, width=4, generator=stream(0))
        assert last_maps(model, images) is model.body.pool
    plain = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 14 * 14, 4))
    assert last_maps(plain, images) is plain[1]


def test_a_layer_may_be_chosen():
    """A tolerance of everything leaves one channel of the layer that was asked for."""
    data = colour_images(20, size=16)
    model = SmallCNN(4, width=2, generator=stream(0))
    repaired = fine_pruning(
        model,
        data,
        recipe(False),
        layer=lambda model, images: model.body.conv2,
        tolerance=Tolerance(drop=1.0),
        generator=stream(0),
    )
    assert repaired.body.conv2.kept.sum() == 1 and len(repaired.body.conv2.kept) == 4


def test_a_layer_without_maps_is_refused():
    data = colour_images(20, size=16)
    model = SmallCNN(4, width=2, generator=stream(0))
    with pytest.raises(ValueError, match=r"expected a layer that .* returns maps \(n, c, h, w\), got Linear"):
        fine_pruning(model, data, recipe(False), layer=lambda model, images: model.head, generator=stream(0))
    with pytest.raises(ValueError, match="expected a model with an nn.Conv2d"):
        fine_pruning(MLP(4, inputs=768, generator=stream(0)), data, recipe(False), generator=stream(0))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.relu = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.ReLU()

    def forward(self, images):
        return self.relu(self.conv2(self.relu(self.conv1(images)))).mean((2, 3))


def test_a_shared_module_is_refused():
    """Pruning behind a ReLU that both convolutions use would prune both."""
    with pytest.raises(ValueError, match="ReLU that runs 2 times; say which"):
        fine_pruning(Twice(), colour_images(20), recipe(False), generator=stream(0))
