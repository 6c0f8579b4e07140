"""The command line: answers in one line with the valid names, exit status 2, and nothing has run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from drmlib.lab import run as runner
from drmlib.lab.cli import main
from drmlib.lab.results import Result, Summary
from tests.lab import notebooks


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.delenv("DRMLIB_NOTEBOOKS", raising=False)
    monkeypatch.chdir(tmp_path)
    notebooks.write(tmp_path / "notebooks" / "00_a.ipynb", title="Start here")
    notebooks.write(tmp_path / "notebooks" / "04_b.ipynb", title="A regressor")
    return tmp_path


@pytest.fixture
def ran(monkeypatch):
    """Arguments with which the course would have been run."""
    calls = []

    def run_course(chosen, given, out, **rest):
        calls.append(([n.number for n in chosen], given, out, rest))
        held = [Result(n.number, n.name, n.title, n.part, status="held") for n in chosen]
        return Summary("2026-01-01T00:00:00", {}, held, state="complete")

    monkeypatch.setattr(runner, "run_course", run_course)
    return calls


def answer(*arguments):
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("run", "7"), "unknown notebook '7'; valid: 00, 04"),
        (("describe", "7"), "unknown notebook '7'; valid: 00, 04"),
        (("refresh", "http://host/x.ipynb"), "unknown notebook 'http://host/x.ipynb'; valid: 00, 04"),
        (("run", "--profile", "fast"), "unknown profile 'fast'; valid: quick, standard, paper"),
        (("run", "-p", "dataset=mnist"), "unknown dataset 'mnist'; valid: gaze, signs"),
        (("run", "-p", "rat=1"), "unknown parameter 'rat'; valid: profile, dataset, seed, device, rate"),
        (("run", "-p", "rate=high"), "parameter rate: expected float, got 'high'"),
        (("run", "--out", "notebooks/00_a.ipynb/out"), "Not a directory"),
        (("run", "--jobs", "0"), "expected --jobs to be a whole number above 0, got '0'"),
        (("run", "--jobs=-1"), "expected --jobs to be a whole number above 0, got '-1'"),
        (("run", "--jobs", "all"), "expected --jobs to be a whole number above 0, got 'all'"),
        (("refresh", "--jobs", "1.5"), "expected --jobs to be a whole number above 0, got '1.5'"),
    ],
)
def test_wrong_arguments_are_answered_in_one_line(here, ran, arguments, line):
    result = answer(*arguments)
    assert result.exit_code == 2 and not ran
    assert result.stderr.startswith("drmlib: ") and line in result.stderr and result.stderr.count("\n") == 1
    assert not result.stdout and not (here / "runs").exists()


def test_run_hands_on_what_was_asked(here, ran):
    result = answer("run", "4", "--profile", "standard", "-p", "rate=0.5", "--out", "here")
    assert result.exit_code == 0, result.output
    ((numbers, given, out, rest),) = ran
    assert numbers == ["04"] and given == {"04_b": {"profile": "standard", "rate": 0.5}}
    assert out == here / "here" and rest == {"cell_timeout": 24 * 3600, "jobs": None}
    assert result.stdout.endswith(f"{here / 'here' / 'summary.html'}\n") and "✓ held" in result.stdout
    answer("run")
    assert ran[1][0] == ["00", "04"] and ran[1][2].parent == here / "runs" and ran[1][3]["cell_timeout"] == 1800
    answer("run", "--jobs", "3")
    assert ran[2][3]["jobs"] == 3


def test_full_disk_is_one_line_and_exit_1(here, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner, "run_course", full)
    result = answer("run", "--out", "out")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "No space left on device" in result.stderr


def test_list_and_describe(here):
    assert answer("list").stdout == "Start here\n  00  Start here\nPoisoning\n  04  A regressor\n"
    described = answer("describe", "04_b").stdout
    assert "A regressor" in described and "  rate     float  0.1      fraction of poisoned samples\n" in described


def test_list_tells_what_a_notebook_costs_where_it_is_stored(here):
    path = here / "notebooks" / "04_b.ipynb"
    content = json.loads(path.read_text())
    content["metadata"]["drmlib"] = {"steps": 1000, "reference_step": 0.12}
    path.write_text(json.dumps(content))
    assert answer("list").stdout.endswith("  04  A regressor (about 2 min of one core)\n")


def test_no_notebooks_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("DRMLIB_NOTEBOOKS", str(tmp_path))
    result = answer("list")
    assert result.exit_code == 2 and f"no notebooks NN_name.ipynb in {tmp_path}" in result.stderr


def test_cache_tells_its_place_and_clears(tmp_path, monkeypatch):
    monkeypatch.setenv("DRMLIB_CACHE", str(tmp_path / "models"))
    assert answer("cache").stdout == f"{tmp_path / 'models'}: 0 models, 0.0 MB\n"
    (tmp_path / "models" / ("ab" * 32)).mkdir(parents=True)
    assert answer("cache", "--clear").exit_code == 0 and not list((tmp_path / "models").iterdir())
    monkeypatch.setenv("DRMLIB_CACHE", "off")
    assert "switched off" in answer("cache").stdout


def test_doctor_names_what_a_question_would_ask_for(here):
    found = answer("doctor").stdout
    for name in ("python", "torch ", "torchvision", "device", "threads", "cifar10", "cache", "free disk"):
        assert name in found


def test_list_imports_nothing_heavy(here):
    code = "import sys; from drmlib.lab.cli import main; main(['list'], standalone_mode=False); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "click" in loaded and not {"torch", "papermill", "nbformat", "matplotlib", "numpy"} & loaded
