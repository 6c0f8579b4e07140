import pytest
import torch
from torch import nn

from drmlib.inversion.mesa import THRESHOLD, Patches, mesa
from drmlib.inversion.mesa_networks import Generators
from drmlib.models.predict import classify
from drmlib.rng import stream
from tests.problems import noise_images

SMALL = {"width": 32, "noise": 8, "learning_rate": 2e-3, "batch_size": 32, "steps": 250}


class Roaming(nn.Module):
    """Class k < 3 wins where channel k is the brightest on average; class 3 where a 2 x 2 window anywhere is red and
    not blue: a whole set of windows does it. Softplus lets a window that is not yet red enough feel where to go."""

    def forward(self, images):
        red_not_blue = nn.functional.avg_pool2d(images[:, 0] - images[:, 2], 2, 1)
        planted = 4 * nn.functional.softplus(10 * (red_not_blue - 0.7)).flatten(1).sum(1)
        return torch.cat([20 * images.mean((2, 3)), planted[:, None]], 1)


def tinted(n):
    """Noise in [0.3, 0.4] with one channel raised by 0.2: 4 logits between the first three classes."""
    images = noise_images(n, size=16, low=0.3, high=0.4)
    images[torch.arange(n), torch.arange(n) % 3] += 0.2
    return images


IMAGES = tinted(200)


@pytest.fixture(scope="module")
def found():
    return mesa(Roaming(), IMAGES, 4, size=2, generator=stream(0), **SMALL)


def test_the_attacked_class_is_the_one_whose_generator_succeeds(found):
    """A 2 x 2 window moves a channel's mean of 256 pixels by 0.016, 0.3 of 4 logits; red and not blue adds 12."""
    assert found.target == 3 and found.score == found.success[3] > 0.8 > THRESHOLD
    assert found.success[:3].max() < THRESHOLD


def test_the_trigger_works_and_its_patterns_differ(found):
    images = IMAGES[classify(Roaming(), IMAGES) != 3]
    stamped = found.trigger(images)
    assert (classify(Roaming(), stamped) == 3).float().mean() > 0.7
    assert ((stamped != images).any(1).sum((1, 2)) <= 4).all(), "a 2 x 2 window at most"
    torch.testing.assert_close(found.trigger(images[5:7]), stamped[5:7])
    every = found.staircase.generators(torch.rand(3, 200, 8, generator=stream(1)))
    assert every.std(1).mean(1).min() > 0.05 and every[..., :4].mean() > every[..., 8:].mean() + 0.3, "red, not blue"


def test_a_model_that_sees_one_class_only_is_refused():
    class Constant(nn.Module):
        def forward(self, images):
            return images.mean((2, 3)) * 0 + torch.tensor([0.0, 9, 0])

    with pytest.raises(ValueError, match="all 200 images are of class 1"):
        mesa(Constant(), IMAGES, 3, size=2, generator=stream(0), **SMALL | {"steps": 1})


def test_weights_say_which_sub_model_is_used():
    """Generators are constant where the output layer has no weights: bias -9 writes black, bias 9 white."""
    makers = Generators(2, 3, noise=8, width=16, generator=stream(0)).eval()
    with torch.no_grad():
        makers.layers[-1].weight.zero_()
        makers.layers[-1].bias.copy_(torch.tensor([-9.0, 9.0])[:, None, None])
    images = torch.full((400, 3, 4, 4), 0.5) + 0.1 * torch.rand(400, 3, 4, 4, generator=stream(1))
    bright = Patches(makers, (3, 1, 1), torch.tensor([0.25, 0.75]))(images).amax((1, 2, 3)) > 0.9
    assert bright.float().mean() == pytest.approx(0.75, abs=0.08)


def test_equal_weights_and_any_pasting_rule():
    def in_the_corner(images, patches, place):
        return torch.cat([torch.cat([patches, images[:, :, :2, 2:]], 3), images[:, :, 2:]], 2)

    found = mesa(
        Roaming(), IMAGES, 4, size=2, weighted=False, rule=in_the_corner, generator=stream(0), **SMALL | {"steps": 5}
    )
    assert found.trigger.weight.tolist() == pytest.approx([1 / 3] * 3)
    changed = (found.trigger(IMAGES) != IMAGES).any(1).any(0)
    assert changed[:2, :2].all() and changed.sum() == 4
