"""A run of the course: what is kept, told and returned when notebooks hold, fail, or are cut off.

The kernel is replaced here; tests/lab/test_execute.py starts real ones.
"""

import errno
import io
import json
import re
import subprocess
import threading

import nbformat
import pytest

from drmlib.lab import course, execute, records, run, runfolder
from drmlib.lab import environment as surroundings
from drmlib.lab.execute import Error, Execution
from drmlib.lab.results import FAILED, FAILS, HELD, INTERRUPTED, NOT_RUN, terminal_table
from tests.lab import notebooks

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # one pixel


def claim(holds, value=0.1234567890123):
    record = {"name": "rate < 1", "value": value, "low": 0.1, "high": 0.2, "n": 50, "at_least": 0.1, "at_most": None}
    return nbformat.v4.new_output(
        "display_data", {"text/plain": "claim", records.CLAIM: {**record, "source": "Table 2", "holds": holds}}
    )


def shortfall():
    record = {"name": "speed", "asked": 10, "reached": 7.5, "reason": "one core"}
    return nbformat.v4.new_output("display_data", {"text/plain": "shortfall", records.SHORTFALL: record})


def figure():
    about = {records.FIGURE: {"caption": "Error falls", "alt": 'a "line"', "key": True}}
    return nbformat.v4.new_output("display_data", {"image/png": PNG}, metadata=about)


def executed(path, *outputs, error=None, interrupted=False):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].outputs = list(outputs)
    return Execution(notebook, 1.5, 1.25, 321.0, error, interrupted)


@pytest.fixture
def lessons(tmp_path, monkeypatch):
    for name in ("00_a", "01_b", "02_c"):
        notebooks.write(tmp_path / "notebooks" / f"{name}.ipynb", "run()", title=f"Title of {name} <&>")
    return course.discover(tmp_path / "notebooks")


@pytest.fixture
def kernel(monkeypatch):
    """What each notebook does when executed, by number; those not named hold one claim."""
    behaviour = {}

    def fake(path, given, **_):
        found = behaviour.get(path.name[:2], lambda path: executed(path, claim(True)))
        return found(path)

    monkeypatch.setattr(execute, "execute", fake)
    return behaviour


def started(lessons, out, given=None, jobs=1):
    return run.run_course(lessons, given or {}, out, jobs=jobs, stream=io.StringIO())


def statuses(out):
    return [notebook["status"] for notebook in json.loads((out / "summary.json").read_text())["notebooks"]]


def test_all_hold(lessons, kernel, tmp_path):
    summary = started(lessons, tmp_path / "out", {"01_b": {"rate": 0.5}})
    assert summary.exit_code == 0 and summary.state == "complete"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [f"{n.name}.{kind}" for n in lessons for kind in ("ipynb", "html")] + ["summary.html", "summary.json"]
    )
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert record["notebooks"][0]["claims"][0]["value"] == 0.1234567890123
    assert record["notebooks"][0]["claims"][0]["cell"] == 3
    assert [n["parameters"]["rate"] for n in record["notebooks"]] == [0.1, 0.5, 0.1]
    assert {"python", "torch", "device", "drmlib"} <= record["environment"].keys()


def test_failure_and_failing_claim_are_told_and_the_others_run(lessons, kernel, tmp_path):
    kernel["00"] = lambda path: executed(path, error=Error(3, "run()", "ValueError: no"))
    kernel["01"] = lambda path: executed(path, claim(False), claim(True), shortfall())
    summary = started(lessons, tmp_path / "out")
    assert summary.exit_code == 1 and statuses(tmp_path / "out") == [FAILED, FAILS, HELD]
    table = terminal_table(summary)
    assert "✗ 00_a, cell 3: ValueError: no  (in: run())" in table
    assert "✗ 01_b, cell 3: claim FAILS: rate < 1, measured 0.123457 [0.1, 0.2], n = 50, expected at least 0.1" in table
    assert re.search(r"01_b +✗ claims fail +1.5 +1.2 +321 +1/2 +1\n", table)
    assert summary.verdict() == "2 of 3 notebooks ran; 2 of 3 claims hold; claims fail in: 01; failed: 00."


def test_a_failing_claim_alone_is_exit_status_1(lessons, kernel, tmp_path):
    kernel["01"] = lambda path: executed(path, claim(False))
    assert started(lessons, tmp_path / "out").exit_code == 1


def test_record_is_on_disk_after_each_notebook(lessons, kernel, tmp_path):
    seen = []
    kernel["02"] = lambda path: seen.append(statuses(tmp_path / "out")) or executed(path)
    started(lessons, tmp_path / "out")
    assert seen == [[HELD, HELD, NOT_RUN]]


def test_ctrl_c_keeps_what_is_finished_and_says_what_is_missing(lessons, kernel, tmp_path):
    kernel["01"] = lambda path: executed(path, claim(True), interrupted=True)
    summary = started(lessons, tmp_path / "out")
    assert summary.exit_code == 130 and statuses(tmp_path / "out") == [HELD, INTERRUPTED, NOT_RUN]
    assert "not finished: 01, 02" in summary.verdict()
    assert "The run is interrupted" in (tmp_path / "out" / "summary.html").read_text()


def test_ctrl_c_between_kernels(lessons, kernel, tmp_path, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runfolder.export, "to_html", pressed)
    summary = started(lessons, tmp_path / "out")
    assert summary.exit_code == 130 and statuses(tmp_path / "out") == [INTERRUPTED, NOT_RUN, NOT_RUN]


def test_full_disk_keeps_the_notebooks_that_are_done(lessons, kernel, tmp_path, monkeypatch):
    whole = runfolder.write

    def full(path, data):
        if path.name == "01_b.html":
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, data)

    monkeypatch.setattr(runfolder, "write", full)
    with pytest.raises(OSError, match="No space left"):
        started(lessons, tmp_path / "out")
    assert statuses(tmp_path / "out") == [HELD, INTERRUPTED, NOT_RUN]
    assert (tmp_path / "out" / "00_a.html").exists() and not list((tmp_path / "out").glob("01_b.html*"))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["state"] == "stopped"


def test_unwritable_or_used_folder_is_refused_before_anything_runs(lessons, kernel, tmp_path):
    ran = []
    kernel["00"] = lambda path: ran.append(path) or executed(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        started(lessons, tmp_path / "file" / "out")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "summary.json").write_text("{}")
    with pytest.raises(FileExistsError, match="holds a run already"):
        started(lessons, tmp_path / "used")
    assert not ran


def test_page_is_complete_without_other_files_scripts_or_colour(lessons, kernel, tmp_path):
    kernel["00"] = lambda path: executed(path, claim(True), claim(False, value=2.0), shortfall(), figure())
    started(lessons, tmp_path / "out")
    page = (tmp_path / "out" / "summary.html").read_text()
    assert "<script" not in page and "http" not in re.sub(r"xmlns=\S+", "", page)
    assert [int(level) for level in re.findall(r"<h(\d)", page)] == [1, 2, 2, 2, 2, 2, 2]
    assert "✓ holds" in page and "✗ FAILS" in page and '<data value="0.1234567890123">' in page
    assert 'alt="a &quot;line&quot;"' in page and f'src="data:image/png;base64,{PNG}"' in page
    assert "rate &lt; 1" in page and "Title of 00_a &lt;&amp;&gt;" in page and "one core" in page
    assert '<a href="00_a.html">' in page and 'lang="en"' in page
    assert all("scope=" in head for head in re.findall(r"<th[ >][^>]*", page))


def test_notebook_page_has_alt_texts_and_loads_nothing_but_mathjax(lessons, kernel, tmp_path):
    loading = nbformat.v4.new_output("display_data", {"text/html": '<script src="https://host/x.js"></script>'})
    kernel["00"] = lambda path: executed(path, figure(), loading)
    started(lessons[:1], tmp_path / "out")
    page = (tmp_path / "out" / "00_a.html").read_text()
    assert 'alt="a &quot;line&quot;"' in page and "No description has been provided" not in page
    loaded = re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page)
    assert all("mathjax" in address for address in loaded), loaded
    assert 'type="module"' not in page


def test_bars_in_the_stored_notebook_keep_their_last_state(lessons, kernel, tmp_path):
    pieces = [nbformat.v4.new_output("stream", name="stderr", text=text) for text in ("0%\r50%\r", "100%\ndone\n")]
    kernel["00"] = lambda path: executed(path, *pieces)
    started(lessons[:1], tmp_path / "out")
    stored = nbformat.read(tmp_path / "out" / "00_a.ipynb", as_version=4)
    assert [output.text for output in stored.cells[-1].outputs] == ["100%\ndone\n"]


def test_side_by_side_00_is_whole_before_the_others_begin(lessons, kernel, tmp_path):
    """Two at once: 01 and 02 wait for each other, so that neither could end alone."""
    meeting, seen = threading.Barrier(2, timeout=20), []

    def met(path):
        seen.append((tmp_path / "out" / "00_a.html").exists() and statuses(tmp_path / "out")[0])
        meeting.wait()
        return executed(path, claim(True))

    kernel["01"] = kernel["02"] = met
    summary = started(lessons, tmp_path / "out", jobs=2)
    assert seen == [HELD, HELD] and summary.exit_code == 0
    assert [result.number for result in summary.notebooks] == ["00", "01", "02"]
    assert summary.environment["notebooks at once"] == "2" and summary.environment["reference step"]


def test_threads_and_precision_are_given_to_each_kernel(lessons, kernel, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("DRMLIB_THREADS", raising=False)
    monkeypatch.delenv("DRMLIB_PRECISION", raising=False)
    given = {}

    def fake(path, parameters, *, environment, **_):
        given[path.name[:2]] = environment
        return executed(path, claim(True))

    monkeypatch.setattr(execute, "execute", fake)
    summary = started(lessons, tmp_path / "out", jobs=2)
    assert [given[number]["OMP_NUM_THREADS"] for number in ("00", "01", "02")] == ["3", "1", "1"]
    assert {environment.get("DRMLIB_PRECISION") for environment in given.values()} == {
        run.environment.kernel_precision()
    }
    assert summary.environment["threads per notebook"] == "3 for 00, 1 for the others"
    started(lessons, tmp_path / "one", jobs=1)
    assert {environment["OMP_NUM_THREADS"] for environment in given.values()} == {"3"}


def test_side_by_side_a_full_disk_stops_the_others(lessons, kernel, tmp_path, monkeypatch):
    whole, stopped = runfolder.write, []

    def full(path, data):
        if path.name == "01_b.html":
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, data)

    def fake(path, given, *, stop, **_):
        if path.name == "02_c.ipynb":
            stopped.append(stop.wait(20))
        return executed(path, claim(True))

    monkeypatch.setattr(runfolder, "write", full)
    monkeypatch.setattr(execute, "execute", fake)
    with pytest.raises(OSError, match="No space left"):
        started(lessons, tmp_path / "out", jobs=2)
    assert stopped == [True] and statuses(tmp_path / "out") == [HELD, INTERRUPTED, INTERRUPTED]


def test_side_by_side_a_failing_notebook_stops_no_other(lessons, kernel, tmp_path):
    kernel["00"] = kernel["01"] = lambda path: executed(path, error=Error(3, "run()", "ValueError: no"))
    assert started(lessons, tmp_path / "out", jobs=2).exit_code == 1
    assert statuses(tmp_path / "out") == [FAILED, FAILED, HELD]


def test_a_log_tells_what_is_left_from_the_stored_cost_and_the_speed_so_far(lessons, kernel, tmp_path):
    """01 and 02 store 100 s of CPU time; the first to end took 1.5 s, so that about 1.5 s are left, less what ran."""
    for lesson in lessons:
        notebook = nbformat.read(lesson.path, as_version=4)
        notebook.metadata["drmlib"] = {"steps": 1000, "cpu_seconds": 100.0, "reference_step": 1e9}
        nbformat.write(notebook, lesson.path)
    log = io.StringIO()
    run.run_course(lessons, {}, tmp_path / "out", jobs=1, stream=log)
    lines = log.getvalue().splitlines()
    assert lines[1].endswith("claims hold; about 3 s left") and lines[-1].endswith("claims hold")


def test_the_commit_is_that_of_drmlibs_own_checkout(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments], capture_output=True, text=True, check=True
        )

    package = tmp_path / "drmlib" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    monkeypatch.setattr(surroundings.drmlib, "__file__", str(package))
    assert surroundings.commit() is None
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    head = git("rev-parse", "--short", "HEAD").stdout.strip()
    assert surroundings.commit() == head
    package.write_text("x = 1")
    assert surroundings.commit() == f"{head}+"
    inside = tmp_path / "venv" / "drmlib" / "__init__.py"  # installed into a venv within somebody's repository
    inside.parent.mkdir(parents=True)
    monkeypatch.setattr(surroundings.drmlib, "__file__", str(inside))
    assert surroundings.commit() is None
