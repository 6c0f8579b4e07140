"""Notebooks in real kernels: parameters, memory, errors, timeouts, dead kernels, Ctrl-C, and the stored form."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from drmlib.lab import course, records, refresh
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


def kernels_below(pid):
    return [p for p in psutil.Process(pid).children(recursive=True) if "ipykernel" in " ".join(p.cmdline())]


def test_ctrl_c_at_the_command_line(tmp_path):
    notebooks.write(tmp_path / "notebooks" / "00_a.ipynb", "print('done')")
    notebooks.write(tmp_path / "notebooks" / "01_b.ipynb", "open('begun', 'w').close(); import time; time.sleep(120)")
    notebooks.write(tmp_path / "notebooks" / "02_c.ipynb")
    command = [sys.executable, "-c", "from drmlib.lab.cli import main; main()", "run", "--out", "out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "notebooks" / "begun").exists():
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.1)
    kernels = kernels_below(run.pid)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert len(kernels) == 1 and not psutil.pid_exists(kernels[0].pid)
    assert "◼ interrupted" in out and "– not run" in out and "not finished: 01, 02" in out
    assert (tmp_path / "out" / "00_a.html").exists() and "Traceback" not in err


CLAIMS = """\
from drmlib.lab.claims import claim
claim("rate", {value}, at_least=0.5, source="Table 2")"""


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


def test_nbval_compares_verdicts_and_not_values(tmp_path):
    path = stored(tmp_path, 0.9)
    original = path.read_text()
    assert nbval(path).returncode == 0
    path.write_text(original.replace("0.9, at_least", "0.8, at_least"))  # another value inside the band
    assert nbval(path).returncode == 0
    path.write_text(original.replace("0.9, at_least", "0.4, at_least"))
    failed = nbval(path)
    assert failed.returncode == 1 and "FAILS  rate" in failed.stdout


def test_refresh_stores_what_does_not_change(tmp_path, capsys):
    path = notebooks.write(
        tmp_path / "01_a.ipynb",
        CLAIMS.format(value=0.9),
        "import sys; print('x', file=sys.stderr)",
        "print(print, object())",
    )
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    assert refresh.refresh_notebooks(course.discover(tmp_path)) == 0
    notebook = nbformat.read(path, as_version=4)
    assert [cell.id for cell in notebook.cells] == ids
    assert [cell.get("execution_count") for cell in notebook.cells] == [None, 1, 2, 3, 4]
    assert set(notebook.metadata) == {"drmlib", "kernelspec", "language_info"}
    assert notebook.metadata.drmlib.seconds > 0 and notebook.metadata.drmlib.peak_mb > 0
    assert [dict(cell.metadata) for cell in notebook.cells[:3]] == [{}, {"tags": ["parameters"]}, {}]
    assert not notebook.cells[3].outputs and "0x" not in notebook.cells[4].outputs[0].text
    assert len(records.collect(notebook).claims) == 1
    assert "01_a: " in capsys.readouterr().out


def test_refresh_leaves_a_failing_notebook_as_it_was_and_tells_failing_claims(tmp_path, capsys):
    broken = notebooks.write(tmp_path / "01_a.ipynb", "1 / 0")
    before = broken.read_bytes()
    notebooks.write(tmp_path / "02_b.ipynb", CLAIMS.format(value=0.4))
    assert refresh.refresh_notebooks(course.discover(tmp_path)) == 1
    assert broken.read_bytes() == before
    err = capsys.readouterr().err
    assert "01_a, cell 3: ZeroDivisionError" in err and "02_b, cell 3: claim FAILS: rate" in err
