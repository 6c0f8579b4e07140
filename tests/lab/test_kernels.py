"""Real kernels over sockets of their own: two at once, and nothing is left behind, also when they are killed."""

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from drmlib.lab import kernels
from drmlib.lab.execute import execute
from tests.lab import notebooks

TELL = """\
import json, os, torch
from ipykernel.connect import get_connection_info
told = json.loads(get_connection_info())
print(told["transport"], torch.get_num_threads(), os.environ.get("DRMLIB_PRECISION"))"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder for temporary files, with a short name as sockets need it."""
    with kernels.short_folder() as folder:
        monkeypatch.setattr(kernels.tempfile, "tempdir", folder)
        yield Path(folder)


def text(done):
    return "".join(o.text for c in done.notebook.cells for o in c.get("outputs", []) if o.get("name") == "stdout")


@pytest.mark.slow
@pytest.mark.skipif(not kernels.SOCKETS, reason="Windows keeps tcp")
def test_two_at_once_use_sockets_one_thread_and_leave_nothing(tmp_path, temporary):
    paths = [notebooks.write(tmp_path / f"{i}" / "01_a.ipynb", TELL, "open('ran', 'w').close()") for i in range(2)]
    found = {}

    def run(path):
        found[path] = execute(path, {}, environment=kernels.environment(1, "float32"))

    threads = [threading.Thread(target=run, args=(path,)) for path in paths]
    before = os.getcwd()
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        seen |= set(temporary.glob("drmlib-*"))
        time.sleep(0.05)
    assert [(done.error, text(done)) for done in found.values()] == [(None, "ipc 1 float32\n")] * 2
    assert all((path.parent / "ran").exists() for path in paths) and os.getcwd() == before
    assert len(seen) == 2 and list(temporary.iterdir()) == []


@pytest.mark.slow
def test_a_stopped_kernel_is_killed_and_leaves_nothing(tmp_path, temporary):
    path = notebooks.write(tmp_path / "01_a.ipynb", "open('begun', 'w').close(); import time; time.sleep(60)")
    stop = threading.Event()

    def press():
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        stop.set()

    threading.Thread(target=press, daemon=True).start()
    done = execute(path, {}, environment=kernels.environment(1), stop=stop)
    assert done.interrupted and done.seconds < 40 and list(temporary.iterdir()) == []
    at_once = execute(path, {}, environment=kernels.environment(1), stop=stop)  # before there is a kernel
    assert at_once.interrupted and list(temporary.iterdir()) == []


def test_the_folder_is_for_this_user_alone_and_its_name_short(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels.tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    with kernels.short_folder() as folder:
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700 and len(f"{folder}/k-12345") < 100


def test_over_tcp_a_kernel_that_dies_at_its_start_is_started_once_more(monkeypatch):
    tries = []

    def dying():
        tries.append(1)
        raise RuntimeError("Kernel died before replying to kernel_info")

    for sockets, expected in ((False, 2), (True, 1)):
        tries.clear()
        monkeypatch.setattr(kernels, "SOCKETS", sockets)
        with pytest.raises(RuntimeError, match="died"):
            kernels.started(dying)
        assert len(tries) == expected


@pytest.mark.slow
def test_a_kernel_over_tcp_runs_too(tmp_path, temporary, monkeypatch):
    monkeypatch.setattr(kernels, "SOCKETS", False)
    done = execute(notebooks.write(tmp_path / "01_a.ipynb", TELL), {}, environment=kernels.environment(1))
    assert text(done).startswith("tcp 1 ")


@pytest.mark.slow
@pytest.mark.skipif(not kernels.SOCKETS, reason="Windows keeps tcp")
def test_nbvals_kernels_use_sockets_and_one_thread(tmp_path, temporary):
    path = notebooks.write(
        tmp_path / "01_a.ipynb", f"{TELL}\nassert (told['transport'], torch.get_num_threads()) == ('ipc', 1)"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "2"}
    environment.pop("DRMLIB_THREADS", None)
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider"]
    options = ["--rootdir", str(root), "-c", str(root / "pyproject.toml"), "--confcutdir", str(root), "-p", "conftest"]
    done = subprocess.run([*command, *options, str(path)], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert not list(temporary.glob("drmlib-*"))
