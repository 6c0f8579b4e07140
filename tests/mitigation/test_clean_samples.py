import copy

import pytest
import torch

from drmlib.mitigation.clean_samples import (
    Tolerance,
    hold_out,
    last_tolerable,
    mean_error,
    shuffled,
    strongest_tolerable,
)
from drmlib.rng import stream
from tests.problems import PlantedChannel, colour_images, dim_images, slope_images

TASKS = pytest.mark.parametrize("regression", [False, True], ids=["labels", "vectors"])


def test_the_limit_by_hand():
    """A classifier wrong on 0.10 may be wrong on 0.14; a regressor off by 5 degrees may be off by 5.5."""
    assert Tolerance().limit(0.10, colour_images(3).task) == pytest.approx(0.14, abs=1e-5)
    assert Tolerance().limit(5.0, slope_images(3).task) == pytest.approx(5.5, abs=1e-5)


def test_the_rule_stops_at_the_first_that_costs_too_much():
    """0.10 may become 0.14: two levels pass, the third does not, and the fourth, which would, is never asked for."""

    def errors():
        yield from (0.10, 0.05, 0.14, 0.15)
        raise AssertionError("read further than the decision needs")

    assert last_tolerable(errors(), colour_images(3).task, Tolerance()) == 2
    assert last_tolerable([0.10, 0.15, 0.10], colour_images(3).task, Tolerance()) == 0
    assert last_tolerable([5.0, 5.4, 5.6, 5.0], slope_images(3).task, Tolerance()) == 1


def without(model, count):
    """The planted channel is the last: the first `count` of the channels taken from behind have no weight."""
    pruned = copy.deepcopy(model)
    pruned.head.weight.data[:, 4 - int(count) :] = 0
    return pruned


@TASKS
def test_the_strongest_tolerable_repair_is_returned(regression):
    """Without channel 3, the backdoor, nothing is lost on dim images; without a colour much is."""
    model, data = PlantedChannel(regression=regression), dim_images(30, regression=regression)
    repaired = strongest_tolerable(model, lambda count: without(model, count), (0, 1, 2, 3), data)
    assert torch.equal(repaired.head.weight, without(model, 1).head.weight)
    kept = strongest_tolerable(model, lambda count: without(model, count), (3, 1), data)
    assert kept is not model and torch.equal(kept.head.weight, model.head.weight)


def test_a_repair_that_diverges_is_too_strong():
    """The second level never comes back, and the third is not tried: the first is the last tolerable one."""
    model, data, asked = PlantedChannel(regression=False), dim_images(30, regression=False), []

    def repair(level):
        asked.append(level)
        if level == 2:
            raise FloatingPointError("loss is nan")
        return without(model, 1)

    found = strongest_tolerable(model, repair, (1, 2, 3), data)
    assert asked == [1, 2] and torch.equal(found.head.weight, without(model, 1).head.weight)


def test_the_mean_error_by_hand():
    """PlantedChannel is right on every dim image of its labels; with the labels moved on by one it is always wrong."""
    data = dim_images(9, regression=False)
    assert mean_error(PlantedChannel(regression=False), data) == 0
    wrong = type(data)(data.images, (data.targets + 1) % 3, data.task)
    assert mean_error(PlantedChannel(regression=False), wrong) == 1


def test_a_shuffled_pass_has_every_sample_once():
    parts = list(shuffled(colour_images(10), 4, generator=stream(0)))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert torch.cat(parts).sort().values.tolist() == list(range(10)) != torch.cat(parts).tolist()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_that_leaves_no_one_is_refused(share):
    with pytest.raises(ValueError, match=r"share in \(0, 1\)"):
        hold_out(colour_images(20), share, generator=stream(0))


def test_the_parts_are_disjoint_and_whole():
    data = colour_images(10)
    rest, held = hold_out(data, 0.2, generator=stream(0))
    assert (len(rest), len(held)) == (8, 2)
    sums = torch.cat([rest.images, held.images]).sum((1, 2, 3)).sort().values
    torch.testing.assert_close(sums, data.images.sum((1, 2, 3)).sort().values)
