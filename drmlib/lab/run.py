"""The course, run: each notebook in a fresh kernel, its page, and the record of all, written after every notebook."""

import platform
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import nbformat

from drmlib.lab import execute, export, outputs, page, parameters, records, results
from drmlib.lab.course import Notebook
from drmlib.lab.results import FAILED, FAILS, HELD, INTERRUPTED, RUNNING, Result, Summary, write
from drmlib.lab.terminal import Reporter


def run_course(
    notebooks: Iterable[Notebook],
    given: Mapping[str, Mapping[str, Any]],
    out: Path,
    *,
    cell_timeout: int = 1800,
    stream: TextIO = sys.stderr,
) -> Summary:
    """The Summary of running `notebooks` with the parameters `given` by notebook name, all of it written to `out`.

    A notebook that fails stops no other. Ctrl-C ends the run with what there is. Raises OSError if `out` cannot be
    written: before anything runs, or later (a full disk), when notebooks already written stay.
    """
    chosen = list(notebooks)
    prepare(out)
    summary = Summary(
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
        environment=environment(),
        notebooks=[_planned(notebook, given.get(notebook.name, {})) for notebook in chosen],
    )
    reporter = Reporter(stream, len(chosen))
    start = time.perf_counter()
    try:
        for notebook, result in zip(chosen, summary.notebooks, strict=True):
            result.status = RUNNING
            _run_one(notebook, result, dict(given.get(notebook.name, {})), out, cell_timeout, reporter)
            summary.seconds = time.perf_counter() - start
            summary.state = INTERRUPTED if result.status == INTERRUPTED else RUNNING
            save(summary, out)
            reporter.done(result)
            if summary.state == INTERRUPTED:
                return summary
        summary.state = "complete"
    except KeyboardInterrupt:  # between two notebooks, or while one is written
        summary.state = INTERRUPTED
        _mark_unfinished(summary)
    except OSError:
        summary.state = "stopped"
        _mark_unfinished(summary)
        with suppress(OSError):  # a full disk may still take this: the state is a few bytes longer
            save(summary, out)
        raise
    finally:
        reporter.close()
    save(summary, out)
    return summary


def prepare(out: Path) -> None:
    """Makes the folder `out` and writes to it once; raises OSError if it cannot be, or holds a run already."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "summary.json").exists():
        raise FileExistsError(17, "it holds a run already, name another folder", str(out))
    probe = out / ".probe"
    write(probe, b"")
    probe.unlink()


def environment() -> dict[str, str]:
    """Versions and machine, as a reader of the results needs them."""
    from drmlib import precision, session

    versions = {name: version(name) for name in ("drmlib", "torch", "torchvision", "numpy", "papermill")}
    return {
        "python": platform.python_version(),
        **versions,
        "device": session.available_devices()[0],
        "processor": session.processor(),
        "cores": str(session.cores()),
        "precision": precision.name(),
        "platform": platform.platform(terse=True),
    }


def save(summary: Summary, out: Path) -> None:
    """Writes summary.json and summary.html."""
    write(out / "summary.json", results.to_json(summary))
    write(out / "summary.html", page.html(summary).encode())


def _planned(notebook: Notebook, given: Mapping[str, Any]) -> Result:
    defaults = {name: parameter.value for name, parameter in parameters.read(notebook.path).items()}
    return Result(notebook.number, notebook.name, notebook.title, notebook.part, parameters={**defaults, **given})


def _run_one(
    notebook: Notebook, result: Result, given: dict[str, Any], out: Path, cell_timeout: int, reporter: Reporter
) -> None:
    reporter.begin(notebook.name)
    done = execute.execute(notebook.path, given, cell_timeout=cell_timeout, watcher=reporter)
    outputs.tidy(done.notebook)
    fill(result, done)
    write(out / f"{notebook.name}.ipynb", nbformat.writes(done.notebook).encode())
    write(out / f"{notebook.name}.html", export.to_html(done.notebook, notebook.title))
    result.executed, result.html = f"{notebook.name}.ipynb", f"{notebook.name}.html"


def fill(result: Result, done: execute.Execution) -> None:
    """Writes into `result` what an execution found."""
    found = records.collect(done.notebook)
    result.seconds, result.peak_mb = round(done.seconds, 2), round(done.peak_mb, 1)
    result.claims, result.shortfalls, result.figures = found
    if done.interrupted:
        result.status = INTERRUPTED
    elif done.error:
        result.status, result.error = FAILED, done.error._asdict()
    else:
        result.status = FAILS if result.failing else HELD


def _mark_unfinished(summary: Summary) -> None:
    for result in summary.notebooks:
        if not result.executed and result.status != results.NOT_RUN:
            result.status = INTERRUPTED
