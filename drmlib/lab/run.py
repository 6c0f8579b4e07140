"""The course, run: each notebook in a fresh kernel, its page, and the record of all, written after every notebook."""

import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from drmlib.lab import environment, estimates, execute, kernels, results, schedule
from drmlib.lab.course import Notebook
from drmlib.lab.results import FAILS, HELD, INTERRUPTED, RUNNING, Summary
from drmlib.lab.runfolder import keep, mark_unfinished, planned, prepare, save
from drmlib.lab.terminal import Line, Reporter

Given = Mapping[str, Mapping[str, Any]]


def run_course(
    notebooks: Iterable[Notebook],
    given: Given,
    out: Path,
    *,
    jobs: int | None = None,
    cell_timeout: int = 1800,
    stream: TextIO = sys.stderr,
) -> Summary:
    """The Summary of running `notebooks` with the parameters `given` by notebook name, all of it written to `out`.

    jobs: how many notebooks run at once; as many as there are cores and memory for unless given (schedule.py).
    A notebook that fails stops no other. Ctrl-C ends the run with what there is. Raises OSError if `out` cannot be
    written: before anything runs, or later (a full disk), when notebooks already written stay.
    """
    chosen = list(notebooks)
    prepare(out)
    run = _Run(chosen, given, out, jobs, cell_timeout, stream)
    summary = run.summary
    try:
        summary.state = "complete" if run.whole() else INTERRUPTED
        mark_unfinished(summary)  # Ctrl-C came while a page was written
    except KeyboardInterrupt:  # a second one, or before anything ran
        summary.state = INTERRUPTED
        mark_unfinished(summary)
    except OSError:
        summary.state = "stopped"
        mark_unfinished(summary)
        with suppress(OSError):  # a full disk may still take this: the state is a few bytes longer
            save(summary, out)
        raise
    finally:
        run.reporter.close()
    save(summary, out)
    return summary


class _Run:
    """A run: its plan, its summary so far, and who is told. What notebooks cost is expected as stored."""

    def __init__(
        self,
        notebooks: Sequence[Notebook],
        given: Given,
        out: Path,
        jobs: int | None,
        cell_timeout: int,
        stream: TextIO,
    ) -> None:
        self.start = time.perf_counter()
        self.given, self.out, self.cell_timeout = given, out, cell_timeout
        self.plan = schedule.phases(notebooks, schedule.jobs_for(len(notebooks), jobs))
        self.reporter = Reporter(stream, len(notebooks))
        self.results = {n.name: planned(n, given.get(n.name, {})) for n in notebooks}
        self.summary = Summary(
            started=datetime.now().astimezone().isoformat(timespec="seconds"),
            environment=environment.environment(self.plan),
            notebooks=list(self.results.values()),
        )
        self.precision = environment.kernel_precision()
        as_stored = not any(given.values())
        guess = estimates.first_guess((n.path for n in notebooks), environment.reference_step()) if as_stored else None
        self.pace = estimates.Pace({n.name: estimates.expected(n.path) for n in notebooks}, guess)
        self.lines: dict[str, Line] = {}
        self.began: dict[str, float] = {}

    def whole(self) -> bool:
        """Runs all phases; False if one was interrupted."""
        return all(
            schedule.side_by_side(
                phase.notebooks,
                phase.jobs,
                partial(self._execute, phase.threads),
                self._finished,
                lambda: self.reporter.tick(self._left()),
            )
            for phase in self.plan
        )

    def _execute(self, threads: int, notebook: Notebook, stop: threading.Event) -> execute.Execution:
        self.results[notebook.name].status = RUNNING
        self.began[notebook.name] = time.perf_counter()
        self.lines[notebook.name] = self.reporter.begin(notebook.name)
        return execute.execute(
            notebook.path,
            dict(self.given.get(notebook.name, {})),
            cell_timeout=self.cell_timeout,
            watcher=self.lines[notebook.name],
            environment=kernels.environment(threads, self.precision),
            stop=stop,
        )

    def _finished(self, notebook: Notebook, done: execute.Execution) -> bool:
        """Writes what came of a notebook, its page and the summary; False if it was interrupted."""
        result, name = self.results[notebook.name], notebook.name
        keep(notebook, result, done, self.out)
        self.summary.seconds = time.perf_counter() - self.start
        save(self.summary, self.out)
        del self.began[name]
        if result.status in (HELD, FAILS) and notebook in self.plan[-1].notebooks:  # those before had more cores
            self.pace.done(name, done.seconds)
        self.reporter.done(self.lines.pop(name), result, self._left())
        return not done.interrupted

    def _left(self) -> float | None:
        now = time.perf_counter()
        running = {name: now - began for name, began in list(self.began.items())}
        waiting = [
            n.name for phase in self.plan for n in phase.notebooks if self.results[n.name].status == results.NOT_RUN
        ]
        return self.pace.left(running, waiting, self.plan[-1].jobs)
