from dataclasses import replace

import pytest
import torch

from drmlib.detection.abl_isolation import abl_isolation
from drmlib.detection.confusion_settings import SMALL
from drmlib.detection.confusion_training import confusion
from drmlib.lab import detectors
from drmlib.lab.detectors import DETECTORS, METHODS, inspect, learn_network, sample_of
from drmlib.lab.detectors_by_training import BY_TRAINING, ISOLATED
from drmlib.lab.inspection import Effort, Inspection, Training
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.abl import constant
from drmlib.training.fit import CLASSIFICATION
from tests.detection import planted

SHORT = replace(SMALL, rounds=tuple(r._replace(steps=8, pretrain_epochs=r.pretrain_epochs // 5) for r in SMALL.rounds))
EFFORT = Effort(overlays=10, steps=3, network=2, width=2, held_out=20)


@pytest.fixture(scope="module")
def given():
    c = planted.colours()
    sample = sample_of(c.poison, poisoned=30, clean=50, seed=0)
    network = learn_network(c.clean, EFFORT, seed=0)
    count, start = int(c.poison.sum()), SmallCNN(3, width=8, generator=stream(1, "colours"))
    training = Training(start, replace(CLASSIFICATION, epochs=4, batch_size=32), SHORT)
    train, clean = (replace(d, task=replace(d.task, outputs=d.task.outputs[:3])) for d in (c.train, c.clean))
    return Inspection(c.model, train, clean, sample, network, EFFORT, count, 0, training), c.poison


@pytest.mark.parametrize("name", METHODS)
def test_every_detector_has_a_finding_for_each_sample_it_scores(name, given):
    found, figures = inspect(name, *given)
    inspection, poison = given
    n = len(found.samples)
    assert n in (len(inspection.sample), len(poison)) and found.scores.shape == found.flagged.shape == (n,)
    assert found.scores.isfinite().all() and figures.auroc.n == n and figures.seconds > 0
    assert figures.tpr.n + figures.fpr.n == n


@pytest.mark.parametrize("name", ["SCAn", "AGPD", "Beatrix", "STRIP", "SentiNet"])
def test_a_plain_patch_is_found(name, given):
    assert inspect(name, *given)[1].auroc.value > 0.9


def test_confusion_training_flags_what_it_removes_with_all_clean_samples_reserved(given):
    inspection, _ = given
    g = inspection.stream("confusion training")
    direct = confusion(
        inspection.model, inspection.train, inspection.clean, inspection.model, settings=SHORT, generator=g
    )
    found, _ = inspect("confusion training", *given)
    assert torch.equal(found.samples, torch.arange(600)) and torch.equal(found.scores, direct.scores)
    assert 0 < direct.removed.sum() < 600 and torch.equal(found.flagged, direct.removed)


def test_abl_isolates_the_one_per_cent_of_the_lowest_loss(given):
    """Six of 600, those of the highest scores, after one epoch of the four that a victim is trained for."""
    inspection, _ = given
    found, _ = inspect("ABL isolation", *given)
    assert torch.equal(found.samples, torch.arange(600)) and int(found.flagged.sum()) == 6 == ISOLATED * 600
    assert found.scores[found.flagged].min() >= found.scores[~found.flagged].max()
    training = inspection.training
    direct = abl_isolation(
        training.network,
        inspection.train.images,
        inspection.train.targets,
        replace(
            CLASSIFICATION, epochs=1, batch_size=32, learning_rate=CLASSIFICATION.learning_rate / 3, schedule=constant
        ),
        generator=inspection.stream("ABL isolation"),
    )
    assert torch.equal(found.scores, direct)


def test_confusion_training_starts_from_the_victim_where_its_first_round_does_not_pretrain(given):
    inspection, poison = given
    training = inspection.training
    other = training._replace(network=SmallCNN(3, width=8, generator=stream(2, "colours")))
    pretrained = replace(SHORT, rounds=(SHORT.rounds[0]._replace(pretrain_epochs=1), *SHORT.rounds[1:]))

    def scores(training):
        return inspect("confusion training", inspection._replace(training=training), poison)[0].scores

    assert torch.equal(scores(training), scores(other))
    first, second = (scores(t._replace(confusion=pretrained)) for t in (training, other))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", BY_TRAINING)
def test_those_that_train_say_what_they_need(name, given):
    with pytest.raises(ValueError, match="expected an Inspection with `training`"):
        inspect(name, given[0]._replace(training=None), given[1])


def test_what_trains_is_no_part_of_the_detectors_of_a_model():
    assert set(METHODS) - set(DETECTORS) == set(BY_TRAINING) == {"confusion training", "ABL isolation"}


def test_the_sample_holds_as_many_of_either_kind_as_asked_and_each_once():
    poison = torch.arange(100) < 10
    sample = sample_of(poison, poisoned=4, clean=200, seed=0)
    assert len(sample.unique()) == len(sample) == 94 and int(poison[sample].sum()) == 4
    assert torch.equal(sample, sample_of(poison, poisoned=4, clean=200, seed=0))


def test_an_unknown_name_is_answered_with_the_valid_ones(given):
    with pytest.raises(ValueError, match="valid: spectral signatures, activation clustering, SCAn"):
        inspect("scan", *given)


def test_every_profile_has_its_effort():
    assert set(detectors.EFFORT) == {"quick", "standard", "paper"}
