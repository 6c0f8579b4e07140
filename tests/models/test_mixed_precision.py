"""A model in mixed precision answers as it does in float32, to a rounding, and stands wherever the model stood."""

import torch

from drmlib.models.mixed_precision import mixed_precision
from drmlib.models.predict import features, frozen, output_layer, predict
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream

IMAGES = torch.rand(6, 3, 16, 16, generator=stream(0, "images"))


def model():
    return SmallCNN(3, width=4, generator=stream(0, "weights")).eval()


def test_without_a_dtype_it_is_the_model_itself():
    whole = model()
    assert mixed_precision(whole, None) is whole


def test_outputs_and_features_are_those_of_the_model_to_a_rounding_and_float32():
    """bfloat16 has 8 bits; a chain of six products is off by a few of the last."""
    whole = model()
    reduced = mixed_precision(whole, torch.bfloat16)
    for function in (predict, features):
        exact, found = function(whole, IMAGES), function(reduced, IMAGES)
        assert found.dtype == torch.float32
        assert not torch.equal(found, exact) and (found - exact).abs().max() < 0.03 * exact.abs().max()
    assert output_layer(reduced) is whole.head


def test_gradients_reach_the_images_and_the_model_is_frozen_with_it():
    whole = model()
    images = IMAGES.clone().requires_grad_()
    with frozen(mixed_precision(whole, torch.bfloat16)) as reduced:
        reduced(images).sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in whole.parameters())
