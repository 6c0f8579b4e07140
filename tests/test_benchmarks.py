import json

import pytest

from benchmarks import (
    confusion,
    detection,
    functions,
    images,
    inversion,
    malicious_inputs_speed,
    notebooks,
    poisoning,
    repair,
    threads,
    training,
)
from benchmarks.timing import compare, report
from drmlib.metrics import Estimate
from tests.lab import notebooks as small


def test_medians_and_the_ratio_by_hand():
    """A clock by which ours takes 1, 2, 9 and the reference 1, 1, 3: medians 2 and 1, ratios 1, 2, 3, median 2."""
    moments = iter([0, 1, 0, 1, 0, 2, 0, 1, 0, 9, 0, 3])
    row = compare("x", lambda: None, lambda: None, repeats=3, clock=lambda: next(moments))
    assert (row.ours, row.reference, row.ratio) == (2, 1, 2)
    assert "2.00" in report([row])


@pytest.mark.parametrize(
    ("run", "arguments", "rows"),
    [
        (poisoning.run, {"n": 16}, 23),
        (images.run, {"n": 16}, 3),
        (training.run, {"n": 20, "batch_size": 8}, 3),
        (threads.run, {"seconds": 0.01, "repeats": 1}, 2),
        (inversion.run, {"steps": 1, "classes": 3}, 4),
        (confusion.run, {"n": 64}, 1),
        (detection.run, {"n": 120, "classes": 4, "width": 16}, 3),
        (functions.run, {"seeds": 2, "steps": 1, "prices": 2}, 4),
        (malicious_inputs_speed.run, {"n": 40, "mutants": 2}, 8),
    ],
)
def test_each_benchmark_runs(run, arguments, rows):
    measured = run(**arguments)
    assert len(measured) == rows and all(row.ratio > 0 for row in measured)


def test_budgets_beside_what_notebooks_store_and_what_that_takes_here(tmp_path):
    """1000 of 2000 steps are half; at 0.3 s a step they take 300 s, which is 5 min."""
    path = small.write(tmp_path / "01_a.ipynb")
    content = json.loads(path.read_text())
    content["metadata"]["drmlib"] = {"steps": 1000, "cpu_seconds": 100.0, "reference_step": 0.1, "peak_mb": 500}
    path.write_text(json.dumps(content))
    lines = notebooks.table([path, small.write(tmp_path / "02_b.ipynb")], {"01": 2000, "02": 900}, 0.3).splitlines()
    assert lines[2].split() == ["01_a", "1000", "2000", "50%", "100.0", "300", "500"]
    assert lines[3].split() == ["02_b", "0", "900", "0%", "0.0", "0", "0"]
    assert lines[4] == "All: 1000 steps, about 5 min of one core at 300 ms a step."


def test_the_cells_of_a_repair_have_figures_with_intervals_and_its_rating():
    """Success falls by 0.8 and accuracy by 0.1: (0.8 - 0.1 + 1) / 2 = 0.85. A regressor is not rated."""
    before = [Estimate(1.0, 0.9, 1.0, 9), Estimate(1.0, 0.9, 1.0, 9)]
    found = [Estimate(0.9, 0.8, 0.95, 9), Estimate(0.2, 0.1, 0.4, 9)]
    assert repair.cells(found, before, regression=False) == [
        "0.900 (0.800–0.950)",
        "0.200 (0.100–0.400)",
        "0.850",
    ]
    assert repair.cells(found, before, regression=True) == ["0.90 (0.80–0.95)", "0.20 (0.10–0.40)"]
