import pytest
import torch

from drmlib.attacks.roaming_patch import RoamingPatch
from drmlib.inversion.mesa import LEVELS
from drmlib.lab import mesa_arms, victims
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import Recipe

RECIPE = Recipe(torch.nn.functional.cross_entropy, epochs=1, batch_size=50)
TINY = {"steps": 2, "batch_size": 4, "noise": 8, "width": 8}


@pytest.fixture(scope="module")
def source():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(victims.PROFILES, "quick", victims.PROFILES["quick"]._replace(train=64, defender=100, test=40))
        yield victims.material("signs", "quick", seed=0, device="cpu")


def arms(source, model, seed=0):
    images, true = source.defender.images[:20], RoamingPatch(torch.ones(3, 3, 3))
    further = mesa_arms.further_arms(model, images, true, 0, seed=seed, **TINY)
    return mesa_arms.arms(model, images, true, 0, restarts=2, seed=seed, **TINY) | further


def test_every_arm_has_its_triggers_and_they_follow_the_seed(source):
    model = SmallCNN(16, width=4, generator=stream(0)).eval()
    found, again = arms(source, model), arms(source, model)
    assert {name: len(several) for name, several in found.items()} == {
        "control": 1,
        "true trigger": 1,
        "point": 2,
        **{f"level {level}": 1 for level in LEVELS},
        "equal weights": 1,
        "MESA": 2,
        "size unknown": 1,
    }
    images = source.test.images[:8]
    for name, several in found.items():
        for one, other in zip(several, again[name], strict=True):
            assert torch.equal(one(images), other(images))
            side = 3 + mesa_arms.LARGER if name == "size unknown" else 3
            assert ((one(images) != images).any(1).sum((1, 2)) <= side * side).all(), "one window at most"
    assert found["level 0.8"][0].weight.tolist() == [0, 1, 0]
    assert torch.equal(found["level 0.8"][0].generators.layers[0].weight, found["MESA"][0].generators.layers[0].weight)
    assert found["equal weights"][0].weight.tolist() == pytest.approx([1 / 3] * 3)
    assert not torch.equal(found["MESA"][0](images), found["MESA"][1](images)), "another seed, another distribution"


def test_each_trigger_of_each_arm_gives_figures(source):
    model = SmallCNN(16, width=4, generator=stream(0)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    triggers = {"control": [mesa_arms.ordinary], "two": [mesa_arms.ordinary, RoamingPatch(torch.zeros(3, 3, 3))]}
    found = mesa_arms.retrained(
        model, source, triggers, RoamingPatch(torch.ones(3, 3, 3)), 0, recipe=RECIPE, share=0.1, seed=0
    )
    assert {name: len(figures) for name, figures in found.items()} == {"before": 1, "control": 1, "two": 2}
    assert found["control"][0] == found["two"][0] and found["before"][0].clean_accuracy.n == 40
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items()), "the model is not changed"


def test_every_round_of_the_attacker_poisons_other_samples_in_other_places(source, monkeypatch):
    seen = []
    monkeypatch.setattr(mesa_arms, "cached_fit", lambda model, whole, recipe, **_: seen.append((whole, recipe)))
    white = RoamingPatch(torch.ones(3, 3, 3))
    mesa_arms.backdoored(source, white, 0, rate=0.25, rounds=2, seed=0, name="white")
    (whole, recipe), clean = seen[0], source.train
    assert recipe.epochs == 1 and len(whole) == 2 * len(clean)
    first, second = ((whole.images[part] != clean.images).any(1) for part in (slice(0, 64), slice(64, 128)))
    poisoned = [first.flatten(1).any(1), second.flatten(1).any(1)]
    assert [int(p.sum()) for p in poisoned] == [16, 16] and not torch.equal(*poisoned)
    assert (whole.targets[:64][poisoned[0]] == 0).all() and torch.equal(
        whole.targets[:64][~poisoned[0]], clean.targets[~poisoned[0]]
    )
    both = poisoned[0] & poisoned[1]
    assert both.any() and not torch.equal(first[both], second[both]), "the same image, another place"


def test_an_attacker_who_fine_tunes_starts_from_a_copy_of_the_clean_model(source, monkeypatch):
    seen = []
    monkeypatch.setattr(mesa_arms, "cached_fit", lambda model, whole, recipe, **_: seen.append(model))
    start = SmallCNN(16, width=4, generator=stream(7))
    attack = {"rate": 0.25, "rounds": 1, "seed": 0, "name": "white"}
    for given in (start, None):
        mesa_arms.backdoored(source, RoamingPatch(torch.ones(3, 3, 3)), 0, start=given, **attack)
    tuned, anew = seen
    assert tuned is not start and torch.equal(tuned.head.weight, start.head.weight)
    assert not torch.equal(anew.head.weight, start.head.weight)
