import copy

import pytest
import torch
from torch import nn

from drmlib.attacks.badnets import place
from drmlib.attacks.latent_backdoor import infect, latent_backdoor
from drmlib.data.dataset import Dataset
from drmlib.models.predict import features, predict
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import Recipe, fit
from tests.problems import COLOURS, Flat, colour_images


def test_where_features_are_pixels_the_patch_is_the_mean_of_the_target_class():
    """min_p E |x with p - mean|^2 is solved by the mean's own pixels."""
    images = torch.full((20, 3, 8, 8), 0.2)
    images[:5] = 0.8
    data = Dataset(images, (torch.arange(20) >= 5).long(), COLOURS)
    model = Flat(192, 4, generator=stream(0))
    found = latent_backdoor(model, data, data.targets == 0, side=3, steps=200, batch_size=8, generator=stream(1))
    assert found.mask.sum() == 9
    torch.testing.assert_close(found.pattern[:, 5:, 5:], torch.full((3, 3, 3), 0.8), atol=0.01, rtol=0)


def test_it_looks_more_like_the_target_class_than_a_random_patch_and_infection_more_still():
    data = colour_images(90, size=16)
    of_target = data.targets == 1
    model = SmallCNN(4, width=4, generator=stream(0))
    recipe = Recipe(nn.functional.cross_entropy, epochs=6, batch_size=16)
    fit(model, data, recipe, generator=stream(0, "fit"))
    before = copy.deepcopy(model.state_dict())
    found = latent_backdoor(model, data, of_target, side=6, steps=60, batch_size=16, generator=stream(1))
    random = place(torch.rand(3, 6, 6, generator=stream(2)), top=10, left=10, height=16, width=16)
    others = data.images[~of_target]

    def distance(teacher: nn.Module, trigger) -> float:
        wanted = features(model, data.images[of_target]).mean(0)
        return (features(teacher, trigger(others)) - wanted).norm(dim=1).mean().item()

    assert distance(model, found) < distance(model, random)
    teacher = infect(model, data, found, of_target, recipe, weight=10.0, steps=60, generator=stream(3))
    assert distance(teacher, found) < 0.7 * distance(model, found)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()), "the teacher changed"
    assert predict(teacher, data.images).argmax(1).eq(data.targets).float().mean() > 0.8


@pytest.mark.parametrize("marked", [torch.zeros(12, dtype=torch.bool), torch.ones(12, dtype=torch.bool)])
def test_a_target_class_that_is_empty_or_everything_is_refused(marked):
    data = colour_images(12)
    with pytest.raises(ValueError, match="marks some samples and not all"):
        latent_backdoor(Flat(192, 4, generator=stream(0)), data, marked, steps=1, generator=stream(0))
