"""What notebooks store of their cost, and what is left of a run."""

import json

import pytest

from drmlib.lab import estimates
from drmlib.lab.estimates import Pace, Stored
from tests.lab import notebooks

COST = {"steps": 1000, "cpu_seconds": 100.0, "reference_step": 0.1, "seconds": 110, "peak_mb": 500.0}


def costing(path, cost):
    content = json.loads(notebooks.write(path).read_text())
    content["metadata"]["drmlib"] = {**cost, "other": 1}
    path.write_text(json.dumps(content))
    return path


def test_stored_figures_are_read_and_a_notebook_without_is_guessed(tmp_path):
    whole = costing(tmp_path / "01_a.ipynb", COST)
    assert estimates.stored(whole) == Stored(**COST) and estimates.expected(whole) == 100
    assert estimates.expected(costing(tmp_path / "02_a.ipynb", {"seconds": 7})) == 7
    assert estimates.expected(costing(tmp_path / "03_a.ipynb", {})) == estimates.UNKNOWN


def test_steps_by_hand():
    assert estimates.steps(12.3, 0.1) == 123 and estimates.steps(0.001, 0.1) == 1


def test_cost_in_words():
    assert estimates.in_words(Stored()) == ""
    assert estimates.in_words(Stored(**COST)) == "about 2 min of one core"
    assert estimates.in_words(Stored(steps=300, reference_step=0.1)) == "about 30 s of one core"


def test_a_machine_of_half_the_speed_is_expected_to_take_twice_as_long(tmp_path):
    paths = [costing(tmp_path / "01_a.ipynb", COST), costing(tmp_path / "02_a.ipynb", {})]
    assert estimates.first_guess(paths, 0.2) == pytest.approx(2)
    assert estimates.first_guess(paths[1:], 0.2) is None


def test_what_is_left_by_hand():
    """At pace 2, a (10 s) has run for 5 and needs 15 more; b takes 40 beside it, c 10 after a: 40, or alone 65."""
    pace = Pace({"a": 10, "b": 20, "c": 5}, guess=2.0)
    assert pace.left({"a": 5.0}, ["b", "c"], jobs=2) == 40
    assert pace.left({"a": 5.0}, ["b", "c"], jobs=1) == 65
    assert pace.left({"a": 50.0}, [], jobs=1) == 0  # it takes longer than expected: no negative time
    pace.done("c", 5.0)  # pace 1 now
    assert pace.left({"a": 5.0}, ["b"], jobs=2) == 20
    assert Pace({"a": 10}, guess=None).left({}, ["a"], jobs=1) is None
