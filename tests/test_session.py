"""Threads, devices, progress bars and the look-up of names at a notebook's border."""

import math
import os
import subprocess
import sys

import pytest
import torch

from drmlib import session


def test_auto_is_a_device_of_this_machine():
    assert session.device("auto").type == session.available_devices()[0]
    assert session.device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cpu:x"])
def test_unknown_device_is_answered_with_the_valid_ones(name):
    with pytest.raises(ValueError, match="valid here: auto, .*cpu"):
        session.device(name)


def test_who_needs_float64_is_not_given_mps(monkeypatch):
    monkeypatch.setattr(session, "available_devices", lambda: ["mps", "cpu"])
    assert session.device("auto").type == "mps" and session.device("auto", double=True).type == "cpu"
    with pytest.raises(ValueError, match="unknown device 'mps'; valid here: auto, cpu"):
        session.device("mps", double=True)


def test_lookup_lists_the_valid_names():
    table = {"badnets": 1, "blend": 2}
    assert session.lookup("attack", "blend", table) == 2
    with pytest.raises(ValueError, match="unknown attack 'blnd'; valid: badnets, blend"):
        session.lookup("attack", "blnd", table)


def test_headless_progress_is_text_on_stderr(capsys, monkeypatch):
    monkeypatch.setenv("DRMLIB_HEADLESS", "1")
    assert list(session.progress("training")(range(3))) == [0, 1, 2]
    captured = capsys.readouterr()
    assert "training" in captured.err and "3/3" in captured.err and not captured.out


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "4,2"}, 4),  # OpenMP's own form for nested regions
        ({"OMP_NUM_THREADS": "many"}, 3),
        ({"OMP_NUM_THREADS": "5", "DRMLIB_THREADS": "2"}, 2),
    ],
)
def test_a_person_chooses_the_threads_and_else_the_cores_do(environment, expected, monkeypatch):
    for name in ("OMP_NUM_THREADS", "DRMLIB_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(session, "cores", lambda: 3)
    assert session.wanted_threads() == expected


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(value, monkeypatch):
    monkeypatch.setenv("DRMLIB_THREADS", value)
    with pytest.raises(ValueError, match=f"DRMLIB_THREADS to be a whole number above 0, got '{value}'"):
        session.wanted_threads()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu.max": "rubbish"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_quota_of_a_cgroup_is_read_in_both_versions(files, expected, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert session.quota(tmp_path) == expected


@pytest.mark.parametrize(("pays_for", "expected"), [(math.inf, 4), (8.0, 4), (1.5, 2), (0.2, 1)])
def test_cores_are_those_of_affinity_and_no_more_than_the_quota_pays_for(pays_for, expected, monkeypatch):
    monkeypatch.setattr(session.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(session, "quota", lambda: pays_for)
    assert session.cores() == expected


REPORT = "from drmlib import session; t = session.threads(); print(t.threads, t.waiting)"


@pytest.mark.parametrize(
    ("code", "environment", "expected"),
    [
        (f"import drmlib, torch; {REPORT}", {"DRMLIB_THREADS": "1"}, "1 passive"),
        (f"import torch, drmlib; {REPORT}", {"DRMLIB_THREADS": "1"}, "1 system"),
        (f"import drmlib, torch; {REPORT}", {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "ACTIVE"}, "1 active"),
    ],
)
def test_a_process_settles_its_threads_before_torch_is_there(code, environment, expected):
    """Imported first, drmlib keeps threads from spinning; behind torch it is too late for that, and it says so."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "DRMLIB_"))}
    done = subprocess.run([sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr


def test_drmlib_itself_does_not_import_torch():
    done = subprocess.run(
        [sys.executable, "-c", "import drmlib, sys; print('torch' in sys.modules)"], capture_output=True
    )
    assert done.stdout.split() == [b"False"]
