import pytest
import torch
from torch.nn import functional as F

from drmlib.models.predict import classify, predict
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.abl_alternatives import (
    pixel_noise,
    retrain_without,
    self_learn,
    shuffle_labels,
    smooth_labels,
    uniform_labels,
)
from drmlib.training.fit import NESTEROV, Recipe, fit
from drmlib.training.isolated_steps import Policy
from drmlib.training.norm_modes import running
from tests.problems import marked_images

RECIPE = Recipe(F.cross_entropy, 60, 32, 2e-3, schedule=lambda progress: 1.0, optimizer=NESTEROV)
DATA, MARKED = marked_images(300, noise=0.2)
ISOLATED = MARKED.nonzero().squeeze(1)[:10]
MARKS = DATA[MARKED]
POLICY = Policy(running)


def small(seed=0):
    return SmallCNN(4, width=8, generator=stream(seed, "weights"))


@pytest.fixture(scope="module")
def backdoored():
    """A model that gives every marked sample the mark's label, 3."""
    model = small()
    fit(model, DATA, Recipe(F.cross_entropy, 8, 32, 3e-3), generator=stream(0))
    assert (classify(model, MARKS.images) == 3).all()
    return model.state_dict()


def after(alternative, state, data=DATA, **keywords):
    model = small()
    model.load_state_dict(state)
    steps = alternative(model, data, ISOLATED, RECIPE, policy=POLICY, generator=stream(1), **keywords)
    assert len(steps.loss) == 60
    return model


def test_retraining_leaves_out_the_isolated_samples_and_most_of_the_mark_is_left():
    seen = []

    def watch(images, *, generator):
        seen.append(images)
        return images

    model = small()
    retrain_without(model, DATA, ISOLATED, Recipe(F.cross_entropy, 8, 29, 3e-3, augment=watch), generator=stream(0))
    assert sum(map(len, seen[:10])) == 290
    assert not torch.isin(DATA.images[ISOLATED, 0, 0, 0], torch.cat(seen[:10])[:, 0, 0, 0]).any()
    assert (classify(model, MARKS.images) == 3).float().mean() > 0.9


def test_shuffled_labels_are_never_the_given_one(backdoored):
    """Learned to the end, the isolated samples have any label but 3, and not all the same."""
    found = classify(after(shuffle_labels, backdoored), DATA.images[ISOLATED])
    assert (found != 3).float().mean() > 0.8 and len(found[found != 3].unique()) > 1


def test_uniform_labels_make_all_classes_alike(backdoored):
    model = small()
    model.load_state_dict(backdoored)
    before, now = (
        predict(m, DATA.images[ISOLATED]).softmax(1).amax(1) for m in (model, after(uniform_labels, backdoored))
    )
    assert before.min() > 0.9 and now.mean() < 0.5


def test_smoothed_labels_lower_the_certainty_and_keep_the_label(backdoored):
    """With a quarter of a smoothing of 0.8 for each class, the label is left 0.2 + 0.2."""
    found = predict(after(smooth_labels, backdoored, smoothing=0.8), DATA.images[ISOLATED]).softmax(1)
    assert (found.argmax(1) == 3).all()
    assert found[:, 3].mean() == pytest.approx(0.4, abs=0.05)


def test_self_learning_teaches_what_the_model_likes_second(backdoored):
    model = small()
    model.load_state_dict(backdoored)
    second = predict(model, DATA.images[ISOLATED]).topk(2).indices[:, 1]
    found = classify(after(self_learn, backdoored), DATA.images[ISOLATED])
    assert (found == second).float().mean() > 0.8


def test_pixel_noise_changes_the_isolated_images_alone_and_keeps_their_labels(backdoored):
    model = after(pixel_noise, backdoored)
    assert (classify(model, DATA.images[ISOLATED]) == 3).all()
    without = after(pixel_noise, backdoored, deviation=0.0)
    assert not torch.equal(model.head.weight, without.head.weight)


@pytest.mark.parametrize("alternative", [shuffle_labels, uniform_labels, smooth_labels, self_learn, pixel_noise])
def test_the_data_set_stays_as_it_is_and_the_same_seed_gives_the_same_bits(backdoored, alternative):
    before = DATA.images.clone(), DATA.targets.clone()
    one, two = after(alternative, backdoored), after(alternative, backdoored)
    assert torch.equal(DATA.images, before[0]) and torch.equal(DATA.targets, before[1])
    assert torch.equal(one.head.weight, two.head.weight)


def test_bytes_are_noised_like_floats(backdoored):
    images = DATA.images.mul(255).round().byte()
    bytes_ = type(DATA)(images, DATA.targets, DATA.task)
    floats = type(DATA)(images / 255, DATA.targets, DATA.task)
    one, two = after(pixel_noise, backdoored, bytes_), after(pixel_noise, backdoored, floats)
    torch.testing.assert_close(one.head.weight, two.head.weight, atol=0.02, rtol=0)
