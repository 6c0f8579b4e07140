import pytest
import torch

from drmlib.attacks.badnets import square
from drmlib.attacks.dfst import _edges, detoxicant, dfst, sunset
from drmlib.models.predict import features
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from tests.problems import colour_images


def test_a_sunset_goes_from_violet_to_orange():
    rows = sunset(height=5).mean
    assert rows[:, 0].tolist() == pytest.approx([0.55, 0.25, 0.35])
    assert rows[:, 2].tolist() == pytest.approx([0.775, 0.435, 0.275])


def test_painted_images_take_the_colours_and_keep_the_edges():
    """The rows come nearer a sunset in colour, and the edges stay more like their own image's than another's."""
    data = colour_images(200, size=16)
    trigger = dfst(data, width=4, steps=200, batch_size=32, learning_rate=5e-3, generator=stream(0))
    images = data.images[:50]
    painted, wanted = trigger(images), sunset(height=16).mean
    assert (painted.mean((0, 3)) - wanted).abs().mean() < 0.5 * (images.mean((0, 3)) - wanted).abs().mean()
    own = torch.cosine_similarity(_edges(painted).flatten(1), _edges(images).flatten(1))
    other = torch.cosine_similarity(_edges(painted).flatten(1), _edges(images).roll(1, 0).flatten(1))
    assert own.mean() > other.mean() + 0.3


def test_the_injector_excites_the_neurons_of_the_trigger_within_its_budget():
    data = colour_images(60, size=16)
    model = SmallCNN(4, width=4, generator=stream(0))
    patch = square((1.0, 1.0, 0.0), side=8, height=16, width=16)
    sizes = {"neurons": 3, "epsilon": 0.2, "width": 4, "steps": 80, "batch_size": 16, "learning_rate": 5e-3}
    injector = detoxicant(model, data, patch, **sizes, generator=stream(1))
    injected = injector(data.images)
    assert (injected - data.images).abs().max() <= 0.2 + 1e-6
    clean, marked, made = (features(model, x).mean(0) for x in (data.images, patch(data.images), injected))
    top = (marked - clean).topk(3).indices
    assert (made - marked)[top].abs().sum() < (clean - marked)[top].abs().sum()


def test_grey_images_have_no_colours():
    grey = colour_images(10, size=16)
    one = type(grey)(grey.images[:, :1].contiguous(), grey.targets, grey.task)
    with pytest.raises(ValueError, match="needs 3 channels, got 1"):
        dfst(one, steps=1, generator=stream(0))
