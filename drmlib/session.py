"""The session: threads and device of a process, how it shows progress, and the one look-up of a name.

The thread policy is settled by `import drmlib`, before torch is imported: OpenMP reads its settings once, when its
library is loaded. Without it, two threads that wait for each other spin; beside one other busy process a training then
keeps a twentieth of its speed.
"""

import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

CGROUP = Path("/sys/fs/cgroup")


class Threads(NamedTuple):
    """How this process computes.

    threads: the number of threads that torch uses for one operation.
    cores: the number of cores that this process may use, by affinity and by the quota of its cgroup.
    waiting: "passive" if idle threads sleep, "active" if they spin, "system" if OpenMP's default holds.
    """

    threads: int
    cores: int
    waiting: str

    def __str__(self) -> str:
        return f"{self.threads} on {self.cores} cores, {self.waiting} waiting"


def settle_threads() -> None:
    """Sets the environment that OpenMP reads when torch is imported; `import drmlib` calls this.

    What a person has set stays: OMP_NUM_THREADS, OMP_WAIT_POLICY, and above both DRMLIB_THREADS. If torch is there
    already, only the number of threads can still be changed.
    """
    count = wanted_threads()
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch = sys.modules.get("torch")
    if torch is None:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    elif torch.get_num_threads() != count:
        torch.set_num_threads(count)


def wanted_threads() -> int:
    """DRMLIB_THREADS, else OMP_NUM_THREADS, else the number of cores; ValueError for what is no number above 0."""
    own = os.environ.get("DRMLIB_THREADS", "")
    if own and not (own.isdecimal() and int(own) > 0):
        raise ValueError(f"expected DRMLIB_THREADS to be a whole number above 0, got {own!r}")
    outer = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(own) if own else int(outer) if outer.isdecimal() and int(outer) > 0 else cores()


def thread_environment(threads: int) -> dict[str, str]:
    """The environment of a child process that shall compute on so many threads."""
    return {"DRMLIB_THREADS": str(threads), "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}


def threads() -> Threads:
    """How this process computes now."""
    import torch

    policy = os.environ.get("OMP_WAIT_POLICY", "").lower()
    return Threads(torch.get_num_threads(), cores(), policy if policy in ("passive", "active") else "system")


def cores() -> int:
    """The cores that this process may use: those of its affinity, and no more than its cgroup's quota pays for."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, math.floor(quota() + 0.5)) if quota() < allowed else allowed)


def quota(folder: Path = CGROUP) -> float:
    """Cores that the cgroup's quota pays for, version 2 or 1; infinite where there is none."""
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit, period = ((folder / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(limit) / int(period) if limit != "max" and int(limit) > 0 else math.inf
    except (OSError, ValueError):
        return math.inf


def processor() -> str:
    """The name of the processor, as the system tells it."""
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def device(name: str = "auto", *, double: bool = False) -> "torch.device":
    """The device called `name`; "auto" is the first there is of cuda, mps and cpu.

    double: one that has float64, which mps has not and the oracles of data/functions.py need.
    """
    import torch

    valid = [kind for kind in available_devices() if not (double and kind == "mps")]
    if name == "auto":
        return torch.device(valid[0])
    kind, _, index = name.partition(":")
    if kind not in valid or (index and not (kind == "cuda" and index in map(str, range(torch.cuda.device_count())))):
        raise ValueError(f"unknown device {name!r}; valid here: {', '.join(['auto', *valid])}")
    return torch.device(name)


def available_devices() -> list[str]:
    """Kinds of device on this machine, the fastest first."""
    import torch

    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, there in found.items() if there]


def progress(description: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """A wrapper of an iterable that shows a bar: a widget in JupyterLab, text on stderr where nobody is in front."""
    if has_front_end():
        from tqdm.auto import tqdm

        return partial(tqdm, desc=description)
    from tqdm import tqdm as text_bar

    return partial(text_bar, desc=description, file=sys.stderr, mininterval=0.5, ncols=70, ascii=True)


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """`table[name]`, or a ValueError that lists the valid names.

    The one place where a string selects a function: at the border, where a parameter comes from outside.
    """
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; valid: {', '.join(table)}")
    return table[name]


def has_front_end() -> bool:
    """Whether widgets would be seen: in an ipykernel that no headless runner has started."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return not os.environ.get("DRMLIB_HEADLESS") and type(shell).__name__ == "ZMQInteractiveShell"
