import pytest
import torch

from drmlib.inversion.neural_cleanse import MaskedPattern, neural_cleanse
from drmlib.rng import stream
from tests.problems import PIXEL, PlantedClassifier, noise_images


@pytest.fixture(scope="module")
def cleansed():
    return neural_cleanse(PlantedClassifier(), noise_images(64), 4, steps=200, batch_size=16, generator=stream(0))


def test_neural_cleanse_finds_the_planted_class_and_pixel(cleansed):
    channel, row, column = PIXEL
    assert cleansed.target == 3 and cleansed.success.min() > 0.95
    assert cleansed.norms[3] < cleansed.norms[:3].min() / 3
    mask = cleansed.masks[3, 0]
    assert mask.argmax() == row * mask.shape[1] + column and mask.max() > 0.5
    assert cleansed.patterns[3, channel, row, column] > 0.9
    assert cleansed.trigger(noise_images(5)).shape == (5, 3, 8, 8)


def test_classes_in_one_batch_move_as_each_would_alone():
    """The sum of the classes' losses under Adam: slices of one tensor do not touch one another.

    Checked by freezing the other classes' outputs out of the comparison: a model with one more class whose logit is
    far below never wins nor changes a softmax, so the first four classes' search is the same.
    """

    class OneMore(PlantedClassifier):
        def forward(self, images):
            outputs = super().forward(images)
            return torch.cat([outputs, torch.full_like(outputs[:, :1], -80.0)], 1)

    noise = torch.Generator().manual_seed(0)
    four = neural_cleanse(PlantedClassifier(), noise_images(32), 4, steps=1, batch_size=8, generator=noise)
    noise = torch.Generator().manual_seed(0)
    five = neural_cleanse(OneMore(), noise_images(32), 5, steps=1, batch_size=8, generator=noise)
    assert four.norms.shape == (4,) and five.norms.shape == (5,)
    assert five.success[4] == 0


def test_masked_pattern_by_hand():
    trigger = MaskedPattern(torch.tensor([[[0.0, 0.5, 1.0]]]), torch.full((1, 1, 3), 0.8))
    torch.testing.assert_close(trigger(torch.full((1, 1, 1, 3), 0.4)), torch.tensor([[[[0.4, 0.6, 0.8]]]]))
    assert trigger(torch.full((1, 1, 1, 3), 102, dtype=torch.uint8)).flatten().tolist() == [102, 153, 204]


def test_neural_cleanse_needs_classes_to_compare():
    with pytest.raises(ValueError, match="at least 3 classes"):
        neural_cleanse(PlantedClassifier(), noise_images(4), 2, generator=stream(0))
