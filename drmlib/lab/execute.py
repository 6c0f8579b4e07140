"""One notebook executed by papermill in a fresh kernel: the notebook with its outputs, seconds, peak memory, error.

papermill runs in a thread of its own, so that Ctrl-C reaches us and not nbclient's handlers: the kernel is killed, and
what its cells have shown so far is kept.
"""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import nbformat
import papermill
import psutil
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines

from drmlib.lab.records import numbered

ENGINE = "drmlib"
POLL = 0.25  # seconds between two looks at the kernel's memory


# glibc keeps freed blocks below this many bytes and gives larger ones back; its own limit grows up to 32 MB, by which a
# kernel holds 50 to 100 MB that nothing uses. Other systems ignore it.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(4 << 20)}


class Error(NamedTuple):
    """Where and how a notebook failed: number of the cell from 1 (0: before any), its first line, the error in one."""

    cell: int
    source: str
    message: str


class Execution(NamedTuple):
    """What came of one notebook; peak_mb is the largest resident memory of its kernel, error None on success."""

    notebook: Any
    seconds: float
    peak_mb: float
    error: Error | None
    interrupted: bool


class Watcher(Protocol):
    """Who is told how a notebook goes on: the cell that begins, and what the kernel writes to stderr."""

    def cell(self, number: int, of: int) -> None: ...

    def write(self, text: str) -> None: ...

    def flush(self) -> None: ...


class Silent:
    """A Watcher that shows nothing."""

    def cell(self, number: int, of: int) -> None:
        pass

    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass


def execute(
    path: Path, parameters: dict[str, Any], *, cell_timeout: int = 1800, watcher: Watcher | None = None
) -> Execution:
    """The notebook at `path` executed in its own folder with `parameters` injected; an error in it is returned."""
    job = _Job(path, watcher or Silent(), cell_timeout)
    start = time.perf_counter()
    threading.Thread(target=job.run, args=(parameters,), daemon=True).start()
    while not job.done.is_set():
        try:
            job.done.wait(POLL)  # not thread.join(): interrupted, Python 3.11 takes the thread for ended
            job.look_at_memory()
        except KeyboardInterrupt:
            job.kill()
    return Execution(job.notebook, time.perf_counter() - start, job.peak / 1e6, job.error, job.killed)


class _Job:
    """State of one execution, shared by the thread that runs it and the one that waits."""

    def __init__(self, path: Path, watcher: Watcher, timeout: int) -> None:
        self.path, self.watcher, self.timeout = path, watcher, timeout
        self.notebook = nbformat.read(path, as_version=4)
        self.client: PapermillNotebookClient | None = None
        self.cell: Any = None  # the one that runs
        self.peak = 0
        self.done = threading.Event()
        self.killed = False
        self.error: Error | None = None

    def run(self, parameters: dict[str, Any]) -> None:
        papermill_engines.register(ENGINE, _Engine)
        try:
            papermill.execute_notebook(
                self.notebook,
                None,
                parameters,
                engine_name=ENGINE,
                kernel_name="python3",
                progress_bar=False,
                cwd=str(self.path.parent),
                job=self,
            )
        except papermill.PapermillExecutionError as error:
            self._failed(f"{error.ename}: {error.evalue}")
        except Exception as error:  # a dead kernel, a timeout, no kernel at all: this notebook's, not the run's
            self._failed(f"{type(error).__name__}: {error}")
        finally:
            self.done.set()

    def started(self, notebook: Any, client: PapermillNotebookClient) -> None:
        """papermill has injected the parameters into `notebook` and made the client that will run it."""
        notebook.metadata.papermill["input_path"] = self.path.name
        self.notebook, self.client = notebook, client

    def cell_started(self, cell: Any, cell_index: int) -> None:
        self.cell = cell
        self.watcher.cell(cell_index + 1, len(self.notebook.cells))
        if self.killed:  # Ctrl-C came before there was a kernel to kill
            self.kill()

    def cell_executed(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        self.look_at_memory()

    def look_at_memory(self) -> None:
        process = self._kernel()
        if process is not None:
            self.peak = max(self.peak, resident_peak(process.pid))

    def kill(self) -> None:
        """Ends the kernel at once; nbclient notices that it is gone and the thread ends."""
        self.killed = True
        process = self._kernel()
        if process is not None:
            for one in [*process.children(recursive=True), process]:
                one.send_signal(signal.SIGKILL)

    def _kernel(self) -> psutil.Process | None:
        manager = getattr(self.client, "km", None)
        pid = getattr(getattr(manager, "provisioner", None), "pid", None)
        try:
            return psutil.Process(pid) if pid else None
        except psutil.NoSuchProcess:
            return None

    def _failed(self, message: str) -> None:
        source = self.cell.source.strip() if self.cell else ""
        numbers = {id(cell): number for number, cell in numbered(self.notebook)}
        self.error = Error(numbers.get(id(self.cell), 0), _first_line(source), _first_line(message) or "unknown error")


class _Engine(Engine):
    """papermill's engine with our hooks: which cell runs, and which process to watch."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, *, job: _Job, **_: Any) -> None:
        client = PapermillNotebookClient(
            nb_man,
            kernel_name=kernel_name,
            timeout=job.timeout,
            startup_timeout=120,
            stderr_file=job.watcher,
            on_cell_start=job.cell_started,
            on_cell_executed=job.cell_executed,
            shutdown_kernel="immediate",
            extra_arguments=["--IPKernelApp.log_level=40"],  # not a warning for each kernel in the terminal
        )
        job.started(nb_man.nb, client)
        client.execute(env={**MEMORY, **os.environ, "DRMLIB_HEADLESS": "1"})


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def resident_peak(pid: int) -> int:
    """Largest resident memory in bytes that the process ever had, where the system says so; else what it has now."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        pass
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
