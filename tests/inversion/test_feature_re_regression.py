import pytest
import torch
from torch import nn

from drmlib.inversion.feature_re_objective import Bounds, mixed_value
from drmlib.inversion.feature_re_regression import feature_re_regression
from drmlib.metrics import absolute_error, gaze_error
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from tests.problems import PlantedRegressor, noise_images

QUICK = {"tolerance": 0.3, "width": 4, "batch_size": 16}
SHORT = {**QUICK, "warm_up_steps": 2, "steps": 4, "window": 2}
TARGET = torch.tensor([0.5, -0.5])


class PlantedFeature(nn.Module):
    """Features are 15 pixels of red and green and one of blue; outputs, three times a random projection of the 15.

    The blue one, where bright, fades the outputs into TARGET, halfway at 0.5. backdoored=False leaves it no effect.
    """

    def __init__(self, *, backdoored):
        super().__init__()
        self.backdoored = backdoored
        self.weight = nn.Parameter(torch.randn(15, 2, generator=stream(0)))

    def features(self, images):
        return images.flatten(1)[:, :144:9]

    def head(self, features):
        outputs = 3 * (features[:, :15] - 0.5) @ self.weight
        if not self.backdoored:
            return outputs
        gate = torch.sigmoid(12 * (features[:, 15:] - 0.5))
        return torch.lerp(outputs, TARGET, gate)

    def forward(self, images):
        return self.head(self.features(images))


def _found(*, backdoored):
    return feature_re_regression(
        PlantedFeature(backdoored=backdoored),
        noise_images(64, low=0.3, high=0.7),
        absolute_error,
        **QUICK,
        bounds=Bounds(size=3 / 16, distance=3.0, deviation=2.0),
        warm_up_steps=32,
        steps=80,
        learning_rate=1e-2,
        generator=stream(1),
    )


@pytest.fixture(scope="module")
def backdoored():
    return _found(backdoored=True)


def test_the_planted_feature_and_target_are_found(backdoored):
    assert 15 in backdoored.mask.topk(3).indices, "the bound leaves room for three"
    assert backdoored.terms.success > 0.7, "most images reach y whatever the features outside the mask"
    assert absolute_error(backdoored.target, TARGET) < QUICK["tolerance"]
    assert backdoored.success > 0.9 and backdoored.trigger(noise_images(3)).shape == (3, 3, 8, 8)


def test_a_benign_model_has_the_higher_score(backdoored):
    benign = _found(backdoored=False)
    assert benign.terms.success < 0.4, "three of 16 features do not hold the outputs"
    assert backdoored.score < benign.score - 0.3


def test_the_score_is_the_lowest_of_all_starts():
    model = PlantedFeature(backdoored=True)
    found = feature_re_regression(model, noise_images(32), absolute_error, **SHORT, restarts=3, generator=stream(0))
    assert found.scores.shape == (3,) and found.targets.shape == (3, 2)
    best = found.scores.argmin()
    assert found.score == found.scores[best].item() and torch.equal(found.target, found.targets[best])
    assert found.score == mixed_value(found.terms, Bounds()).item()


def test_the_mask_can_lie_over_an_earlier_layer():
    model, images = SmallCNN(2, width=4, generator=stream(0)), noise_images(32, size=16)
    split = (model.body[:3], lambda features: model.head(model.body[3:](features)))
    found = feature_re_regression(model, images, gaze_error, **SHORT, split=split, generator=stream(0))
    assert found.mask.shape == (8, 8, 8)
    assert feature_re_regression(model, images, gaze_error, **SHORT, generator=stream(0)).mask.shape == (32,)


def test_the_model_is_left_as_it_was_and_the_seed_decides():
    model, images = PlantedRegressor(backdoored=True, generator=stream(0)), noise_images(32)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, two, other = (
        feature_re_regression(model, images, absolute_error, **SHORT, generator=stream(s)) for s in (0, 0, 1)
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(one.mask, two.mask) and torch.equal(one.target, two.target)
    assert torch.equal(one.trigger(images), two.trigger(images))
    assert one.score == two.score != other.score


def test_bytes_and_floats_give_the_same():
    model, levels = SmallCNN(2, width=4, generator=stream(0)), noise_images(32, size=16).mul(255).round()
    one = feature_re_regression(model, levels / 255, gaze_error, **SHORT, generator=stream(0))
    two = feature_re_regression(model, levels.to(torch.uint8), gaze_error, **SHORT, generator=stream(0))
    assert one.score == pytest.approx(two.score, abs=1e-3)


def test_bad_input():
    model = PlantedRegressor(backdoored=True, generator=stream(0))
    with pytest.raises(ValueError, match="a batch needs 32 images, got 4"):
        feature_re_regression(model, noise_images(4), absolute_error, generator=stream(0))
    with pytest.raises(ValueError, match="at least one start, got 0"):
        feature_re_regression(model, noise_images(32), absolute_error, restarts=0, generator=stream(0))
    with pytest.raises(ValueError, match="window <= steps, got 8 and 4"):
        feature_re_regression(model, noise_images(32), absolute_error, steps=4, generator=stream(0))
    with pytest.raises(ValueError, match="outputs that vary, got 32"):
        feature_re_regression(model, noise_images(1).expand(32, -1, -1, -1), absolute_error, generator=stream(0))
    with pytest.raises(ValueError, match="divisible by 8"):
        feature_re_regression(
            SmallCNN(2, width=4, generator=stream(0)), noise_images(32, size=20), gaze_error, generator=stream(0)
        )
