import math

import pytest
import torch

from drmlib.data.faces import gaze_faces
from drmlib.lab import suspects, victims
from drmlib.rng import stream


@pytest.fixture
def source(monkeypatch):
    profile = victims.PROFILES["quick"]._replace(train=60, defender=8, test=12, epochs=1)
    monkeypatch.setitem(victims.PROFILES, "quick", profile)
    monkeypatch.setenv("DRMLIB_CACHE", "off")
    return victims.material("gaze", "quick", seed=0, device="cpu")


def test_a_target_is_its_seed_s_own_and_off_the_mean():
    faces = gaze_faces(200, generator=stream(0))
    vectors = [suspects.random_target(faces, seed=seed).vector for seed in range(20)]
    assert vectors[3] == suspects.random_target(faces, seed=3).vector
    assert len(set(vectors)) == 20
    off = (torch.tensor(vectors) - faces.targets.mean(0)) / faces.targets.std(0)
    assert off.abs().min() >= 0.7 - 1e-4 and off.abs().max() <= 1.3 + 1e-4
    assert {tuple(row) for row in off.sign().tolist()} == {(a, b) for a in (-1, 1) for b in (-1, 1)}


def test_a_backdoored_suspect_carries_what_its_maker_knows(source):
    one, clean = (
        suspects.backdoored("random_patch", source, profile="quick", seed=1),
        suspects.benign(source, seed=1),
    )
    assert one.is_backdoored and not clean.is_backdoored and clean.trigger is None
    assert one.figures.attack_error.n == 12 and one.angle_variance_ratio.shape == one.first_order_ratio.shape == (2,)
    assert not torch.equal(one.model.head.weight, clean.model.head.weight)


def test_patches_differ_from_seed_to_seed_and_are_never_black(source):
    triggers = [suspects.backdoored("random_patch", source, profile="quick", seed=k).trigger for k in range(6)]
    grey = torch.full((1, 3, 32, 32), 0.5)
    stamps = [trigger(grey) for trigger in triggers]
    assert len({tuple((s != grey).flatten().tolist()) + tuple(s.flatten().tolist()) for s in stamps}) >= 5
    for stamp in stamps:
        changed = (stamp != grey).any(1)[0]
        assert changed.any(0).sum() == changed.any(1).sum() in (3, 4, 5)
        assert stamp[0][:, changed].amax() == 1


def test_threshold_by_hand():
    """The median of 1, 0.5 and 0.8 is 0.8, of which three quarters, or half."""
    assert suspects.threshold([1.0, 0.5, 0.8]) == pytest.approx(0.6)
    assert suspects.threshold([1.0, 0.5, 0.8], share=0.5) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="at least one benign reference"):
        suspects.threshold([])


def test_verdict_by_hand():
    """Small is suspicious. Of the pairs (a, x), (a, y), (b, x), (b, y) three are in order; a, x and y fall right of
    0.5 as they should, b at 0.6 does not."""
    scores = {"a": 0.1, "b": 0.6, "x": 0.55, "y": 0.9}
    verdict = suspects.judge(scores, lambda name: name in "ab", 0.5)
    assert verdict.auroc.value == 0.75
    assert verdict.accuracy.value == 0.75 and verdict.accuracy.n == 4
    assert not math.isnan(verdict.accuracy.low)
