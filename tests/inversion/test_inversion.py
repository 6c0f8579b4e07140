import pytest
import torch

from drmlib.inversion.drmguard import drmguard
from drmlib.inversion.neural_cleanse import MaskedPattern, neural_cleanse
from drmlib.models.predict import predict
from drmlib.rng import stream
from tests.problems import PIXEL, PlantedClassifier, PlantedRegressor, mid_grey_images, noise_images


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


@pytest.fixture(scope="module")
def guarded():
    images = mid_grey_images(200)
    settings = {"explore_steps": 200, "steps": 200}
    models = [PlantedRegressor(backdoored=backdoored, generator=stream(0)) for backdoored in (False, True)]
    return models, [drmguard(model, images, generator=stream(1), **settings) for model in models]


def test_drmguard_tells_the_planted_regressor_by_a_smaller_edit(guarded):
    _, (benign, backdoored) = guarded
    assert backdoored.score < benign.score / 3
    assert (backdoored.angle_variance_ratio < 0.2).all() and (backdoored.output_variance_ratio < 0.2).all()


def test_drmguard_finds_the_planted_pixel_and_target(guarded):
    (_, model), (_, found) = guarded
    channel, row, column = PIXEL
    mask = found.trigger.mask[0]
    assert mask.argmax().item() == row * mask.shape[1] + column
    assert found.trigger.pattern[channel, row, column] > 0.55, "the planted pixel is made bright"
    target = model.head(torch.linspace(-2, 3, 16)).detach()
    answer = predict(model, found.trigger(mid_grey_images(50, seed=1))).mean(0)
    assert (answer - target).norm() < 0.3 * target.norm()
    torch.testing.assert_close(found.predicted_target, target, rtol=0.4, atol=0.2)


def test_drmguard_leaves_the_model_as_it_was_and_follows_its_seed():
    model, images = PlantedRegressor(backdoored=True, generator=stream(0)), noise_images(80)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, two, other = (drmguard(model, images, explore_steps=3, steps=5, generator=stream(s)) for s in (0, 0, 1))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(one.trigger.mask, two.trigger.mask) and one.score == two.score != other.score
    assert one.history.shape == (5, 3)


def test_drmguard_needs_a_batch_to_take_a_variance_of():
    with pytest.raises(ValueError, match="a batch needs 64 images"):
        drmguard(PlantedRegressor(backdoored=True, generator=stream(0)), noise_images(10), generator=stream(0))


def test_drmguard_searches_at_most_64_corners():
    class Seven(PlantedRegressor):
        def __init__(self):
            super().__init__(backdoored=False, generator=stream(0))
            self.head = torch.nn.Linear(16, 7)

    with pytest.raises(ValueError, match="at most 6 outputs, got 7"):
        drmguard(Seven(), noise_images(80), generator=stream(0))
