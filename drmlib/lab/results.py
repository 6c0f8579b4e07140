"""What a run found: one record for each notebook, kept as summary.json, told as a table in the terminal.

summary.json is written whole after each notebook, so that an interrupted run has lost nothing that was finished.
"""

import dataclasses
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drmlib.lab.records import band_text, value_text

HELD, FAILS, FAILED = "held", "claims fail", "failed"
RUNNING, INTERRUPTED, NOT_RUN = "running", "interrupted", "not run"
SYMBOL = {HELD: "✓", FAILS: "✗", FAILED: "✗", RUNNING: "…", INTERRUPTED: "◼", NOT_RUN: "–"}


@dataclass
class Result:
    """One notebook of a run; claims, shortfalls and figures as records.py reads them, error as execute.py tells it."""

    number: str
    name: str
    title: str
    part: str
    status: str = NOT_RUN
    parameters: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    error: dict[str, Any] | None = None
    claims: list[dict[str, Any]] = field(default_factory=list)
    shortfalls: list[dict[str, Any]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    executed: str | None = None
    html: str | None = None

    @property
    def held(self) -> int:
        return sum(claim["holds"] for claim in self.claims)

    @property
    def failing(self) -> list[dict[str, Any]]:
        return [claim for claim in self.claims if not claim["holds"]]


@dataclass
class Summary:
    """A run: when, where, and its notebooks. state: running, complete, interrupted, or stopped by an error."""

    started: str
    environment: dict[str, str]
    notebooks: list[Result]
    state: str = RUNNING
    seconds: float = 0.0
    format: int = 1

    @property
    def exit_code(self) -> int:
        """0 if all ran and all claims hold, 130 after Ctrl-C, else 1."""
        if self.state == INTERRUPTED:
            return 130
        return 0 if all(result.status == HELD for result in self.notebooks) else 1

    def count(self, *statuses: str) -> int:
        return sum(result.status in statuses for result in self.notebooks)

    def verdict(self) -> str:
        """The run in one sentence."""
        claims = sum(len(result.claims) for result in self.notebooks)
        failing = claims - sum(result.held for result in self.notebooks)
        ran = self.count(HELD, FAILS)
        parts = [f"{ran} of {len(self.notebooks)} notebooks ran", f"{claims - failing} of {claims} claims hold"]
        unfinished = (RUNNING, INTERRUPTED, NOT_RUN)
        for text, statuses in (("claims fail in", (FAILS,)), ("failed", (FAILED,)), ("not finished", unfinished)):
            if self.count(*statuses):
                names = ", ".join(result.number for result in self.notebooks if result.status in statuses)
                parts.append(f"{text}: {names}")
        return "; ".join(parts) + "."


def to_json(summary: Summary) -> bytes:
    """The record of a run; pictures stay in the executed notebooks."""
    record = dataclasses.asdict(summary)
    for notebook in record["notebooks"]:
        notebook["figures"] = [{k: v for k, v in figure.items() if k != "png"} for figure in notebook["figures"]]
    return json.dumps(record, indent=1, ensure_ascii=False).encode()


def write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: beside it first, then renamed."""
    handle, beside = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(data)
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def terminal_table(summary: Summary) -> str:
    """The table that ends a run, and below it what failed, with notebook, cell and reason."""
    rows = [("notebook", "status", "seconds", "CPU s", "peak MB", "claims", "shortfalls")]
    for result in summary.notebooks:
        claims = f"{result.held}/{len(result.claims)}" if result.executed else ""
        figures = ("", "", "")
        if result.executed:
            figures = (f"{result.seconds:.1f}", f"{result.cpu_seconds:.1f}", f"{result.peak_mb:.0f}")
        shortfalls = str(len(result.shortfalls) or "")
        rows.append((result.name, f"{SYMBOL[result.status]} {result.status}", *figures, claims, shortfalls))
    cpu, peak = sum(r.cpu_seconds for r in summary.notebooks), max(r.peak_mb for r in summary.notebooks)
    rows.append(("total", "", f"{summary.seconds:.1f}", f"{cpu:.1f}", f"{peak:.0f}", "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(_cell(text, width, i) for i, (text, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    rule = "  ".join("-" * width for width in widths)
    lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    return "\n".join([*(line.rstrip() for line in lines), *problems(summary)])


def problems(summary: Summary) -> list[str]:
    """One line for each notebook that failed and each claim that does."""
    lines = []
    for result in summary.notebooks:
        if result.error:
            where = f"{result.name}, cell {result.error['cell']}"
            lines.append(f"✗ {where}: {result.error['message']}  (in: {result.error['source']})")
        for claim in result.failing:
            lines.append(f"✗ {result.name}, cell {claim['cell']}: claim FAILS: {claim['name']}, {told(claim)}")
    return lines


def told(claim: dict[str, Any]) -> str:
    """Measured value and band of a claim in words."""
    return f"measured {value_text(claim)}, expected {band_text(claim['at_least'], claim['at_most'])}"


def _cell(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column < 2 else text.rjust(width)
