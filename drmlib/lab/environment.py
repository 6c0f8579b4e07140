"""Versions and machine of a run, as a reader of its results needs them."""

import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import drmlib
from drmlib.lab.schedule import Phase


def environment(plan: Sequence[Phase]) -> dict[str, str]:
    """What summary.json says of versions, machine, and how many notebooks ran at once."""
    from drmlib import precision, session

    versions = {name: version(name) for name in ("drmlib", "torch", "torchvision", "numpy", "papermill")}
    found = commit()
    return {
        "python": platform.python_version(),
        **versions,
        **({"commit": found} if found else {}),
        "device": session.available_devices()[0],
        "processor": session.processor(),
        "cores": str(session.cores()),
        "notebooks at once": str(max((phase.jobs for phase in plan), default=1)),
        "threads per notebook": threads(plan),
        "precision": precision.name(),
        "reference step": f"{reference_step() * 1e3:.1f} ms of CPU time",
        "platform": platform.platform(terse=True),
    }


def threads(plan: Sequence[Phase]) -> str:
    """Threads of the notebooks of each phase, in words."""
    if len(plan) < 2:
        return "".join(str(phase.threads) for phase in plan)
    return f"{plan[0].threads} for {plan[0].notebooks[0].number}, {plan[1].threads} for the others"


@cache
def reference_step() -> float:
    """CPU seconds of a reference step on this machine now; few steps, since the run waits for it."""
    from drmlib.lab import reference

    return reference.step_seconds(5)


def kernel_precision() -> str | None:
    """The precision for all kernels of a run, so that none measures for itself and comes to another answer.

    None where bfloat16 was chosen for the processor but notebooks compute on a graphics card, which keeps float32.
    """
    from drmlib import precision, session

    name = precision.name()
    return name if name == "float32" or session.available_devices()[0] == "cpu" else None


def commit() -> str | None:
    """The commit that drmlib is run from, with a plus if files differ from it; None where drmlib is in no checkout."""
    root = Path(drmlib.__file__).resolve().parents[1]
    with suppress(OSError, subprocess.SubprocessError):
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() == root:  # not that of a project around a venv
            changed = _git(root, "status", "--porcelain", "--untracked-files=no")
            return _git(root, "rev-parse", "--short", "HEAD") + ("+" if changed else "")
    return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
