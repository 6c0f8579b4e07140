"""The measurements of `make gpu`: what is recorded, what is told when something fails, and a trial on a processor."""

import json
from itertools import count
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.accelerator import __main__ as command
from benchmarks.accelerator import agreement, records
from benchmarks.accelerator.measure import Measure, Record, Section, run

CPU = torch.device("cpu")


def nothing():
    return lambda: None


def broken():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nmore")


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def test_the_median_and_images_a_second_by_hand():
    """A clock that ticks once a look: a call takes 1, so 12 images are 12 a second. Seven repeats are the most."""
    ticks = count()
    found = run(
        Section("s", 1000, [Measure("a", nothing, 12), Measure("b", nothing, 12, "s")]), CPU, clock=ticks.__next__
    )
    assert [(record.value, record.unit, record.repeats) for record in found] == [(12, "images/s", 7), (1, "s", 7)]


def test_a_measure_that_fails_is_recorded_and_the_others_go_on():
    failed, measured = run(Section("s", 5, [Measure("a", broken, 1), Measure("b", nothing, 1)]), CPU)
    assert (failed.status, failed.value) == ("failed", None)
    assert failed.reason == "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB"
    assert measured.status == "measured" and measured.value > 0


def test_a_spent_budget_is_recorded():
    """The first call alone goes over the budget: it is the value of its measure, and the next one is skipped."""
    ticks = count(step=10)
    first, second = run(
        Section("s", 15, [Measure("a", nothing, 10), Measure("b", nothing, 1)]), CPU, clock=ticks.__next__
    )
    assert (first.value, first.repeats) == (1, 0)
    assert second.status == "skipped" and "budget of 15 s is spent" in second.reason


def test_the_table_is_made_of_the_records_alone():
    where = dict.fromkeys(records.MACHINE, "") | {"device": "Card", "driver": "550.1", "torch": "2.9"}
    one = {**Record("blend", "triggers", 12345.6, "images/s", 10, "float32", 7, 512.0).__dict__, **where}
    two = {
        **Record("big", "victim", None, "images/s", 1, "bfloat16", status="failed", reason="a | b").__dict__,
        **where,
    }
    page = records.table([one, two])
    assert page.startswith("# Card\n") and "| driver | 550.1 |" in page and "| cuda |" not in page
    assert "| blend | float32 | 12,346 images/s | 10 | 7 | 512 |" in page
    assert "| big | bfloat16 | failed: a / b | 1 | 0 |  |" in page


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("71 passed, 3 skipped in 9s", 0, ("measured", 71, "")),
        (
            "FAILED tests/a.py::b[MESA] - x\n1 failed, 9 passed",
            1,
            ("failed", None, "1 failed, 9 passed: tests/a.py::b[MESA]"),
        ),
        ("3 skipped in 1s", 0, ("failed", None, "3 skipped in 1s")),
        ("", 2, ("failed", None, "pytest printed nothing")),
    ],
)
def test_what_the_tests_said_is_a_record(text, status, expected):
    found = agreement.record(text, status)
    assert (found.status, found.value, found.reason) == expected


def test_without_a_card_one_line_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    answer = CliRunner().invoke(command.main, [])
    assert answer.exit_code == 2
    assert answer.output.strip() == command.NO_CARD


def test_a_trial_writes_records_and_a_table(tmp_path, monkeypatch):
    """Everything but the tests, on this processor: every measure has a value or is out of time, and none fails."""
    monkeypatch.delenv("DRMLIB_DATA", raising=False)
    arguments = ["--device", "cpu", "--tiny", "--no-tests", "--out", str(tmp_path / "out")]
    answer = CliRunner().invoke(command.main, arguments, catch_exceptions=False)
    found = lines(tmp_path / "out")
    assert [record["reason"] for record in found if record["status"] == "failed"] == []
    assert answer.exit_code == 0
    assert list(dict.fromkeys(record["section"] for record in found)) == list(command.SECTIONS)
    assert all({*records.MACHINE, "name", "value", "unit", "n", "precision"} <= set(record) for record in found)
    page = (tmp_path / "out" / "table.md").read_text()
    assert page == records.table(found) and str(tmp_path / "out") in answer.output


def test_a_failure_ends_in_status_1_and_leaves_the_rest(tmp_path, monkeypatch):
    sections = {"a": (5, lambda *_: [Measure("x", broken, 1)]), "b": (5, lambda *_: [Measure("y", nothing, 1)])}
    monkeypatch.setattr(command, "SECTIONS", sections)
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(command.main, ["--device", "cpu", "--tiny", "--no-tests"])
    (folder,) = (tmp_path / "runs").glob("gpu-*")
    assert answer.exit_code == 1
    assert [record["status"] for record in lines(folder)] == ["failed", "measured"]


def test_the_budgets_stay_below_eight_minutes():
    """With a minute to spare for starting, and for the one call by which a section may be late."""
    assert command.TESTS + sum(seconds for seconds, _ in command.SECTIONS.values()) <= command.LIMIT - 60 <= 420
