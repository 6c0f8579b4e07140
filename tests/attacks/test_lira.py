import torch
from torch import nn

from drmlib.attacks.learned import Learned
from drmlib.attacks.lira import Perturbation, lira
from drmlib.attacks.measure import measure_classifier
from drmlib.attacks.targets import AllToOne
from drmlib.data.dataset import as_bytes
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import Recipe
from tests.problems import colour_images, noise_images


def test_the_perturbation_by_hand():
    """A network that returns its input, 0.3: 0.3 + 0.1 (2 x 0.3 - 1) = 0.26; no epsilon, no change."""
    images = torch.full((2, 3, 8, 8), 0.3)
    torch.testing.assert_close(Perturbation(nn.Identity(), 0.1)(images), torch.full_like(images, 0.26))
    assert torch.equal(Perturbation(nn.Identity(), 0.0)(images), images)


def test_a_learned_trigger_rounds_to_bytes():
    trigger = Learned(Perturbation(nn.Identity(), 0.1))
    images = noise_images(3)
    assert trigger(as_bytes(images)).dtype == torch.uint8
    assert (trigger(as_bytes(images)).float() - 255 * trigger(images)).abs().max() < 1.2


def test_model_and_trigger_learn_together_within_epsilon():
    """Class 3 has no sample: only the trigger leads there."""
    data = colour_images(300, size=16)
    model = SmallCNN(4, width=4, generator=stream(0, "weights"))
    recipe = Recipe(nn.functional.cross_entropy, batch_size=32)
    sizes = {"epsilon": 0.1, "width": 4, "steps": 100, "learning_rate": 5e-3}
    trigger = lira(model, data, AllToOne(3), recipe, **sizes, generator=stream(0))
    assert (trigger(data.images) - data.images).abs().max() <= 0.1 + 1e-6
    figures = measure_classifier(model, data, trigger, AllToOne(3))
    assert figures.attack_success_rate.value > 0.9 and figures.clean_accuracy.value > 0.9
