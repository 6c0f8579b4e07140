"""The command `drmlib`. What is heavy (torch, papermill) is imported by the commands that need it."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from drmlib import __version__
from drmlib.lab import course, estimates

DAY = 24 * 3600
JOBS = click.option(
    "--jobs",
    metavar="N",
    help="Notebooks that run at once, on one thread each; unless given, as cores and memory allow.",
)
CELL_TIMEOUT = {"quick": 1800}  # seconds; other profiles may train for a day


class Refused(click.ClickException):
    """An answer in one line, with exit status 2: nothing has run."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"drmlib: {self.message}", err=True)


@contextmanager
def one_line() -> Iterator[None]:
    """Expected errors inside (unknown names, wrong values, missing files) become one line and exit status 2."""
    try:
        yield
    except (LookupError, ValueError) as error:
        raise Refused(str(error.args[0])) from None
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="drmlib")
def main() -> None:
    """Backdoor attacks and defences: the course and its notebooks."""


@main.command("list")
def list_notebooks() -> None:
    """The course map, with the time that each notebook took on one core where it was last refreshed."""
    with one_line():
        notebooks = course.discover()
    part = ""
    for notebook in notebooks:
        if notebook.part != part:
            part = notebook.part
            click.echo(part)
        cost = estimates.in_words(estimates.stored(notebook.path))
        click.echo(f"  {notebook.number}  {notebook.title}" + (f" ({cost})" if cost else ""))


@main.command()
@click.argument("notebook")
def describe(notebook: str) -> None:
    """Parameters of NOTEBOOK (02, or its name): type, default, meaning."""
    from drmlib.lab import parameters

    with one_line():
        found = course.find([notebook], course.discover())[0]
    click.echo(f"{found.number}  {found.title}  ({found.path})")
    rows = [
        (p.name, p.type if p.type != "None" else "", p.default, p.meaning) for p in parameters.read(found.path).values()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        click.echo("  " + "  ".join(text.ljust(width) for text, width in zip(row, [*widths, 0], strict=True)).rstrip())


@main.command()
@click.argument("numbers", nargs=-1)
@click.option("--profile", metavar="NAME", help="quick (default), standard or paper: short for -p profile=NAME.")
@click.option("-p", "assignments", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results; runs/<time> unless given.")
@click.option(
    "--cell-timeout", type=int, metavar="SECONDS", help="Longest time of one cell; 1800 at quick, else a day."
)
@JOBS
def run(
    numbers: Sequence[str],
    profile: str | None,
    assignments: Sequence[str],
    out: Path | None,
    cell_timeout: int | None,
    jobs: str | None,
) -> None:
    """Run notebooks (NUMBERS such as 02 04; the whole course if none is given). This runs the code in them.

    Several run at once, after 00, which runs alone and first; with --jobs 1 one after another, on all cores.

    A parameter of -p goes to every chosen notebook that has it; at least one must. Values are YAML, checked against
    the type that the notebook states. Exit status: 0 all ran and all claims hold, 1 a notebook or a claim fails or the
    results cannot be written, 2 nothing was run because of a wrong argument, 130 interrupted.
    """
    from drmlib.lab import parameters, schedule
    from drmlib.lab import run as runner

    out = (out or Path("runs") / f"{datetime.now():%Y-%m-%d_%H%M%S}").resolve()
    with one_line():
        notebooks = course.find(list(numbers), course.discover())
        given = parameters.resolve(notebooks, [*([f"profile={profile}"] if profile else []), *assignments])
        options: dict[str, Any] = {"jobs": schedule.parse_jobs(jobs)}
        runner.prepare(out)
    longest = max(CELL_TIMEOUT.get(values.get("profile", "quick"), DAY) for values in given.values())
    sys.exit(_finish(runner, notebooks, given, out, {**options, "cell_timeout": cell_timeout or longest}))


@main.command()
@click.argument("numbers", nargs=-1)
@JOBS
def refresh(numbers: Sequence[str], jobs: str | None) -> None:
    """Execute notebooks in place at their defaults and store their outputs (for maintainers).

    Each computes on one thread and with an empty cache of models, so that what is stored depends on neither.
    """
    from drmlib.lab import schedule
    from drmlib.lab.refresh import refresh_notebooks

    with one_line():
        notebooks = course.find(list(numbers), course.discover())
        wanted = schedule.parse_jobs(jobs)
    _silence_asyncio()
    sys.exit(refresh_notebooks(notebooks, jobs=wanted))


@main.command()
@click.option("--clear", is_flag=True, help="Remove all entries.")
def cache(clear: bool) -> None:
    """Where trained models are kept, how many and how large."""
    from drmlib.lab import cache as models

    folder = models.location()
    if folder is None:
        click.echo("the cache is switched off (DRMLIB_CACHE=off)")
        return
    with one_line():
        size = models.clear(folder) if clear else models.size(folder)
    click.echo(f"{'removed from ' if clear else ''}{folder}: {size.entries} models, {size.bytes / 1e6:.1f} MB")


@main.command()
def doctor() -> None:
    """Versions, device, threads, data found, cache, free disk."""
    from drmlib.lab.doctor import examine

    for name, finding in examine():
        click.echo(f"{name:<14} {finding}")


def _finish(runner: Any, notebooks: list[course.Notebook], given: Any, out: Path, options: dict[str, Any]) -> int:
    """Runs, prints the table and the page's path; the exit status."""
    from drmlib.lab.results import terminal_table

    _silence_asyncio()
    try:
        summary = runner.run_course(notebooks, given, out, **options)
    except OSError as error:
        done = len(list(out.glob("*.ipynb")))
        click.echo(f"drmlib: cannot write to {out}: {error.strerror or error}; notebooks written: {done}", err=True)
        return 1
    click.echo("\n" + terminal_table(summary) + "\n")
    click.echo(summary.verdict() + f"\n{out / 'summary.html'}")
    return summary.exit_code


def _silence_asyncio() -> None:
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it tells of each task that a dead kernel leaves behind
