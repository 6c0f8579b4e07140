import pytest
import torch
from torch import nn

from drmlib.models.activations import activations, blocks
from drmlib.models.mlp import MLP
from drmlib.models.mnist_cnn import MnistCNN
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from tests.problems import Flat, noise_images

IMAGES = noise_images(5, size=16)


@pytest.fixture
def model():
    return SmallCNN(3, width=4, generator=stream(0, "weights")).eval()


def test_rows_are_what_the_layers_answer_whatever_the_batch(model):
    with torch.no_grad():
        wanted = model.body.conv2(model.body.conv1(model.body.normalise(IMAGES))), model(IMAGES)
    for batch_size in (2, 5):
        found = activations(model, IMAGES, (model.body.conv2, model.head), batch_size=batch_size)
        torch.testing.assert_close(found[0], wanted[0].flatten(1))
        torch.testing.assert_close(found[1], wanted[1])


def test_pooled_maps_by_hand():
    """A map 0 1 / 2 3 is 0 1 2 3 flattened and 1.5 pooled to one value."""
    layer = nn.Identity()
    image = torch.arange(4.0).reshape(1, 1, 2, 2) / 4
    assert (activations(layer, image, [layer])[0] * 4).tolist() == [[0, 1, 2, 3]]
    assert (activations(layer, image, [layer], pool=1)[0] * 4).tolist() == [[1.5]]


def test_a_layer_that_works_in_place_does_not_overwrite_what_was_collected():
    model = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True), nn.Flatten()).eval()
    shifted = IMAGES - 0.3
    found = activations(model, shifted.clone(), [model[0], model[2]])
    torch.testing.assert_close(found[0], shifted.flatten(1))
    torch.testing.assert_close(found[1], shifted.relu().flatten(1))


def test_hooks_are_gone_afterwards_even_after_an_error(model):
    with pytest.raises(ValueError, match=r"did not"):
        activations(model, IMAGES, [model.head, nn.ReLU()])
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (SmallCNN(3, width=4, generator=stream(0)), 6),
        (MnistCNN(3, channels=3, size=16, generator=stream(0)), 4),
        (MLP(3, inputs=3 * 16 * 16, generator=stream(0)), 3),
        (resnet18(3, width=4, generator=stream(0)), 6),
    ],
)
def test_blocks_end_behind_what_has_no_weights_and_the_last_but_one_are_the_features(network, count):
    ends = blocks(network)
    assert len(ends) == count and ends[-1] is network.head
    network.eval()
    torch.testing.assert_close(activations(network, IMAGES, ends)[-2], network.features(IMAGES).detach())


def test_the_blocks_of_the_mnist_network_by_hand():
    """Convolution, ReLU and pooling; the same and flattening; linear layer and ReLU; head."""
    network = MnistCNN(3, generator=stream(0))
    assert blocks(network) == (network.body.pool1, network.body.flatten, network.body.relu3, network.head)


def test_a_model_without_blocks_is_told_to_name_its_layers():
    with pytest.raises(TypeError, match="layers="):
        blocks(Flat(4, 2, generator=stream(0)))
