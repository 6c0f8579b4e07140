"""Notebooks in real kernels: parameters, memory, errors, timeouts, dead kernels, Ctrl-C, and the stored form."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from drmlib.lab import course, estimates, records, refresh, run
from drmlib.lab.execute import execute
from tests.lab import notebooks

pytestmark = pytest.mark.slow


class Log:
    def __init__(self):
        self.cells, self.text = [], ""

    def cell(self, number, of):
        self.cells.append((number, of))

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def stdout(notebook):
    return "".join(o.text for c in notebook.cells for o in c.get("outputs", []) if o.get("name") == "stdout")


def test_a_notebook_runs_in_its_folder_with_its_parameters(tmp_path):
    path = notebooks.write(
        tmp_path / "01_{odd} name.ipynb",
        "import os, sys; print(os.getcwd(), rate, profile, os.environ['DRMLIB_HEADLESS'])",
        "print('50%', end='\\r', file=sys.stderr); memory = bytearray(300_000_000); del memory",
    )
    log, before = Log(), os.getcwd()
    done = execute(path, {"rate": 0.5}, watcher=log)
    assert done.error is None and not done.interrupted
    assert stdout(done.notebook) == f"{tmp_path} 0.5 quick 1\n" and os.getcwd() == before
    assert log.cells[-1] == (5, 5) and "50%" in log.text
    assert 300 < done.peak_mb < 600  # freed again, so a look at the end alone would miss it


def test_an_error_names_the_cell_as_written_and_ends_the_notebook(tmp_path):
    path = notebooks.write(tmp_path / "01_a.ipynb", "print(1)", "# divide\n1 / 0", "print(2)")
    done = execute(path, {"rate": 0.5})
    assert done.error == (4, "# divide", "ZeroDivisionError: division by zero") and stdout(done.notebook) == "1\n"


def test_a_dead_kernel_and_a_cell_without_end_are_errors(tmp_path):
    dead = execute(notebooks.write(tmp_path / "01_a.ipynb", "import os; os._exit(3)"), {})
    assert dead.error is not None and dead.error.cell == 3 and "Kernel died" in dead.error.message
    path = notebooks.write(tmp_path / "02_a.ipynb", "import time; time.sleep(60)")
    slow = execute(path, {}, cell_timeout=2)
    assert slow.error is not None and "timed out" in slow.error.message and slow.seconds < 30


def test_cpu_time_counts_what_is_computed_and_not_what_is_waited_for(tmp_path):
    compute = """\
import subprocess, sys, time
while time.process_time() < 3: pass
print(time.process_time())"""
    idle = execute(notebooks.write(tmp_path / "01_a.ipynb", "import time; time.sleep(2)"), {})
    busy = execute(notebooks.write(tmp_path / "02_a.ipynb", compute), {})
    used = float(stdout(busy.notebook))
    assert used - 0.1 < busy.cpu_seconds < used + 1.5 and idle.cpu_seconds < 3 and idle.seconds > idle.cpu_seconds
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {compute!r}])"
    assert execute(notebooks.write(tmp_path / "03_a.ipynb", child), {}).cpu_seconds > 3
    dying = f"{compute}\nimport os; os._exit(3)"
    assert execute(notebooks.write(tmp_path / "04_a.ipynb", dying), {}).cpu_seconds > 2


def kernels_below(pid):
    return [p for p in psutil.Process(pid).children(recursive=True) if "ipykernel" in " ".join(p.cmdline())]


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_at_the_command_line(tmp_path, jobs):
    begin = "import pathlib, time; pathlib.Path(f'begun-{number}').touch(); time.sleep(120)"
    notebooks.write(tmp_path / "notebooks" / "00_a.ipynb", "print('done')")
    for number in (1, 2, 3):
        path = tmp_path / "notebooks" / f"0{number}_a.ipynb"
        notebooks.write(path, "print('before')", begin.replace("{number}", str(number)))
    command = [sys.executable, "-c", "from drmlib.lab.cli import main; main()", "run", "--out", "out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command += ["--jobs", str(jobs)]
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "notebooks").glob("begun-*"))) < jobs:
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.1)
    kernels = kernels_below(run.pid)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert len(kernels) == jobs and not any(psutil.pid_exists(kernel.pid) for kernel in kernels)
    assert out.count("◼ interrupted") == jobs and "– not run" in out and "not finished: 01, 02, 03" in out
    assert (tmp_path / "out" / "00_a.html").exists() and "Traceback" not in err
    for number in range(1, jobs + 1):
        assert "before" in (tmp_path / "out" / f"0{number}_a.ipynb").read_text()


def test_side_by_side_gives_what_one_after_another_gives(tmp_path):
    for number in range(3):
        source = f"import os, random; print(random.Random({number}).random(), rate, os.getcwd())"
        notebooks.write(tmp_path / "notebooks" / f"0{number}_a.ipynb", source)
    lessons, texts = course.discover(tmp_path / "notebooks"), {}
    for jobs in (1, 2):
        out, log = tmp_path / f"out{jobs}", io.StringIO()
        summary = run.run_course(lessons, {n.name: {"rate": 0.25} for n in lessons}, out, jobs=jobs, stream=log)
        assert summary.exit_code == 0 and [result.number for result in summary.notebooks] == ["00", "01", "02"]
        executed = [nbformat.read(out / f"{lesson.name}.ipynb", as_version=4) for lesson in lessons]
        texts[jobs] = [stdout(notebook) for notebook in executed]
        assert all(result.cpu_seconds > 0 for result in summary.notebooks)
    assert texts[1] == texts[2] and "0.25" in texts[1][0]


CLAIMS = """\
from drmlib.lab.claims import claim
claim("rate", {value}, at_least=0.5, source="Table 2")"""


@pytest.fixture
def quick_reference(monkeypatch):
    monkeypatch.setattr(refresh.reference, "measured_apart", lambda: 0.1)


def stored(tmp_path, value):
    path = notebooks.write(tmp_path / "01_a.ipynb", CLAIMS.format(value=value), "object", "print(print)")
    assert refresh.refresh_notebooks(course.discover(tmp_path)) == 0
    return path


def nbval(path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    options = ["--rootdir", str(root), "-c", str(root / "pyproject.toml"), "--confcutdir", str(root)]
    return subprocess.run(
        [*command, *options, "-p", "conftest", str(path)], cwd=root, env=environment, capture_output=True, text=True
    )


def test_nbval_compares_verdicts_and_not_values(tmp_path, quick_reference):
    path = stored(tmp_path, 0.9)
    original = path.read_text()
    assert nbval(path).returncode == 0
    path.write_text(original.replace("0.9, at_least", "0.8, at_least"))  # another value inside the band
    assert nbval(path).returncode == 0
    path.write_text(original.replace("0.9, at_least", "0.4, at_least"))
    failed = nbval(path)
    assert failed.returncode == 1 and "FAILS  rate" in failed.stdout


def test_refresh_stores_what_does_not_change(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    path = notebooks.write(
        tmp_path / "01_a.ipynb",
        CLAIMS.format(value=0.9),
        "import sys; print('x', file=sys.stderr)",
        "print(print, object())",
        "import os, torch; print(torch.get_num_threads(), len(os.listdir(os.environ['DRMLIB_CACHE'])))",
    )
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    assert refresh.refresh_notebooks(course.discover(tmp_path)) == 0
    notebook = nbformat.read(path, as_version=4)
    assert [cell.id for cell in notebook.cells] == ids
    assert [cell.get("execution_count") for cell in notebook.cells] == [None, 1, 2, 3, 4, 5]
    assert set(notebook.metadata) == {"drmlib", "kernelspec", "language_info"}
    cost = estimates.stored(path)
    assert cost.steps == round(cost.cpu_seconds / cost.reference_step) and min(cost) > 0
    assert [dict(cell.metadata) for cell in notebook.cells[:3]] == [{}, {"tags": ["parameters"]}, {}]
    assert not notebook.cells[3].outputs and "0x" not in notebook.cells[4].outputs[0].text
    assert notebook.cells[5].outputs[0].text == "1 0\n"  # one thread, an empty cache
    assert len(records.collect(notebook).claims) == 1
    assert "01_a: " in capsys.readouterr().out


def test_several_are_refreshed_at_once_and_ctrl_c_leaves_them_as_they_were(tmp_path, monkeypatch, quick_reference):
    sources = ("print(1)", "import time; time.sleep(60)", "import time; time.sleep(60)")
    paths = [notebooks.write(tmp_path / f"0{i}_a.ipynb", source) for i, source in enumerate(sources)]
    before = [path.read_bytes() for path in paths]
    finished = refresh._stored

    def pressed(notebook, found):
        told = finished(notebook, found)
        signal.raise_signal(signal.SIGINT)
        return told

    monkeypatch.setattr(refresh, "_stored", pressed)
    start = time.monotonic()
    assert refresh.refresh_notebooks(course.discover(tmp_path), jobs=3) == 130 and time.monotonic() - start < 50
    assert paths[0].read_bytes() != before[0] and [path.read_bytes() for path in paths[1:]] == before[1:]


def test_refresh_leaves_a_failing_notebook_as_it_was_and_tells_failing_claims(tmp_path, capsys, quick_reference):
    broken = notebooks.write(tmp_path / "01_a.ipynb", "1 / 0")
    before = broken.read_bytes()
    notebooks.write(tmp_path / "02_b.ipynb", CLAIMS.format(value=0.4))
    assert refresh.refresh_notebooks(course.discover(tmp_path)) == 1
    assert broken.read_bytes() == before
    err = capsys.readouterr().err
    assert "01_a, cell 3: ZeroDivisionError" in err and "02_b, cell 3: claim FAILS: rate" in err
