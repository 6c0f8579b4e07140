"""The folder of a run: executed notebooks, their pages, and the summary of all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from drmlib.lab import execute, export, outputs, page, parameters, records, results
from drmlib.lab.course import Notebook
from drmlib.lab.results import FAILED, FAILS, HELD, INTERRUPTED, Result, Summary, write


def prepare(out: Path) -> None:
    """Makes the folder `out` and writes to it once; raises OSError if it cannot be, or holds a run already."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "summary.json").exists():
        raise FileExistsError(17, "it holds a run already, name another folder", str(out))
    probe = out / ".probe"
    write(probe, b"")
    probe.unlink()


def save(summary: Summary, out: Path) -> None:
    """Writes summary.json and summary.html."""
    write(out / "summary.json", results.to_json(summary))
    write(out / "summary.html", page.html(summary).encode())


def keep(notebook: Notebook, result: Result, done: execute.Execution, out: Path) -> None:
    """Writes what came of a notebook into `result`, and the executed notebook and its page to `out`."""
    outputs.tidy(done.notebook)
    fill(result, done)
    write(out / f"{notebook.name}.ipynb", nbformat.writes(done.notebook).encode())
    write(out / f"{notebook.name}.html", export.to_html(done.notebook, notebook.title))
    result.executed, result.html = f"{notebook.name}.ipynb", f"{notebook.name}.html"


def planned(notebook: Notebook, given: Mapping[str, Any]) -> Result:
    """The Result of a notebook that has not run: its parameters, those given and the defaults of the others."""
    defaults = {name: parameter.value for name, parameter in parameters.read(notebook.path).items()}
    return Result(notebook.number, notebook.name, notebook.title, notebook.part, parameters={**defaults, **given})


def fill(result: Result, done: execute.Execution) -> None:
    """Writes into `result` what an execution found."""
    found = records.collect(done.notebook)
    result.seconds, result.cpu_seconds = round(done.seconds, 2), round(done.cpu_seconds, 2)
    result.peak_mb = round(done.peak_mb, 1)
    result.claims, result.shortfalls, result.figures = found
    if done.interrupted:
        result.status = INTERRUPTED
    elif done.error:
        result.status, result.error = FAILED, done.error._asdict()
    else:
        result.status = FAILS if result.failing else HELD


def mark_unfinished(summary: Summary) -> None:
    """Notebooks that had begun and of which nothing is kept are interrupted."""
    for result in summary.notebooks:
        if not result.executed and result.status != results.NOT_RUN:
            result.status = INTERRUPTED
