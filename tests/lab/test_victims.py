from functools import partial

import pytest
import torch

from drmlib.data import faces
from drmlib.data.digits import digits
from drmlib.data.faces import gaze_faces
from drmlib.lab import victims
from drmlib.lab.fingerprint import fingerprint
from drmlib.models.mixed_precision import MixedPrecision
from drmlib.models.mnist_cnn import MnistCNN
from drmlib.models.predict import predict
from drmlib.rng import stream


@pytest.fixture
def tiny(monkeypatch):
    profile = victims.PROFILES["quick"]._replace(train=40, defender=8, test=12, epochs=1)
    monkeypatch.setitem(victims.PROFILES, "quick", profile)
    monkeypatch.setenv("DRMLIB_CACHE", "off")


@pytest.mark.parametrize("name", ["gaze", "head_pose", "signs"])
def test_rendered_material_is_disjoint_and_follows_its_seed(tiny, name):
    one, two, other = (victims.material(name, "quick", seed=seed, device="cpu") for seed in (0, 0, 1))
    assert [len(part) for part in one[:3]] == [40, 8, 12] and one.recipe.epochs == 1
    assert torch.equal(one.train.images, two.train.images)
    assert not torch.equal(one.train.images, other.train.images)
    assert not torch.equal(one.train.images[:8], one.defender.images)


def test_the_digits_are_shared_out_and_their_network_is_the_papers(tiny):
    one, other = (victims.material("digits", "quick", seed=seed, device="cpu") for seed in (0, 1))
    assert [len(part) for part in one[:3]] == [1000, 400, 397]
    assert not torch.equal(one.train.images, other.train.images)
    together = torch.cat([part.images for part in one[:3]])
    assert len(together) == len(digits()) and torch.equal(together.sum(0), digits().images.sum(0))
    assert isinstance(victims.untrained(one, seed=0), MnistCNN) and one.recipe.epochs == 5


def test_a_benign_and_a_poisoned_victim_of_one_seed_start_from_the_same_weights(tiny):
    source = victims.material("gaze", "quick", seed=0, device="cpu")
    one, two, other = (victims.victim(source, source.train, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.head.weight, two.head.weight) and not torch.equal(one.head.weight, other.head.weight)


def test_precision_is_of_the_recipe_and_so_of_the_key_of_the_cache(tiny, monkeypatch):
    """A victim that was trained in bfloat16 is not served where float32 was asked for, and the other way round."""
    found = {}
    for word in ("float32", "bfloat16"):
        monkeypatch.setenv("DRMLIB_PRECISION", word)
        source = victims.material("gaze", "quick", seed=0, device="cpu")
        model = victims.untrained(source, seed=0)
        assert isinstance(victims.searched(model), MixedPrecision) == (word == "bfloat16")
        found[word] = source.recipe.autocast, fingerprint(source.recipe)[0]
    assert found["float32"][0] is None and found["bfloat16"][0] == torch.bfloat16
    assert found["float32"][1] != found["bfloat16"][1]


def test_a_victim_trained_in_bfloat16_has_float32_weights_and_answers(tiny, monkeypatch):
    monkeypatch.setenv("DRMLIB_PRECISION", "bfloat16")
    source = victims.material("gaze", "quick", seed=0, device="cpu")
    model = victims.victim(source, source.train, seed=0)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert predict(model, source.test.images).dtype == torch.float32


def test_train_defender_and_test_show_other_people(tiny, monkeypatch):
    """The people of a set follow its own stream: no skin of one part is found in another."""
    seen = []
    drawn = faces.random_appearance
    monkeypatch.setattr(faces, "random_appearance", lambda *a, **k: seen.append(drawn(*a, **k)) or seen[-1])
    victims.material("gaze", "quick", seed=0, device="cpu")
    skins = [{tuple(row.tolist()) for row in look.skin} for look in seen]
    assert len(skins) == 3 and not (skins[0] & skins[1] or skins[0] & skins[2] or skins[1] & skins[2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: victims.material("faces", "quick", seed=0, device="cpu"),
            "unknown dataset 'faces'; valid: gaze, head",
        ),
        (lambda: victims.material("gaze", "fast", seed=0, device="cpu"), "unknown profile 'fast'; valid: quick, stand"),
    ],
)
def test_unknown_names_are_answered_with_the_valid_ones(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_named_set_that_is_absent_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("DRMLIB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="signs"):
        victims.material("cifar10", "quick", seed=0, device="cpu")


def test_real_people_are_in_one_part_only_and_nobody_is_asked_for_too_many_frames(tiny, monkeypatch):
    """Seven people, three frames each: a fifth is one person for the defender, one for testing, five train."""
    asked = []

    def load(*, subjects, size, limit):
        asked.append((subjects, limit))
        return gaze_faces(limit, size=size, generator=stream(0, *subjects))

    people = tuple("abcdefg")
    monkeypatch.setitem(victims.DATASETS, "people", partial(victims._people, load, people, 3))
    found = victims.material("people", "quick", seed=0, device="cpu")
    assert [len(part) for part in found[:3]] == [15, 3, 3]
    assert [len(subjects) for subjects, _ in asked] == [5, 1, 1]
    assert sorted(name for subjects, _ in asked for name in subjects) == list(people)


@pytest.mark.parametrize("name", ["mpiifacegaze", "columbia_gaze", "biwi", "pandora"])
def test_a_licensed_set_that_is_not_there_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setenv("DRMLIB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="terms"):
        victims.material(name, "quick", seed=0, device="cpu")
