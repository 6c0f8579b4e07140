"""python -m benchmarks.accelerator --device cuda --out FOLDER: the tests that compare devices, then speed.

At most LIMIT seconds in all. Every section has its share, printed before it starts; after each measurement the records
and the table are written anew.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path

import click
import torch

from benchmarks.accelerator import methods, records, training
from benchmarks.accelerator.agreement import agreement
from benchmarks.accelerator.measure import FAILED, Measure, Record, Section, run
from benchmarks.accelerator.sizes import CARD, TINY, Sizes
from drmlib import session

LIMIT = 480.0
TESTS = 150.0  # seconds for the comparison of devices; what they leave is not given to the sections
# Seconds of each section, in all 270: one measurement may go over its share by one call, and data has to be made.
SECTIONS: dict[str, tuple[float, Callable[[Sizes, torch.device], list[Measure]]]] = {
    "triggers": (30, methods.stamped),
    "training": (80, training.trainings),
    "populations": (50, training.populations),
    "inversions": (70, methods.inversions),
    "victim": (40, training.victim),
}
NO_CARD = (
    'make gpu needs an NVIDIA card that torch can use, and there is none; a trial without: ARGS="--device cpu --tiny"'
)


@click.command()
@click.option("--device", default="cuda", help="cuda, cuda:1, .. or cpu")
@click.option("--tiny", is_flag=True, help="sizes of a trial that takes less than a minute on a processor")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="default: runs/gpu-<time>")
@click.option("--only", multiple=True, type=click.Choice(list(SECTIONS)), help="this section; may be repeated")
@click.option("--tests/--no-tests", default=True, help="compare devices first")
def main(device: str, tiny: bool, out: Path | None, only: tuple[str, ...], tests: bool) -> None:
    """Tests against the CPU and throughput of a card, as records.jsonl and table.md in the folder OUT."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        click.echo(NO_CARD, err=True)
        sys.exit(2)
    where, sizes = session.device(device), TINY if tiny else CARD
    folder = out or Path("runs") / f"gpu-{datetime.now():%Y-%m-%d-%H%M%S}"
    found = measured(where, sizes, only or tuple(SECTIONS), tests=tests)
    kept = keep(found, folder, records.machine(where, trial=tiny))
    click.echo(f"\n{(folder / 'table.md').read_text()}\n{folder.resolve()}")
    sys.exit(1 if any(record.status == FAILED for record in kept) else 0)


def measured(device: torch.device, sizes: Sizes, names: Iterable[str], *, tests: bool) -> Iterator[Record]:
    """The records of the tests and of the sections called `names`, each as soon as it is there."""
    end = time.monotonic() + LIMIT
    if tests:
        click.echo(f"tests that compare devices, at most {TESTS:g} s", err=True)
        yield agreement(device, TESTS, tiny=sizes is TINY)
    for name in names:
        budget, make = SECTIONS[name]
        seconds = max(0.0, min(budget * sizes.share, end - time.monotonic()))
        click.echo(f"{name}, at most {seconds:.0f} s", err=True)
        yield from run(Section(name, seconds, make(sizes, device), sizes.repeats), device)


def keep(found: Iterable[Record], folder: Path, machine: dict[str, str]) -> list[Record]:
    """All of `found`; what is there is written after each, so that an interrupted run has lost nothing."""
    kept: list[Record] = []
    for record in found:
        kept.append(record)
        records.write(folder, kept, machine)
    return kept


if __name__ == "__main__":
    main()
