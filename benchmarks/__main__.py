"""python -m benchmarks [NAMES], all of ALL without: runs them and prints one table of ratios."""

import click
import torch

from benchmarks import (
    confusion,
    detection,
    functions,
    images,
    inversion,
    malicious_inputs_speed,
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
@click.argument("names", nargs=-1, type=click.Choice(list(ALL)))
def main(names: tuple[str, ...]) -> None:
    """Speed beside plain references, as ratios (below 1: ours is faster). Without NAMES, all of them."""
    rows: list[Row] = []
    for name in names or ALL:
        click.echo(f"{name} ...", err=True)
        rows += ALL[name]()
    click.echo(report(rows))
    used = f"{session.threads()}; {precision.name()}; {session.processor()}"
    click.echo(f"torch {torch.__version__}; {used}; peak memory {peak_memory()} MB")


if __name__ == "__main__":
    main()
