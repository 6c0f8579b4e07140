"""ResNet-18: parameter counts worked by hand, and the outputs of torchvision's net with the same weights."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from drmlib.data.torchvision_compat import load_torchvision
from drmlib.models.resnet import resnet18
from drmlib.rng import stream


def net(seed: int = 0, **options) -> nn.Module:
    return resnet18(10, generator=stream(seed, "model"), **options).eval()


def images(n: int = 2, channels: int = 3, size: int = 32) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=stream(0, "images"))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameter_count():
    """Stem 27 * 64, head 5130; stage 1 has four 3x3 layers of 64 to 64 channels.

    A later stage of width b has one from b / 2 and three from b channels, and a shortcut of b^2 / 2. A norm has two
    numbers a channel; the first stage and the stem have 5 norms, a later stage has 5.
    """
    stages = 4 * 9 * 64**2 + sum(9 * b * b * 7 // 2 + b * b // 2 for b in (128, 256, 512))
    norms = 2 * (64 * 5 + 5 * (128 + 256 + 512))
    assert count(net()) == 27 * 64 + stages + norms + 5130 == 11_173_962


def test_parameter_count_of_the_stem_of_the_paper():
    """The 7x7 stem has 64 * 3 * (49 - 9) weights more; torchvision documents 11,689,512 with 1000 outputs."""
    assert count(resnet18(1000, small_images=False, generator=stream(0, "model"))) == 11_689_512


def test_is_torchvisions_net_when_given_its_weights():
    """Both hold their tensors in the order of the layers; mean 0 and std 1 make the first layer the identity."""
    torch.manual_seed(0)
    reference = load_torchvision().models.resnet18(num_classes=10).eval()
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after some training
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    model = net(small_images=False, mean=(0.0,), std=(1.0,))
    own = {name: value for name, value in model.state_dict().items() if "normalise" not in name}
    weights = dict(zip(own, reference.state_dict().values(), strict=True))
    model.load_state_dict(weights, strict=False)
    with torch.no_grad():
        torch.testing.assert_close(model(images(size=64)), reference(images(size=64)))


@pytest.mark.parametrize("size, options", [(32, {}), (48, {}), (224, {"small_images": False})])
def test_outputs_are_the_head_of_the_features(size, options):
    model = net(**options)
    with torch.no_grad():
        features = model.features(images(size=size))
        assert features.shape == (2, 512) and (features >= 0).all()
        assert torch.equal(model.head(features), model(images(size=size)))
    assert isinstance(model.head, nn.Linear)


def test_width_channels_and_normalisation_follow_the_arguments():
    model = net(width=8, channels=1)
    with torch.no_grad():
        assert model.features(images(channels=1)).shape == (2, 64)
    model = net(width=8, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    expected = (images() - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([1.0, 2, 4])[:, None, None]
    torch.testing.assert_close(model.body.normalise(images()), expected)
    with pytest.raises(ValueError, match="expected std of 1 or 3 numbers, one a channel, got 2"):
        net(std=(1.0, 1.0))


def test_bytes_and_floats_give_the_same():
    model = net(width=8)
    as_bytes = (images() * 255).round().to(torch.uint8)
    with torch.no_grad():
        assert torch.equal(model(as_bytes), model(as_bytes.float() / 255))


def test_same_seed_same_weights_and_the_global_stream_stays():
    before = torch.get_rng_state()
    first, again, other = net(3, width=8), net(3, width=8), net(4, width=8)
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.head.weight, other.head.weight)
    assert not torch.equal(first.body.stem[0].weight, other.body.stem[0].weight)


def test_every_weight_gets_a_gradient():
    model = resnet18(2, width=8, generator=stream(0, "model")).train()
    model(images(4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_narrow_networks_train_on_one_thread():
    """In a process of its own: torch 2.13 corrupts its memory in a strided 1x1 convolution of few channels."""
    code = """
import drmlib, torch
from drmlib.models.resnet import resnet18
from drmlib.rng import stream
for width in (4, 6):
    model = resnet18(3, width=width, generator=stream(0)).to(memory_format=torch.channels_last).train()
    images = torch.rand(16, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    for _ in range(4):
        model(images).sum().backward()
print("trained")
"""
    environment = {**os.environ, "DRMLIB_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "trained", done.stderr[-500:]
