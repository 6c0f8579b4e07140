"""One notebook executed by papermill in a fresh kernel: the notebook with its outputs, what it cost, error.

papermill runs in a thread of its own, so that Ctrl-C reaches us and not nbclient's handlers: the kernel is killed, and
what its cells have shown so far is kept. Several may be executed at once, each from a thread of its own: nbclient then
has an event loop for each thread, and the folder is given to the kernel, since papermill's `cwd` would change that of
the whole process.
"""

import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import nbformat
import papermill
import psutil
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines

from drmlib import session
from drmlib.lab import kernels, usage
from drmlib.lab.records import numbered

ENGINE = "drmlib"
POLL = 0.25  # seconds between two looks at the kernel's memory and CPU time, and at whether it shall stop


class Error(NamedTuple):
    """Where and how a notebook failed: number of the cell from 1 (0: before any), its first line, the error in one."""

    cell: int
    source: str
    message: str


class Execution(NamedTuple):
    """What came of one notebook.

    notebook: the executed notebook, with the outputs there are.
    seconds: from before the kernel was started to after it ended.
    cpu_seconds: of the kernel and of the processes that it has waited for, in user and in system mode.
    peak_mb: the largest resident memory of the kernel.
    error: None on success.
    interrupted: whether the kernel was killed by Ctrl-C.
    """

    notebook: Any
    seconds: float
    cpu_seconds: float
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
    path: Path,
    parameters: dict[str, Any],
    *,
    cell_timeout: int = 1800,
    watcher: Watcher | None = None,
    environment: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Execution:
    """The notebook at `path` executed in its own folder with `parameters` injected; an error in it is returned.

    environment: what the kernel's has beyond ours; by default it computes on as many threads as this process.
    stop: once it is set, the kernel is killed, as it is by Ctrl-C, which reaches the main thread alone.
    """
    surroundings = kernels.environment(session.wanted_threads()) if environment is None else environment
    job = _Job(path, watcher or Silent(), cell_timeout, {**os.environ, **surroundings})
    start = time.perf_counter()
    threading.Thread(target=job.run, args=(parameters,), daemon=True).start()
    while not job.done.is_set():
        try:
            job.done.wait(POLL)  # not thread.join(): interrupted, Python 3.11 takes the thread for ended
            job.look()
            if stop is not None and stop.is_set() and not job.done.is_set():
                job.kill()  # each time: the kernel may have been on its way
        except KeyboardInterrupt:
            job.kill()
    seconds = time.perf_counter() - start
    return Execution(job.notebook, seconds, job.cpu_seconds, job.peak / 1e6, job.error, job.killed)


class _Job:
    """State of one execution, shared by the thread that runs it and the one that waits."""

    def __init__(self, path: Path, watcher: Watcher, timeout: int, environment: dict[str, str]) -> None:
        self.path, self.watcher, self.timeout, self.environment = path, watcher, timeout, environment
        self.notebook = nbformat.read(path, as_version=4)
        self.client: PapermillNotebookClient | None = None
        self.cell: Any = None  # the one that runs
        self.peak, self.cpu_seconds = 0, 0.0
        self.done = threading.Event()
        self.killed = False
        self.error: Error | None = None

    def run(self, parameters: dict[str, Any]) -> None:
        try:
            papermill.execute_notebook(
                self.notebook,
                None,
                parameters,
                engine_name=ENGINE,
                kernel_name="python3",
                progress_bar=False,
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
        self.look()

    def look(self) -> None:
        """Notes the kernel's memory and CPU time; what is gone cannot be asked any more."""
        process = self._kernel()
        if process is not None:
            self.peak = max(self.peak, usage.resident_peak(process.pid))
            self.cpu_seconds = max(self.cpu_seconds, usage.cpu_seconds(process))

    def kill(self) -> None:
        """Ends the kernel at once; nbclient notices that it is gone and the thread ends."""
        self.killed = True
        process = self._kernel()
        if process is not None:
            with suppress(psutil.NoSuchProcess):
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
            kernel_manager_class=kernels.AsyncSocketKernelManager,
            timeout=job.timeout,
            startup_timeout=120,
            stderr_file=job.watcher,
            on_cell_start=job.cell_started,
            on_cell_executed=job.cell_executed,
            shutdown_kernel="immediate",
            extra_arguments=["--IPKernelApp.log_level=40"],  # not a warning for each kernel in the terminal
        )
        job.started(nb_man.nb, client)
        kernels.started(lambda: client.execute(env=job.environment, cwd=str(job.path.parent)))


papermill_engines.register(ENGINE, _Engine)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
