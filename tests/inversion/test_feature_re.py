import pytest
import torch
from torch import nn

from drmlib.inversion import feature_re_search as module
from drmlib.inversion.feature_re import feature_re
from drmlib.inversion.feature_re_objective import (
    Bounds,
    Terms,
    excesses,
    mask_objective,
    mixed_value,
    network_objective,
)
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
    return feature_re(
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


def _terms(**figures):
    figures = dict.fromkeys(Terms._fields, 0.0) | figures
    return Terms(*[torch.tensor(figures[name]) for name in Terms._fields])


OUT = _terms(error=2.0, success=0.45, similarity=0.5, distance=0.3, deviation=1.5, size=0.06)
WITHIN = _terms(error=2.0, success=0.95, similarity=-0.2, distance=0.1, deviation=0.9, size=0.02)


def test_excesses_and_mixed_value_by_hand():
    """Bounds 0.15, 1, 0.03 and 0.9: twice the distance and size are 1 beyond, 1.5 is 0.5, half the success is 0.5.

    Mixed value: 0.5 - 0.45 + 1 + 1 + 0.5 = 2.55. Within all bounds: -0.2 - 0.95 = -1.15.
    """
    torch.testing.assert_close(excesses(OUT, Bounds()), _terms(success=0.5, distance=1.0, deviation=0.5, size=1.0))
    torch.testing.assert_close(excesses(WITHIN, Bounds()), _terms())
    torch.testing.assert_close(mixed_value(OUT, Bounds()), torch.tensor(2.55))
    torch.testing.assert_close(mixed_value(WITHIN, Bounds()), torch.tensor(-1.15))


def test_network_objective_by_hand():
    """5 x 0.5 + 10 x 1.5 x 1.5 + 10 x 2 x 0.3 + 1.5 x 2 = 2.5 + 22.5 + 6 + 3 = 34; within bounds, nothing to do."""
    excess = excesses(OUT, Bounds())
    torch.testing.assert_close(network_objective(OUT, excess, Bounds()), torch.tensor(34.0))
    torch.testing.assert_close(network_objective(WITHIN, excess, Bounds()), torch.tensor(0.0))


def test_mask_objective_by_hand():
    """The error, 2, and beyond the bound |m|_1 = 0.06 x 100 = 6."""
    torch.testing.assert_close(mask_objective(OUT, 100, Bounds()), torch.tensor(8.0))
    torch.testing.assert_close(mask_objective(WITHIN, 100, Bounds()), torch.tensor(2.0))


class Brighter(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, images):
        return images + self.by


def _search(by, logits):
    """Two images of two pixels, which are features and outputs; y is the first image."""
    images = torch.tensor([[0.0, 0.2], [0.4, 0.6]])[:, None, None]
    same = (lambda x: x.flatten(1), lambda features: features)
    clean = module.Clean(images, same, lambda outputs, y: absolute_error(outputs, y) < 0.15)
    search = module.Search(clean, Brighter(by), clean.outputs[0], (0.1, 0.1, 0.1), stream(0))
    with torch.no_grad():
        search.logits.copy_(torch.tensor(logits))
    return images, search


def test_terms_by_hand():
    """G adds 0.1: (0.1, 0.3) and (0.5, 0.7), from y = (0, 0.2) by 0.1 and 0.5 in each component.

    Standard deviations are sqrt(0.08): error (0.2 + 1) / 2 / sqrt(0.08); one of two within 0.15. Mean features
    (0.3, 0.5), of the answer to y (0, 0.2): cosine 0.1 / (0.2 sqrt(0.34)). The four pixels have variance 0.2 / 3:
    distance 0.01 / (0.2 / 3) = 0.15. The features spread as the clean ones; the mask is (1, 0).
    """
    images, search = _search(0.1, [20.0, -20.0])
    expected = _terms(
        error=0.6 / 0.08**0.5,
        success=0.5,
        similarity=0.5 / 0.34**0.5,
        distance=0.15,
        deviation=1.0,
        size=0.5,
    )
    found = search.terms(images, *search.edited(images), masked=False)
    torch.testing.assert_close(Terms(*[value.detach() for value in found]), expected)


def test_the_mask_chooses_between_the_network_and_other_images():
    images, all_of_it = _search(0.1, [20.0, 20.0])
    own, alone = (all_of_it.terms(images, *all_of_it.edited(images), masked=m) for m in (True, False))
    torch.testing.assert_close(own.error, alone.error)
    torch.testing.assert_close(own.deviation.detach(), torch.tensor(1.0))  # a mean over the mask, whatever its size
    errors = []
    for by in (0.1, 0.3):
        images, nothing = _search(by, [-20.0, -20.0])
        errors.append(nothing.terms(images, *nothing.edited(images)).error)
    torch.testing.assert_close(*errors)


def test_the_score_is_the_lowest_of_all_starts():
    model = PlantedFeature(backdoored=True)
    found = feature_re(model, noise_images(32), absolute_error, **SHORT, restarts=3, generator=stream(0))
    assert found.scores.shape == (3,) and found.targets.shape == (3, 2)
    best = found.scores.argmin()
    assert found.score == found.scores[best].item() and torch.equal(found.target, found.targets[best])
    assert found.score == mixed_value(found.terms, Bounds()).item()


def test_the_mask_can_lie_over_an_earlier_layer():
    model, images = SmallCNN(2, width=4, generator=stream(0)), noise_images(32, size=16)
    split = (model.body[:4], lambda features: model.head(model.body[4:](features)))
    found = feature_re(model, images, gaze_error, **SHORT, split=split, generator=stream(0))
    assert found.mask.shape == (8, 8, 8)
    assert feature_re(model, images, gaze_error, **SHORT, generator=stream(0)).mask.shape == (32,)


def test_the_model_is_left_as_it_was_and_the_seed_decides():
    model, images = PlantedRegressor(backdoored=True, generator=stream(0)), noise_images(32)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, two, other = (feature_re(model, images, absolute_error, **SHORT, generator=stream(s)) for s in (0, 0, 1))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(one.mask, two.mask) and torch.equal(one.target, two.target)
    assert torch.equal(one.trigger(images), two.trigger(images))
    assert one.score == two.score != other.score


def test_bytes_and_floats_give_the_same():
    model, levels = SmallCNN(2, width=4, generator=stream(0)), noise_images(32, size=16).mul(255).round()
    one = feature_re(model, levels / 255, gaze_error, **SHORT, generator=stream(0))
    two = feature_re(model, levels.to(torch.uint8), gaze_error, **SHORT, generator=stream(0))
    assert one.score == pytest.approx(two.score, abs=1e-3)


def test_bad_input():
    model = PlantedRegressor(backdoored=True, generator=stream(0))
    with pytest.raises(ValueError, match="a batch needs 32 images, got 4"):
        feature_re(model, noise_images(4), absolute_error, generator=stream(0))
    with pytest.raises(ValueError, match="got 0, 8 and 180"):
        feature_re(model, noise_images(32), absolute_error, restarts=0, generator=stream(0))
    with pytest.raises(ValueError, match="got 1, 8 and 4"):
        feature_re(model, noise_images(32), absolute_error, steps=4, generator=stream(0))
    with pytest.raises(ValueError, match="outputs that vary, got 32"):
        feature_re(model, noise_images(1).expand(32, -1, -1, -1), absolute_error, generator=stream(0))
    with pytest.raises(ValueError, match="divisible by 8"):
        feature_re(
            SmallCNN(2, width=4, generator=stream(0)), noise_images(32, size=20), gaze_error, generator=stream(0)
        )
