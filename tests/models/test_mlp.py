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


def test_images_are_rows_of_their_values():
    model = MLP(2, inputs=3 * 4 * 4, generator=stream(0))
    images = torch.rand(5, 3, 4, 4, generator=stream(1))
    assert torch.equal(model(images), model(images.flatten(1)))
