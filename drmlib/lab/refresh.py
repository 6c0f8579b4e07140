"""Notebooks executed in place, for maintainers: outputs are stored without what changes from run to run.

Kept: sources, outputs, execution counts. Not kept: times of cells, stderr, what papermill notes. Added: the notebook's
seconds and peak memory, which a test holds against its budget.
"""

from typing import Any

import click
import nbformat

from drmlib.lab import outputs, records
from drmlib.lab.course import Notebook
from drmlib.lab.execute import execute
from drmlib.lab.results import write

VOLATILE = {"papermill", "execution", "widgets"}
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def refresh_notebooks(notebooks: list[Notebook]) -> int:
    """Exit status: 0 if each was executed, stored, and all its claims hold. A notebook that fails stays as it was."""
    problems = 0
    for notebook in notebooks:
        done = execute(notebook.path, {})
        if done.interrupted:
            return 130
        if done.error:
            problems += 1
            click.echo(f"✗ {notebook.name}, cell {done.error.cell}: {done.error.message}", err=True)
            continue
        failing = [claim for claim in records.collect(done.notebook).claims if not claim["holds"]]
        problems += bool(failing)
        stored = normalised(done.notebook, seconds=done.seconds, peak_mb=done.peak_mb)
        write(notebook.path, nbformat.writes(stored).encode() + b"\n")
        size = notebook.path.stat().st_size / 1e3
        click.echo(f"{notebook.name}: {done.seconds:.0f} s, {done.peak_mb:.0f} MB, {size:.0f} kB stored")
        for claim in failing:
            click.echo(f"✗ {notebook.name}, cell {claim['cell']}: claim FAILS: {claim['name']}", err=True)
    return 1 if problems else 0


def normalised(notebook: Any, *, seconds: float, peak_mb: float) -> Any:
    """`notebook` as it is stored, changed in place; what its metadata say under `drmlib` stays."""
    outputs.tidy(notebook)
    outputs.strip_volatile(notebook)
    kept = notebook.metadata.get("drmlib", {})
    notebook.metadata = nbformat.from_dict(
        {
            "drmlib": {**kept, "seconds": max(1, round(seconds)), "peak_mb": round(peak_mb, -1)},
            "kernelspec": KERNEL,
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k not in VOLATILE})
        if cell.metadata.get("tags") == []:
            del cell.metadata["tags"]
    return notebook
