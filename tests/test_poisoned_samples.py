"""The benchmark of detectors of poisoned samples: who is retrained, and on what."""

from dataclasses import replace

import pytest
import torch

from benchmarks import poisoned_samples
from benchmarks.poisoned_samples import ABL, REPAIRS, attack_in_words, repaired, retrained
from drmlib.attacks.targets import AllToOne
from drmlib.data.signs import signs
from drmlib.lab.attacks import stage
from drmlib.lab.inspection import Findings, every
from drmlib.lab.victims import Material, untrained
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION


@pytest.fixture
def case(monkeypatch):
    """Data, a staged attack on 40 signs, and the data sets that victims were trained on, which no one really is."""
    parts = (signs(n, generator=stream(n, "signs")) for n in (40, 20, 10))
    source, seen = Material(*parts, replace(CLASSIFICATION, epochs=1), SmallCNN), []

    def victim(source, dataset, *, seed, name):
        seen.append(dataset)
        return untrained(source, seed=seed).eval()

    monkeypatch.setattr(poisoned_samples.victims, "victim", victim)
    return source, stage("grid", source, AllToOne(0), profile="quick", seed=0, rate=0.1), seen


def test_a_model_is_trained_on_what_is_not_flagged(case):
    source, staged, seen = case
    flagged = torch.arange(40) % 4 == 1
    backwards = torch.arange(39, -1, -1)
    text = retrained(Findings(backwards, torch.zeros(40), flagged.flip(0)), staged, source, 0)
    assert text.startswith("clean 0.") and len(seen) == 1
    assert torch.equal(seen[0].images, staged.poisoned.dataset.images[~flagged])
    assert torch.equal(seen[0].targets, staged.poisoned.dataset.targets[~flagged])


@pytest.mark.parametrize(
    "count, scored, words",
    [(0, 40, "flags 0%"), (21, 40, "flags 52%"), (3, 39, "scores a part only")],
)
def test_no_model_is_trained_where_nothing_too_much_or_a_part_is_flagged(case, count, scored, words):
    source, staged, seen = case
    found = every(torch.zeros(scored), torch.arange(scored) < count)
    assert retrained(found, staged, source, 0) == words and seen == []


def test_half_of_the_set_is_not_too_much(case):
    source, staged, seen = case
    retrained(every(torch.zeros(40), torch.arange(40) < 20), staged, source, 0)
    assert [len(d) for d in seen] == [20]


@pytest.mark.parametrize("repair", ["fine-pruning", ABL])
def test_a_repair_leaves_the_victim_as_it_is(case, repair):
    source = case[0]._replace(train=signs(100, generator=stream(100, "signs")))  # of 40 ABL's 1 % are none
    staged = stage("grid", source, AllToOne(0), profile="quick", seed=0, rate=0.1)
    victim = untrained(source, seed=1).eval()
    before = victim.head.weight.clone()
    model = repaired(repair, victim, staged, source, 0)
    assert torch.equal(victim.head.weight, before)
    assert not torch.equal(model.head.weight, before)
    with pytest.raises(ValueError, match="repair"):
        repaired("hope", victim, staged, source, 0)


@pytest.mark.parametrize("arguments, asked", [([], []), (["--repairs"], list(REPAIRS)), (["--repairs", ABL], [ABL])])
def test_repairs_names_repairs_or_means_all_of_them(monkeypatch, arguments, asked):
    given = []
    monkeypatch.setattr(poisoned_samples, "rows", lambda *positional, **named: given.append(positional[3]))
    monkeypatch.setattr("sys.argv", ["x", "signs", *arguments])
    poisoned_samples.main()
    assert given == [asked]


def test_an_attack_in_words(case):
    source, staged, _ = case
    figures = staged.measure(untrained(source, seed=0).eval(), source.test)
    assert attack_in_words(staged, figures).startswith(f"10.0 + 0.0 %, clean {figures.clean_accuracy.value:.3f}, succ")


@pytest.mark.parametrize(
    "arguments, retrain",
    [([], ()), (["--retrain"], ["SCAn", "AGPD"]), (["--retrain", "AGPD"], ["AGPD"])],
)
def test_retrain_names_methods_or_means_all_of_them(monkeypatch, arguments, retrain):
    asked = []
    monkeypatch.setattr(poisoned_samples, "rows", lambda *given, retrain, every_sample: asked.append(retrain))
    monkeypatch.setattr("sys.argv", ["x", "signs", "--methods", "SCAn", "AGPD", *arguments])
    poisoned_samples.main()
    assert asked == [retrain]
