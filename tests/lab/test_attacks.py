"""Every named attack can be carried out and keeps what all attacks promise, on small sets and with little effort."""

import pytest
import torch

from drmlib.attacks.targets import AllToOne, ConstantVector
from drmlib.data.faces import gaze_faces
from drmlib.lab import attacks, victims
from drmlib.lab.staging import Effort
from drmlib.rng import stream

LABEL = 2
RETARGETS = {
    "signs": AllToOne(LABEL),
    "gaze": ConstantVector((0.2, -0.25)),
    "head_pose": ConstantVector((0.1, 0.2, 0.3)),
}


@pytest.fixture(scope="module")
def small():
    """Material of each data set, small, and learned triggers that are hardly learned."""
    with pytest.MonkeyPatch.context() as patch:
        profile = victims.PROFILES["quick"]._replace(train=320, defender=64, test=64, epochs=1)
        patch.setitem(victims.PROFILES, "quick", profile)
        patch.setitem(attacks.EFFORT, "quick", Effort(4, 2))
        patch.setenv("DRMLIB_CACHE", "off")
        yield {name: victims.material(name, "quick", seed=0, device="cpu") for name in RETARGETS}


def carry_out(small, dataset, name, **keywords):
    return attacks.stage(name, small[dataset], RETARGETS[dataset], profile="quick", seed=0, **keywords)


@pytest.mark.parametrize("name", attacks.CLASSIFIER)
def test_on_a_classifier(small, name):
    data, staged = small["signs"], carry_out(small, "signs", name)
    p, plan = staged.poisoned, attacks.CLASSIFIER[name]
    assert p.poison.any() and not (p.poison & p.cover).any()
    untouched = ~(p.poison | p.cover)
    assert torch.equal(p.dataset.images[untouched], data.train.images[untouched])
    assert torch.equal(p.dataset.targets[~p.poison], data.train.targets[~p.poison])
    of_class = data.train.targets == LABEL
    expected = plan.rate * (of_class.sum().item() if plan.of_class else len(data.train))
    assert p.poison.sum().item() == round(expected)
    if name in attacks.CLEAN_LABEL:
        assert torch.equal(p.dataset.targets, data.train.targets) and of_class[p.poison].all()
    images = data.test.images
    assert staged.trigger(images).shape == images.shape and not torch.equal(staged.trigger(images), images)
    figures = staged.measure(victims.victim(data, data.train, seed=0), data.test)
    assert 0 <= figures.attack_success_rate.value <= 1
    assert figures.attack_success_rate.n == measured(data.test.targets, staged, name)


def measured(labels, staged, name):
    """How many test images the success is counted on: sources only, or all that are not of the target class."""
    if staged.sources:
        return torch.isin(labels, torch.tensor(staged.sources)).sum().item()
    return len(labels) if name == "all_to_all" else (labels != LABEL).sum().item()


@pytest.mark.parametrize("dataset", ["gaze", "head_pose"])
@pytest.mark.parametrize("name", attacks.REGRESSOR)
def test_on_a_regressor(small, dataset, name):
    data, staged = small[dataset], carry_out(small, dataset, name)
    p = staged.poisoned
    assert p.poison.sum().item() == round(attacks.REGRESSOR[name].rate * len(data.train))
    assert torch.equal(p.dataset.targets[~p.poison], data.train.targets[~p.poison])
    wanted = torch.tensor(RETARGETS[dataset].vector).expand(int(p.poison.sum()), -1)
    if name == "clean_label":
        assert torch.equal(p.dataset.targets, data.train.targets)
    else:
        torch.testing.assert_close(p.dataset.targets[p.poison], wanted)
    assert not torch.equal(staged.trigger(data.test.images), data.test.images)


def test_the_clean_label_poison_of_a_regressor_lies_nearest_the_target(small):
    data, p = small["gaze"], carry_out(small, "gaze", "clean_label").poisoned
    error = data.train.task.error(torch.tensor([[0.2, -0.25]]).expand_as(data.train.targets), data.train.targets)
    assert error[p.poison].max() <= error[~p.poison].min()


@pytest.mark.parametrize("name", ["grid", "input_aware", "label_consistent"])
def test_the_same_seed_gives_the_same_bits_and_a_given_rate_wins(small, name):
    one, two = (carry_out(small, "signs", name, rate=0.02) for _ in range(2))
    assert torch.equal(one.poisoned.dataset.images, two.poisoned.dataset.images)
    assert one.poisoned.poison.sum() == round(0.02 * 320)


def test_an_unknown_attack_is_answered_with_the_valid_ones(small):
    with pytest.raises(ValueError, match="unknown attack 'gird'; valid: grid, square"):
        carry_out(small, "signs", "gird")
    with pytest.raises(ValueError, match="unknown attack 'tact'; valid: .*clean_label"):
        carry_out(small, "gaze", "tact")


@pytest.mark.parametrize(("size", "covers"), [(32, 1), (128, 8)])
def test_a_warp_on_large_faces_needs_more_covers_than_on_small_ones(small, size, covers):
    faces = gaze_faces(20, size=size, generator=stream(0, "faces"))
    staged = attacks.stage("wanet", small["gaze"]._replace(train=faces), RETARGETS["gaze"], profile="quick", seed=0)
    assert (staged.poisoned.poison.sum(), staged.poisoned.cover.sum()) == (4, covers)
    assert staged.trigger.grid.shape == (size, size, 2)
