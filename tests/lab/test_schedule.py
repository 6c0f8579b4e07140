"""Which notebooks run when: the plan, how many at once, and how a run ends by Ctrl-C or an error."""

import _thread
import json
import threading
import time
import types

import pytest

from drmlib import session
from drmlib.lab import course, schedule
from drmlib.lab.schedule import jobs_for, phases, side_by_side
from tests.lab import notebooks


@pytest.fixture
def lessons(tmp_path):
    """Notebooks 00 to 03 that store 90, 10, no and 30 CPU seconds."""
    for number, cost in enumerate(({"cpu_seconds": 90}, {"cpu_seconds": 10}, {}, {"cpu_seconds": 30})):
        path = notebooks.write(tmp_path / f"{number:02}_a.ipynb")
        content = json.loads(path.read_text())
        content["metadata"]["drmlib"] = cost
        path.write_text(json.dumps(content))
    return course.discover(tmp_path)


@pytest.fixture
def machine(monkeypatch):
    """Eight cores, memory for five notebooks."""
    monkeypatch.delenv("DRMLIB_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setattr(session, "cores", lambda: 8)
    monkeypatch.setattr(schedule, "available_memory", lambda: 4.1e9)


def planned(plan):
    return [([n.number for n in phase.notebooks], phase.jobs, phase.threads) for phase in plan]


def test_00_is_alone_and_first_then_the_longest_on_one_thread_each(lessons, machine):
    assert planned(phases(lessons, 2)) == [(["00"], 1, 8), (["02", "03", "01"], 2, 1)]  # what is unknown takes 60 s
    assert planned(phases(lessons[1:], 9)) == [(["02", "03", "01"], 3, 1)]
    assert planned(phases(lessons[:1], 2)) == [(["00"], 1, 8)]


def test_one_after_another_is_in_reading_order_on_all_cores(lessons, machine):
    assert planned(phases(lessons, 1)) == [(["00", "01", "02", "03"], 1, 8)]


def test_no_more_at_once_than_notebooks_cores_memory_and_threads_allow(machine, monkeypatch):
    assert [jobs_for(count) for count in (0, 1, 3, 16)] == [1, 1, 3, 5]
    assert [jobs_for(16, wanted) for wanted in (1, 12, 99)] == [1, 12, 16]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert jobs_for(16) == 2
    monkeypatch.setattr(schedule, "available_memory", lambda: 1e8)
    assert jobs_for(16) == 1


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "", "²"])
def test_jobs_must_be_a_whole_number_above_0(text):
    with pytest.raises(ValueError, match=f"expected --jobs to be a whole number above 0, got '{text}'"):
        schedule.parse_jobs(text)
    assert schedule.parse_jobs("3") == 3 and schedule.parse_jobs(None) is None


def test_memory_of_a_container_counts(tmp_path, monkeypatch):
    """Limit 1000, used 700 of which 200 are cached files: 500 are to be had."""
    monkeypatch.setattr(schedule.psutil, "virtual_memory", lambda: types.SimpleNamespace(available=2000))
    assert schedule.available_memory(tmp_path) == 2000
    for name, text in {"max": "1000\n", "current": "700\n", "stat": "anon 1\ninactive_file 200\nfile 9\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert schedule.available_memory(tmp_path) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert schedule.available_memory(tmp_path) == 2000


class Work:
    """Sleeps for a task's hundredths of a second, or until it shall stop; notes how many were at work at once."""

    def __init__(self):
        self.lock, self.now, self.most, self.heard = threading.Lock(), 0, 0, []

    def __call__(self, task, stop):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        stopped = stop.wait(task / 100)
        with self.lock:
            self.now -= 1
        return "stopped" if stopped else "ended"

    def finished(self, task, result):
        assert threading.current_thread() is threading.main_thread()
        self.heard.append((task, result))
        return True


def test_tasks_run_so_many_at_once_and_are_heard_of_as_they_end():
    work = Work()
    assert side_by_side([30, 1, 2, 3], 2, work, work.finished)
    assert work.most == 2 and work.heard == [(task, "ended") for task in (1, 2, 3, 30)]


def test_ctrl_c_ends_all_that_run_and_none_begins():
    work = Work()

    def pressing(task, stop):
        if task == 501:
            _thread.interrupt_main()
        return work(task, stop)

    start = time.monotonic()
    assert not side_by_side([500, 501, 502], 2, pressing, work.finished)
    assert sorted(work.heard) == [(500, "stopped"), (501, "stopped")] and time.monotonic() - start < 4


def test_an_error_and_who_says_so_end_all():
    work = Work()
    with pytest.raises(OSError, match="full"):
        side_by_side([500, 1, 502], 2, work, lambda *_: (_ for _ in ()).throw(OSError("full")))
    assert work.now == 0
    assert not side_by_side([500, 1, 502], 2, work, lambda *heard: work.finished(*heard) and False)
    assert work.heard == [(1, "ended"), (500, "stopped")]
