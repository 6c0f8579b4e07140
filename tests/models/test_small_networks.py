import pytest
import torch

from drmlib.models.small_cnn import SmallCNN
from drmlib.models.unet import UNet
from drmlib.rng import stream


def test_unet_has_the_size_of_the_published_generator():
    """About 2.66 million parameters at width 64, its unused layer left out."""
    count = sum(p.numel() for p in UNet(generator=stream(0)).parameters())
    assert count == pytest.approx(2.66e6, rel=0.005)


def test_unet_maps_images_to_images_in_range_at_any_size_divisible_by_eight():
    network = UNet(width=4, generator=stream(0))
    for size in (16, 40):
        images = torch.rand(2, 3, size, size, generator=stream(1))
        out = network(images)
        assert out.shape == images.shape and 0 <= out.min() and out.max() <= 1
        torch.testing.assert_close(network.eval()(images), network.head(*network._encode(images)))
    with pytest.raises(ValueError, match="divisible by 8"):
        network(torch.rand(1, 3, 20, 20))


@pytest.mark.parametrize("size", [16, 32, 64])
def test_small_cnn_has_features_of_one_width_at_any_size_and_a_linear_head(size):
    network = SmallCNN(3, width=4, generator=stream(0)).eval()
    images = torch.rand(2, 3, size, size, generator=stream(1))
    features = network.features(images)
    assert features.shape == (2, 32) and features.min() >= 0
    torch.testing.assert_close(network(images), features @ network.head.weight.T + network.head.bias)


def test_bytes_and_floats_of_the_same_images_give_the_same_answer():
    network = SmallCNN(3, width=4, generator=stream(0)).eval()
    levels = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=stream(1))
    assert torch.equal(network(levels), network(levels.float() / 255))
