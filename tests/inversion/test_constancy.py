import math

import pytest
import torch
from torch import nn

from drmlib.inversion.constancy import (
    GAZE_WEIGHTS,
    FixedWeights,
    LogHinge,
    Spread,
    absolute,
    adapted,
    attention,
    attention_of,
    hinge,
    ratio,
    variances,
)
from drmlib.rng import stream
from tests.problems import Flat, noise_images

SPREAD = Spread(
    torch.tensor([0.01, 0.03]), torch.tensor([0.2, 0.4]), torch.tensor([0.1, 0.1]), torch.tensor([1.0, 2.0])
)


def test_feature_terms_by_hand():
    """Angle variances 0.01 and 0.03 of a benign 0.1 each: mean 0.02, RAV 0.1 and 0.3, of which 0 and 0.2 exceed 0.1."""
    assert absolute(SPREAD).item() == pytest.approx(0.02)
    assert ratio(SPREAD).item() == pytest.approx(0.2)
    assert hinge(SPREAD).item() == pytest.approx(0.1)


def test_fixed_weights_by_hand():
    """20 x 0.3 + 0.05 + 800 x 0.02."""
    assert GAZE_WEIGHTS(SPREAD, torch.tensor(0.05)).item() == pytest.approx(6 + 0.05 + 16)
    assert FixedWeights(10, 100, ratio)(SPREAD, torch.tensor(0.0)).item() == pytest.approx(3 + 20)


def test_log_hinge_by_hand():
    """V = 0.2, 0.2: log 20 at tau 0.01; RAV 0.1, 0.3: (log 10 + log 30) / 2; cost 0.02 / 0.01 at weight 0.3.

    Not all ratios are below 0.02, so the weight falls by 5 %; once they are, it grows.
    """
    objective = LogHinge()
    expected = math.log(20) + math.log(300) / 2 + 0.3 * 2
    assert objective(SPREAD, torch.tensor(0.02)).item() == pytest.approx(expected, rel=1e-5)
    assert objective.weight.item() == pytest.approx(0.3 / 1.05)
    still = SPREAD._replace(angles=SPREAD.angles / 100, outputs=SPREAD.outputs / 100)
    assert objective(still, torch.tensor(0.02)).item() == pytest.approx(0.3 / 1.05 * 2)
    assert objective.weight.item() == pytest.approx(0.3)
    assert LogHinge(feature=False)(SPREAD, torch.tensor(0.0)).item() == pytest.approx(math.log(20), rel=1e-5)


def test_adapted_weights_stay_in_their_range():
    weights = adapted(torch.tensor([1.0, 1.0, 30.0, 0.01]), torch.tensor([True, False, True, False]))
    torch.testing.assert_close(weights, torch.tensor([1.05, 1 / 1.05, 30.0, 0.01]))


def test_variances_are_of_angles_and_outputs():
    """Features on a circle: outputs are their projections on the weight, angles the angles to it."""
    model = Flat(2, 1, generator=stream(0))
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[2.0, 0.0]]))
    angles = torch.tensor([0.3, 0.7, 1.1, 1.4])
    found = variances(model, 3 * torch.stack([angles.cos(), angles.sin()], 1))
    torch.testing.assert_close(found[0], angles.var()[None])
    torch.testing.assert_close(found[1].detach(), (6 * angles.cos()).var()[None])


class LooksAtOnePixel(nn.Module):
    def forward(self, images):
        return images[:, :, 2, 2].sum(1, keepdim=True)


def test_attention_is_smoothed_and_has_mean_one():
    """All gradient at (2, 2) of 5 x 5: after smoothing nine pixels share it, each 25 / 9, the others none."""
    seen = attention_of(LooksAtOnePixel(), noise_images(4, size=5))
    expected = torch.zeros(5, 5)
    expected[1:4, 1:4] = 25 / 9
    torch.testing.assert_close(seen, expected)


def test_attention_of_many_images_is_the_mean_over_batches():
    class Square(nn.Module):
        def forward(self, images):
            return images.square().sum((1, 2, 3))[:, None]

    images = noise_images(10, size=8)
    parts = attention_of(Square(), images[:6]) * 0.6 + attention_of(Square(), images[6:]) * 0.4
    torch.testing.assert_close(attention(Square(), images, batch_size=6), parts)
    assert attention(Square(), (images * 255).to(torch.uint8)).mean().item() == pytest.approx(1)
