"""Two functions timed in turn, A B A B, so that a machine whose speed drifts slows both; medians, and peak memory."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

Clock = Callable[[], float]


class Row(NamedTuple):
    """One comparison: median seconds of ours and of the reference, their ratio pair by pair, and the target if any."""

    what: str
    ours: float
    reference: float
    ratio: float
    target: str = ""


def compare(
    what: str,
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    repeats: int = 7,
    target: str = "",
    clock: Clock = time.perf_counter,
) -> Row:
    """Medians over `repeats` pairs after one warm-up of each; the ratio is the median of the pairs' ratios."""
    ours()
    reference()
    pairs = [(_seconds(ours, clock), _seconds(reference, clock)) for _ in range(repeats)]
    ratio = statistics.median(a / b for a, b in pairs)
    return Row(what, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio, target)


def peak_memory() -> int:
    """Largest resident memory of this process so far, in MB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    import sys

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


def report(rows: list[Row]) -> str:
    """The table that a run ends with."""
    head = f"{'what':58} {'ours ms':>10} {'reference ms':>13} {'ratio':>7}  target"
    lines = [f"{r.what:58} {r.ours * 1e3:10.2f} {r.reference * 1e3:13.2f} {r.ratio:7.2f}  {r.target}" for r in rows]
    return "\n".join([head, "-" * len(head), *lines])


def _seconds(function: Callable[[], object], clock: Clock) -> float:
    start = clock()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start
