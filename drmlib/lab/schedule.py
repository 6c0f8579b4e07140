"""Which notebooks run when: how many at once, on how many threads, in which order, and how Ctrl-C ends them."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event
from typing import Generic, NamedTuple, TypeVar

import psutil

from drmlib import session
from drmlib.lab import estimates
from drmlib.lab.course import Notebook

MEMORY = 800e6  # bytes that a notebook may need (tests/notebook_rules.py)
FIRST = "00"  # answers within a minute of the start
TICK = 1.0  # seconds between two looks at the clock while nothing ends

T = TypeVar("T")
R = TypeVar("R")


class Phase(NamedTuple):
    """Notebooks that run `jobs` at once on `threads` each, in this order; a phase begins when the last has ended."""

    notebooks: list[Notebook]
    jobs: int
    threads: int


def phases(notebooks: Sequence[Notebook], jobs: int) -> list[Phase]:
    """The plan of a run: one after another on all cores if jobs is 1, in reading order.

    Else 00 alone on all cores, then the others side by side on one thread each, the longest first.
    """
    if jobs == 1:
        return [Phase(list(notebooks), 1, session.wanted_threads())]
    first = [notebook for notebook in notebooks if notebook.number == FIRST]
    rest = longest_first([notebook for notebook in notebooks if notebook.number != FIRST])
    plan = [Phase(first, 1, session.wanted_threads()), Phase(rest, min(jobs, len(rest)), 1)]
    return [phase for phase in plan if phase.notebooks]


def longest_first(notebooks: Sequence[Notebook]) -> list[Notebook]:
    """Sorted by their stored CPU time: what runs alone at the end is then short."""
    return sorted(notebooks, key=lambda notebook: -estimates.expected(notebook.path))


def jobs_for(count: int, wanted: int | None = None) -> int:
    """How many of `count` notebooks run at once: as many as are wanted, else as there are cores and memory for."""
    if wanted is not None:
        return max(1, min(wanted, count))
    cores = min(session.cores(), session.wanted_threads())  # OMP_NUM_THREADS=2 leaves the other cores alone
    return max(1, min(count, cores, int(available_memory() // MEMORY)))


def parse_jobs(text: str | None) -> int | None:
    """The number in --jobs; ValueError for what is no whole number above 0, None if the option was not given."""
    if text is not None and not (text.isdecimal() and int(text) > 0):
        raise ValueError(f"expected --jobs to be a whole number above 0, got {text!r}")
    return int(text) if text is not None else None


def available_memory(folder: Path = session.CGROUP) -> float:
    """Bytes that can be had without swapping: of the machine, and within the limit of this process's cgroup."""
    free = float(psutil.virtual_memory().available)
    try:
        limit, used = ((folder / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        cached = (folder / "memory.stat").read_text().partition("\ninactive_file ")[2].split()[:1]
        return free if limit == "max" else min(free, int(limit) - int(used) + int(cached[0] if cached else 0))
    except (OSError, ValueError):
        return free


def side_by_side(
    tasks: Iterable[T],
    jobs: int,
    work: Callable[[T, Event], R],
    finished: Callable[[T, R], bool],
    tick: Callable[[], None] = lambda: None,
) -> bool:
    """Runs `work` on each task, `jobs` at once in threads; whether all were run.

    finished: called with a task and what `work` returned for it, in the calling thread, as tasks end; False ends all.
    tick: called in between, about each second.

    What ends all sets the event that `work` is given, and `work` must then return soon: Ctrl-C, after which `finished`
    still hears of the tasks that were running, and an exception of `work` or `finished`, which is raised again.
    """
    waiting, shared = deque(tasks), _Tasks(work, finished)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            begun = 0
            while (waiting or begun > shared.heard) and not shared.stop.is_set():
                while waiting and begun - shared.heard < jobs:
                    begun += 1
                    pool.submit(shared.one, waiting.popleft())
                shared.hear(TICK)
                tick()
        except KeyboardInterrupt:
            shared.stop.set()
        except BaseException:
            shared.stop.set()
            raise
    while len(shared.begun) > shared.heard:  # what was running when all was ended
        shared.hear(None)
    return not shared.stop.is_set()


class _Tasks(Generic[T, R]):
    """What the threads that work and the one that hears share. Ctrl-C, at whatever moment, loses no task."""

    def __init__(self, work: Callable[[T, Event], R], finished: Callable[[T, R], bool]) -> None:
        self.work, self.finished, self.stop = work, finished, Event()
        self.begun: list[T] = []
        self.ended: SimpleQueue[tuple[T, Future[R]]] = SimpleQueue()
        self.heard = 0

    def one(self, task: T) -> None:
        """Works on a task in a thread of the pool, and puts what came of it where `hear` looks."""
        if self.stop.is_set():
            return
        self.begun.append(task)
        future = Future[R]()
        try:
            future.set_result(self.work(task, self.stop))
        except BaseException as error:
            future.set_exception(error)
        self.ended.put((task, future))

    def hear(self, timeout: float | None) -> None:
        """Waits for the next task that ends, so many seconds or without limit."""
        with suppress(Empty):
            task, future = self.ended.get(timeout=timeout)
            self.heard += 1
            if not self.finished(task, future.result()):
                self.stop.set()
