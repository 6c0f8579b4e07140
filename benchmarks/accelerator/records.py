"""Records of measurements with the machine that made them, as JSON lines; and the table, rendered from these alone."""

import dataclasses
import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.accelerator.measure import Record
from drmlib import session
from drmlib.lab import results

ROOT = Path(__file__).parent.parent.parent
MACHINE = ("sizes", "device", "driver", "cuda", "torch", "python", "tf32", "processor", "threads", "date", "commit")


def machine(device: torch.device, *, trial: bool) -> dict[str, str]:
    """Where, with what and at which sizes is measured: one text for each of MACHINE, empty where there is none."""
    card = device.type == "cuda"
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    return {
        "sizes": "of a trial: the figures say that it runs, not how fast" if trial else "of a card",
        "device": torch.cuda.get_device_name(device) if card else session.processor(),
        "driver": _told("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if card else "",
        "cuda": torch.version.cuda or "" if card else "",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "tf32": "convolutions {}, products {}".format(*("yes" if on else "no" for on in tf32)) if card else "",
        "processor": session.processor(),
        "threads": str(session.threads()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _told("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"),
    }


def write(folder: Path, records: Sequence[Record], where: dict[str, str]) -> None:
    """records.jsonl and table.md in `folder`, each whole or not at all, so that an interrupted run keeps the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({**dataclasses.asdict(record), **where}, ensure_ascii=False) for record in records]
    text = "".join(f"{line}\n" for line in lines)
    results.write(folder / "records.jsonl", text.encode())
    results.write(folder / "table.md", table([json.loads(line) for line in lines]).encode())


def table(records: Sequence[dict[str, Any]]) -> str:
    """The page of a run in Markdown: the machine, a table for each section, and what was not measured."""
    if not records:
        return "No record.\n"
    lines = [f"# {records[0]['device']}", "", "| | |", "| --- | --- |"]
    lines += [f"| {key} | {records[0][key]} |" for key in MACHINE if records[0][key]]
    lines += ["", "Medians of `repeats` calls after one that warms up; 0 repeats: that first call alone."]
    for title in dict.fromkeys(record["section"] for record in records):
        lines += ["", f"## {title}", "", "| what | precision | value | n | repeats | memory MB |"]
        lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
        lines += [_row(record) for record in records if record["section"] == title]
    return "\n".join(lines) + "\n"


def _row(record: dict[str, Any]) -> str:
    figure = f"{record['status']}: {record['reason']}".replace("|", "/")
    if record["value"] is not None:
        figure = (
            f"{record['value']:,.4g} {record['unit']}"
            if record["value"] < 1000
            else f"{record['value']:,.0f} {record['unit']}"
        )
    memory = "" if record["memory"] is None else f"{record['memory']:,.0f}"
    return f"| {record['name']} | {record['precision']} | {figure} | {record['n']} | {record['repeats']} | {memory} |"


def _told(*command: str) -> str:
    """The first line that a command prints, empty if it cannot be run."""
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip().partition("\n")[0]
