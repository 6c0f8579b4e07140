import pytest
import torch

from drmlib.models.mlp import MLP
from drmlib.rng import stream


def test_by_hand():
    """relu(2 - 3, 2 + 3) = (0, 5), and the head makes 10 * 0 + 5 - 1 = 4 of it."""
    model = MLP(1, inputs=2, width=2, depth=1, generator=stream(0))
    weights = {
        "body.1.weight": torch.tensor([[1.0, -1.0], [1.0, 1.0]]),
        "body.1.bias": torch.zeros(2),
        "head.weight": torch.tensor([[10.0, 1.0]]),
        "head.bias": torch.tensor([-1.0]),
    }
    model.load_state_dict(weights)
    row = torch.tensor([[2.0, 3.0]])
    assert model.features(row).tolist() == [[0, 5]] and model(row).tolist() == [[4]]


@pytest.mark.parametrize("depth", [1, 3])
def test_features_have_one_width_and_the_head_is_linear(depth):
    model = MLP(3, inputs=7, width=5, depth=depth, generator=stream(0))
    rows = torch.randn(4, 7, generator=stream(1))
    features = model.features(rows)
    assert features.shape == (4, 5) and features.min() >= 0
    torch.testing.assert_close(model(rows), features @ model.head.weight.T + model.head.bias)
    assert len([p for p in model.parameters() if p.ndim == 2]) == depth + 1


def test_depth_zero_is_linear():
    model = MLP(3, inputs=7, depth=0, generator=stream(0))
    rows = torch.randn(4, 7, generator=stream(1))
    assert torch.equal(model.features(rows), rows)
    torch.testing.assert_close(model(2 * rows) - model(rows), rows @ model.head.weight.T)
    with pytest.raises(ValueError, match="depth of at least 0, got -1"):
        MLP(3, inputs=7, depth=-1, generator=stream(0))


@pytest.mark.parametrize("depth", [0, 2])
def test_rows_are_centred_and_scaled_before_the_first_layer(depth):
    """With centre 0.5 and scale 0.25 a network answers rows as it did (rows - 0.5) / 0.25 without; 0 and 1 change none.

    The same generator gives both the same weights: centre and scale draw nothing.
    """
    one, other, plain = (
        MLP(3, inputs=7, depth=depth, generator=stream(0), **keywords)
        for keywords in ({"centre": 0.5, "scale": 0.25}, {"centre": 0.0, "scale": 1.0}, {})
    )
    rows = torch.rand(4, 7, generator=stream(1))
    assert torch.equal(one(rows), plain((rows - 0.5) / 0.25)) and torch.equal(other(rows), plain(rows))
    assert torch.equal(one.features(rows), plain.features((rows - 0.5) / 0.25))
    assert not torch.equal(one(rows), plain(rows))


def test_bytes_are_scaled_to_one_before_they_are_centred():
    """Level 255 is 1, and (1 - 0.5) / 0.5 = 1; level 0 is -1."""
    model = MLP(1, inputs=2, depth=0, centre=0.5, scale=0.5, generator=stream(0))
    assert model.features(torch.tensor([[255, 0]], dtype=torch.uint8)).tolist() == [[1, -1]]


def test_rows_are_not_divided_by_zero():
    with pytest.raises(ValueError, match="scale above 0, got 0"):
        MLP(1, inputs=2, scale=0, generator=stream(0))


def test_images_are_rows_of_their_values():
    model = MLP(2, inputs=3 * 4 * 4, generator=stream(0))
    images = torch.rand(5, 3, 4, 4, generator=stream(1))
    assert torch.equal(model(images), model(images.flatten(1)))
