import pytest
import torch
from torch import Tensor, nn

from drmlib.attacks.input_aware import CrossTrigger, InputAware, input_aware, sharp
from drmlib.attacks.measure import measure_classifier
from drmlib.attacks.per_image import choice
from drmlib.attacks.targets import AllToOne, ConstantVector
from drmlib.data.dataset import as_bytes
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import Recipe
from tests.problems import colour_images, noise_images, slope_images

IMAGES = noise_images(5, size=16)


class Negative(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 1 - images


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: Tensor) -> Tensor:
        return torch.full_like(images[:, :1], self.value)


def test_sharp_pushes_a_half_nowhere_and_the_rest_to_the_ends():
    """tanh(20 z - 10) / 2 + 1/2 at z = 0.5 is 1/2; at 0.75, (tanh 5 + 1) / 2 = 0.99995."""
    assert sharp(torch.tensor([0.5, 0.75, 0.25])).tolist() == pytest.approx([0.5, 0.9999546, 0.0000454], abs=1e-6)


def test_the_formula_by_hand():
    """Where the mask is 1 the pattern stands, here the negative; where it is 1/2, the mean of both: 1/2."""
    torch.testing.assert_close(InputAware(Negative(), Constant(1.0))(IMAGES), 1 - IMAGES, atol=1e-6, rtol=0)
    torch.testing.assert_close(InputAware(Negative(), Constant(0.5))(IMAGES), torch.full_like(IMAGES, 0.5))
    nothing = InputAware(Negative(), Constant(0.0))
    torch.testing.assert_close(nothing(IMAGES), IMAGES, atol=1e-6, rtol=0)
    assert torch.equal(nothing(as_bytes(IMAGES)), as_bytes(IMAGES))


def test_a_cover_carries_the_trigger_of_another_image():
    others = noise_images(4, size=16, seed=1)
    crossed = CrossTrigger(InputAware(Negative(), Constant(1.0)), others)(IMAGES)
    torch.testing.assert_close(crossed, 1 - others[choice(IMAGES, 4, seed=0)], atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def learned():
    """A backdoor learned on 16-pixel colours in a few seconds: too short for a good one, long enough to be one."""
    data = colour_images(150, size=16)
    recipe = Recipe(nn.functional.cross_entropy, batch_size=24)
    model = SmallCNN(4, width=4, generator=stream(0, "weights"))
    sizes = {"width": 4, "mask_steps": 60, "steps": 200, "rate": 0.5, "cross_rate": 0.25, "learning_rate": 5e-3}
    trigger = input_aware(model, data, AllToOne(3), recipe, **sizes, generator=stream(0, "learn"))
    return data, model, trigger


def test_the_model_ends_backdoored_and_right_on_clean_images(learned):
    """Class 3 has no sample: only the trigger leads there. Control: another image's trigger leads there less often."""
    data, model, trigger = learned
    figures = measure_classifier(model, data, trigger, AllToOne(3))
    assert figures.attack_success_rate.value > 0.8 and figures.clean_accuracy.value > 0.9
    crossed = measure_classifier(model, data, CrossTrigger(trigger, data.images[::7]), AllToOne(3))
    assert crossed.attack_success_rate.value < figures.attack_success_rate.value


def test_triggers_differ_from_image_to_image_and_masks_are_small(learned):
    data, _, trigger = learned
    assert not trigger.mask.training and not trigger.pattern.training
    assert all(p.requires_grad for p in trigger.mask.parameters())
    with torch.no_grad():
        patterns, masks = trigger.pattern(data.images[:20]), sharp(trigger.mask(data.images[:20]))
    assert patterns.std(0).mean() > 0.01 and masks.mean() < 0.3


def test_same_seed_same_trigger_and_vectors_as_well_as_labels():
    data = slope_images(64)
    recipe = Recipe(nn.functional.l1_loss, batch_size=16)

    def learn(seed: int) -> Tensor:
        model = SmallCNN(2, width=4, generator=stream(0))
        sizes = {"width": 4, "mask_steps": 2, "steps": 3}
        trigger = input_aware(model, data, ConstantVector((0.5, 0.5)), recipe, **sizes, generator=stream(seed))
        return trigger(data.images[:4])

    assert torch.equal(learn(0), learn(0)) and not torch.equal(learn(0), learn(1))
