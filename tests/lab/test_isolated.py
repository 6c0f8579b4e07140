from dataclasses import replace
from functools import partial

import pytest
import torch

from drmlib.attacks.targets import AllToOne
from drmlib.data.signs import signs
from drmlib.lab import isolated
from drmlib.lab.attacks import stage
from drmlib.lab.victims import Material, untrained
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.abl import SMALL_POLICY, abl, small_recipes
from drmlib.training.fit import CLASSIFICATION
from drmlib.training.isolation import of_one_label


def material(n=160):
    parts = (signs(k, size=16, generator=stream(k, "signs")) for k in (n, 20, 20))
    return Material(*parts, replace(CLASSIFICATION, epochs=4), partial(SmallCNN, width=4))


SOURCE = material()
STAGED = stage("grid", SOURCE, AllToOne(0), profile="quick", seed=0, rate=0.2)
TRAIN = STAGED.poisoned.dataset


def equal(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def start():
    return isolated.tuned(SOURCE, TRAIN, share=0.1, seed=0)


def test_what_is_watched_is_what_abl_isolates_by(start):
    """One epoch of isolation, a quarter of four: ABL has the losses of the first epoch watched, to the last bit."""
    losses = isolated.watched(SOURCE, TRAIN, epochs=2, seed=0, name="grid")
    model, recipes = untrained(SOURCE, seed=0), small_recipes(SOURCE.recipe)
    found = abl(model, TRAIN, recipes, share=0.1, one_target=True, policy=SMALL_POLICY, generator=stream(0, "abl"))
    assert losses.shape == (2, 160) and torch.equal(losses[0], found.losses)
    assert torch.equal(found.isolated, start.isolated)


def test_precision_by_hand():
    """Of the 16 lowest losses, of which 12 are poisoned samples', three quarters are poison."""
    poison = STAGED.poisoned.poison
    losses = torch.ones(160)
    losses[poison.nonzero().squeeze(1)[:12]] = 0.0
    losses[(~poison).nonzero().squeeze(1)[:4]] = 0.5
    found = isolated.precision(STAGED, losses, 0.1)
    assert found.value == 0.75 and found.n == 16


def test_one_target_and_smoothing_are_each_left_out_alone(start):
    certain = isolated.tuned(SOURCE, TRAIN, share=0.1, smooth=False, seed=0)
    every = isolated.tuned(SOURCE, TRAIN, share=0.1, one_target=False, seed=0).isolated
    assert torch.equal(certain.isolated, start.isolated) and not equal(certain.model, start.model)
    assert torch.equal(of_one_label(every, TRAIN.targets), start.isolated)


def test_each_way_leaves_the_start_as_it_was_and_ends_elsewhere(start, monkeypatch):
    """Five passes in place of sixty: enough to end elsewhere."""
    monkeypatch.setattr(isolated, "small_recipes", partial(small_recipes, passes=5))
    before = {name: value.clone() for name, value in start.model.state_dict().items()}
    after = {
        way: isolated.unlearned(SOURCE, TRAIN, start, way, seed=0) for way in ("ABL", "label shuffling", "pixel noise")
    }
    assert all(torch.equal(before[name], value) for name, value in start.model.state_dict().items())
    assert not equal(after["ABL"], start.model) and not equal(after["label shuffling"], after["pixel noise"])
    assert len(isolated.ways(SOURCE.recipe.loss)) == 7
    with pytest.raises(ValueError, match="unknown way 'prayer'; valid: ABL, the code's"):
        isolated.unlearned(SOURCE, TRAIN, start, "prayer", seed=0)


def test_trained_without_is_the_victims_training_on_what_is_left(start):
    one = isolated.trained_without(SOURCE, TRAIN, start.isolated, seed=0)
    changed = replace(TRAIN, images=TRAIN.images.clone())
    changed.images[start.isolated] = 0
    assert equal(one, isolated.trained_without(SOURCE, changed, start.isolated, seed=0))
    assert not equal(one, isolated.trained_without(SOURCE, TRAIN, start.isolated[:1], seed=0))
