import pytest
import torch

from drmlib.attacks.roaming_patch import RoamingPatch
from drmlib.inversion.mesa import LEVELS
from drmlib.lab import mesa_arms, victims
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream

TINY = {"steps": 2, "batch_size": 4, "noise": 8, "width": 8}


@pytest.fixture(scope="module")
def source():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(victims.PROFILES, "quick", victims.PROFILES["quick"]._replace(train=64, defender=100, test=40))
        yield victims.material("signs", "quick", seed=0, device="cpu")


def arms(source, model, seed=0):
    return mesa_arms.arms(
        model, source.defender.images[:20], RoamingPatch(torch.ones(3, 3, 3)), 0, restarts=2, seed=seed, **TINY
    )


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
    }
    images = source.test.images[:8]
    for name, several in found.items():
        for one, other in zip(several, again[name], strict=True):
            assert torch.equal(one(images), other(images))
            assert ((one(images) != images).any(1).sum((1, 2)) <= 9).all(), "a 3 x 3 window at most"
    assert found["level 0.8"][0].weight.tolist() == [0, 1, 0]
    assert found["equal weights"][0].weight.tolist() == pytest.approx([1 / 3] * 3)
    assert not torch.equal(found["MESA"][0](images), found["MESA"][1](images)), "another seed, another distribution"


def test_each_trigger_of_each_arm_gives_figures(source):
    model = SmallCNN(16, width=4, generator=stream(0)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    triggers = {"control": [mesa_arms.ordinary], "two": [mesa_arms.ordinary, RoamingPatch(torch.zeros(3, 3, 3))]}
    found = mesa_arms.retrained(model, source, triggers, RoamingPatch(torch.ones(3, 3, 3)), 0, share=0.1, seed=0)
    assert {name: len(figures) for name, figures in found.items()} == {"before": 1, "control": 1, "two": 2}
    assert found["control"][0] == found["two"][0] and found["before"][0].clean_accuracy.n == 40
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items()), "the model is not changed"
