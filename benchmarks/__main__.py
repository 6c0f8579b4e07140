"""python -m benchmarks [NAMES], all of ALL without: runs them and prints one table of ratios.

`notebooks` runs none of them: it shows what they store of their cost, beside their budgets.
"""

import click
import torch

from benchmarks import (
    confusion,
    detection,
    functions,
    images,
    inversion,
    malicious_inputs_speed,
    notebooks,
    poisoning,
    threads,
    training,
)
from benchmarks.timing import Row, peak_memory, report
from drmlib import precision, session

ALL = {
    "poisoning": poisoning.run,
    "images": images.run,
    "training": training.run,
    "threads": threads.run,
    "detection": detection.run,
    "inversion": inversion.run,
    "confusion": confusion.run,
    "functions": functions.run,
    "malicious_inputs_speed": malicious_inputs_speed.run,
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*ALL, "notebooks"]))
def main(names: tuple[str, ...]) -> None:
    """Speed beside plain references, as ratios (below 1: ours is faster). Without NAMES, all of them."""
    rows: list[Row] = []
    if not names or "notebooks" in names:
        click.echo(notebooks.run() + "\n")
    for name in [name for name in names if name in ALL] if names else ALL:
        click.echo(f"{name} ...", err=True)
        rows += ALL[name]()
    if rows:
        click.echo(report(rows))
    used = f"{session.threads()}; {precision.name()}; {session.processor()}"
    click.echo(f"torch {torch.__version__}; {used}; peak memory {peak_memory()} MB")


if __name__ == "__main__":
    main()
