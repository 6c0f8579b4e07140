import copy
from dataclasses import replace

import pytest
import torch

from drmlib.lab import repairs
from drmlib.lab.repairs import Suspected
from drmlib.mitigation.unlearn import unlearn
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, REGRESSION
from tests.problems import colour_images, slope_images

TASKS = pytest.mark.parametrize("regression", [False, True], ids=["labels", "vectors"])
SLOW = {"unlearning"}  # an inversion, tested on its own


def suspected(regression, seed=0):
    clean = slope_images(24) if regression else colour_images(24, size=16)
    recipe = replace(REGRESSION if regression else CLASSIFICATION, epochs=1, batch_size=12, frozen_norms=True)
    return Suspected(SmallCNN(len(clean.task.outputs), width=2, generator=stream(0)).eval(), clean, recipe, seed)


def labelled_by_itself(case):
    """The case with samples labelled as its model labels them, so that its error is zero."""
    with torch.no_grad():
        labels = case.model(case.clean.images).argmax(1)
    return case._replace(clean=replace(case.clean, targets=labels))


@pytest.mark.slow
@TASKS
def test_every_repair_returns_a_copy_that_still_answers(regression):
    case = suspected(regression)
    before = {name: value.clone() for name, value in case.model.state_dict().items()}
    for name in repairs.repairs_for(case.clean).keys() - SLOW:
        found = repairs.repair(name, case)
        assert found.model is not case.model and found.seconds > 0, name
        with torch.no_grad():
            assert found.model(case.clean.images).isfinite().all(), name
    assert all(torch.equal(before[name], value) for name, value in case.model.state_dict().items())


def test_at_least_ten_repairs_and_two_of_them_speak_of_classes():
    every, classes = (set(repairs.repairs_for(suspected(regression).clean)) for regression in (True, False))
    chosen = {f"{name}, rate by clean error" for name in ("NPD", "SAU")}
    assert len(every) >= 10 and classes - every == {"NPD", "SAU"} | chosen
    with pytest.raises(ValueError, match="SAU"):
        repairs.repair("SAU", suspected(True))


def test_the_rate_is_the_highest_that_held_out_samples_tolerate():
    """From four times the rate on the repair's answers are the least likely ones: six times is not asked for, and
    twice the rate is what comes back. A fifth of the 24 samples judges while the rate is sought; then all are learned.
    """
    case, asked = suspected(False), []

    def method(model, dataset, recipe, *, generator):
        times = round(recipe.learning_rate / case.recipe.learning_rate)
        asked.append((times, len(dataset)))
        changed = copy.deepcopy(model)
        for parameter in changed.head.parameters():
            parameter.data *= times if times < 4 else -1
        return changed

    found = repairs.by_rate(method, (1, 2, 4, 6))(labelled_by_itself(case))
    assert asked == [(1, 19), (2, 19), (4, 19), (2, 24)]
    assert torch.equal(found.head.weight, 2 * case.model.head.weight)


def test_a_trigger_at_hand_is_unlearned_with_the_same_draws():
    case = suspected(False)
    found = repairs.unlearn_with(case, torch.zeros_like)
    expected = unlearn(case.model, case.clean, torch.zeros_like, case.recipe, generator=case.stream("repair"))
    assert torch.equal(found.model.head.weight, expected.head.weight)
