"""Notebooks executed in place, for maintainers: outputs are stored without what changes from run to run.

Kept: sources, outputs, execution counts. Not kept: times of cells, stderr, what papermill notes. Added: what the
notebook cost, in reference steps, which a test holds against its budget. Each notebook computes on one thread, and with
an empty cache of models of its own, so that neither the number of cores nor the order changes what is stored.
"""

import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

import click
import nbformat

from drmlib.lab import environment, estimates, kernels, outputs, records, reference, schedule
from drmlib.lab.course import Notebook
from drmlib.lab.execute import Execution, execute
from drmlib.lab.results import write

VOLATILE = {"papermill", "execution", "widgets"}
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


class Refreshed(NamedTuple):
    """An execution, and the mean CPU seconds of a reference step before and after it; 0 if it was interrupted."""

    done: Execution
    reference_step: float


def refresh_notebooks(notebooks: list[Notebook], *, jobs: int | None = None) -> int:
    """Exit status: 0 if each was executed, stored, and all its claims hold. A notebook that fails stays as it was.

    jobs: how many run at once; as many as there are cores and memory for unless given.
    """
    precision, complaints = environment.kernel_precision(), list[str]()

    def work(notebook: Notebook, stop: threading.Event) -> Refreshed:
        return _executed(notebook.path, kernels.environment(1, precision), stop)

    def finished(notebook: Notebook, found: Refreshed) -> bool:
        if found.done.interrupted:
            return False
        told = _stored(notebook, found)
        complaints.extend(told)
        for line in told:
            click.echo(f"✗ {notebook.name}, {line}", err=True)
        return True

    at_once = schedule.jobs_for(len(notebooks), jobs)
    try:
        whole = schedule.side_by_side(schedule.longest_first(notebooks), at_once, work, finished)
    except KeyboardInterrupt:
        return 130
    return 130 if not whole else 1 if complaints else 0


def _executed(path: Path, surroundings: dict[str, str], stop: threading.Event) -> Refreshed:
    before = reference.measured_apart()
    with tempfile.TemporaryDirectory() as empty:
        done = execute(path, {}, environment={**surroundings, "DRMLIB_CACHE": empty}, stop=stop)
    return Refreshed(done, 0.0 if done.interrupted else (before + reference.measured_apart()) / 2)


def _stored(notebook: Notebook, found: Refreshed) -> list[str]:
    """Stores the notebook and says what it cost; what is wrong with it, an error or claims that fail."""
    done = found.done
    if done.error:
        return [f"cell {done.error.cell}: {done.error.message}"]
    failing = [claim for claim in records.collect(done.notebook).claims if not claim["holds"]]
    stored = normalised(done.notebook, figures(found))
    write(notebook.path, nbformat.writes(stored).encode() + b"\n")
    cost, size = stored.metadata.drmlib, notebook.path.stat().st_size / 1e3
    click.echo(
        f"{notebook.name}: {cost.seconds} s, {cost.cpu_seconds:.0f} s of CPU time, {cost.steps} reference steps, "
        f"{cost.peak_mb:.0f} MB, {size:.0f} kB stored"
    )
    return [f"cell {claim['cell']}: claim FAILS: {claim['name']}" for claim in failing]


def figures(found: Refreshed) -> dict[str, Any]:
    """What is stored of a notebook's cost."""
    done = found.done
    return {
        "steps": estimates.steps(done.cpu_seconds, found.reference_step),
        "cpu_seconds": round(done.cpu_seconds, 1),
        "reference_step": round(found.reference_step, 5),
        "seconds": max(1, round(done.seconds)),
        "peak_mb": round(done.peak_mb, -1),
    }


def normalised(notebook: Any, cost: dict[str, Any]) -> Any:
    """`notebook` as it is stored, changed in place; what else its metadata say under `drmlib` stays."""
    outputs.tidy(notebook)
    outputs.strip_volatile(notebook)
    kept = notebook.metadata.get("drmlib", {})
    notebook.metadata = nbformat.from_dict(
        {
            "drmlib": {**kept, **cost},
            "kernelspec": KERNEL,
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k not in VOLATILE})
        if cell.metadata.get("tags") == []:
            del cell.metadata["tags"]
    return notebook
