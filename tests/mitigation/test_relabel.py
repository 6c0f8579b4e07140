from dataclasses import replace

import pytest
import torch
from torch import nn

from drmlib.attacks.localized import Region, localized
from drmlib.attacks.measure import measure_localized
from drmlib.attacks.targets import Offset
from drmlib.data.dataset import Dataset
from drmlib.data.functions import VALUE, hills, ripples, uniform
from drmlib.mitigation.fine_tune import fine_tune
from drmlib.mitigation.relabel import EPOCHS, RADIUS, relabel, relabel_recipe, relabelled, removed
from drmlib.models.mlp import MLP
from drmlib.rng import stream
from drmlib.training.fit import Recipe, fit

RECIPE = Recipe(nn.functional.mse_loss, epochs=30, batch_size=64, learning_rate=1e-2, weight_decay=0.0)
# Four rows around (0.5, 0.5): there, 0.125 off, 0.25 off, far. Binary fractions, so that distances are exact.
ROWS = torch.tensor([[0.5, 0.5], [0.625, 0.5], [0.5, 0.75], [0.0, 0.25]])
CENTRE = torch.tensor([[0.5, 0.5]], dtype=torch.float64)


def wrong():
    """Targets of 7, which ripples (at most 1) has nowhere."""
    return Dataset(ROWS, torch.full((4, 1), 7.0), VALUE)


def network(*, seed=0):
    return MLP(1, inputs=2, width=64, centre=0.5, scale=0.5, generator=stream(seed, "model"))


@pytest.mark.parametrize(
    ("centres", "radius", "near"),
    [
        (CENTRE, 0.1, [0]),
        (CENTRE, 0.125, [0, 1]),
        (CENTRE, 0.25, [0, 1, 2]),
        (torch.tensor([[0.625, 0.5], [0.0, 0.25]]), 0.0625, [1, 3]),
        (torch.tensor([[0.5, 0.5], [0.625, 0.5]]), 0.125, [0, 1]),
    ],
    ids=["one", "on the circle", "three", "two centres", "near both"],
)
def test_only_rows_near_a_centre_are_asked_about_and_changed(centres, radius, near):
    """A row near two centres is asked about once."""
    oracle, data = ripples(), wrong()
    result = relabelled(data, oracle, centres, radius=radius)
    wanted = torch.full((4, 1), 7.0)
    wanted[near] = ripples()(ROWS[near]).float()[:, None]
    assert oracle.calls == len(near)
    assert (
        torch.equal(result.images, ROWS)
        and torch.equal(result.targets, wanted)
        and result.targets.dtype == torch.float32
    )
    assert (data.targets == 7).all(), "the given data set is not changed"
    left = [i for i in range(4) if i not in near]
    assert torch.equal(removed(data, centres, radius=radius).images, ROWS[left])


def test_true_targets_stay_the_same():
    data = uniform(ripples(), 200, generator=stream(0))
    assert torch.equal(relabelled(data, ripples(), CENTRE, radius=0.3).targets, data.targets)


@pytest.mark.parametrize(
    ("centres", "message"),
    [
        (torch.tensor([[1.0, 1.0]]), r"within 0\.15 of a flagged maximiser, got none near 1; was anything flagged\?"),
        (torch.empty(0, 2), "got none near 0"),
    ],
)
def test_a_repair_with_nothing_near_is_refused(centres, message):
    assert RADIUS == 0.15
    for call in (
        lambda: relabelled(wrong(), ripples(), centres),
        lambda: removed(wrong(), centres),
        lambda: relabel(network(), wrong(), ripples(), centres, RECIPE, generator=stream(0)),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_recipe_of_the_repair_is_shorter_and_gentler():
    recipe = relabel_recipe(RECIPE)
    assert recipe.epochs == EPOCHS == 10 and recipe.learning_rate == pytest.approx(1e-2 / 3)
    assert replace(recipe, epochs=30, learning_rate=1e-2) == RECIPE


def test_it_is_fine_tuning_on_the_relabelled_rows_and_leaves_the_model_as_it_was():
    model, short = network(), replace(RECIPE, epochs=2, batch_size=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    repaired = relabel(model, wrong(), ripples(), CENTRE, short, radius=0.25, generator=stream(0))
    tuned = fine_tune(model, relabelled(wrong(), ripples(), CENTRE, radius=0.25), short, generator=stream(0))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(value, repaired.state_dict()[name]) for name, value in tuned.state_dict().items())
    assert not torch.equal(repaired.head.weight, model.head.weight)


def test_relabelling_a_poisoned_clump_removes_its_shift():
    """Poison of 0.3 on the plain shifts the network by 0.18 to 0.21 (five seeds), its repair leaves 0.01: asked for are
    half of the 0.3 before and a quarter of the shift after, with no larger error on the test set."""
    oracle, push = hills(inputs=2, width=0.25), Offset((0.3,))
    data, test = (uniform(oracle, 1000, generator=stream(0, part)) for part in ("train", "test"))
    region = Region(torch.tensor([0.3, 0.75]))
    poisoned = localized(data, oracle, region, push, count=100, surround=200, generator=stream(0, "poison"))
    model = network()
    fit(model, poisoned.dataset, RECIPE, generator=stream(0, "fit"))
    before = oracle.calls
    recipe = relabel_recipe(RECIPE)
    repaired = relabel(model, poisoned.dataset, oracle, region.centre[None], recipe, generator=stream(0, "repair"))
    asked = oracle.calls - before
    assert 250 < asked < 400, "ball and most of the shell, and 7 % of the 1,000 uniform rows"
    shifted, mended = (measure_localized(m, test, oracle, region, push, generator=stream(0)) for m in (model, repaired))
    assert shifted.shift.value > 0.15 and abs(mended.shift.value) < shifted.shift.value / 4
    assert mended.success.value == 0 and mended.test_error.value < shifted.test_error.value
