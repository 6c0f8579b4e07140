"""How long notebooks take: what `drmlib refresh` has stored of each, and what is left of a run.

Nothing here imports torch, so that `drmlib list` answers at once.
"""

import heapq
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

UNKNOWN = 60.0  # seconds that a notebook is taken for which stores no figure


class Stored(NamedTuple):
    """What a notebook's metadata hold of its last refresh, 0 where they do not.

    steps: its CPU time in reference steps (reference.py), which is what its budget limits.
    cpu_seconds, reference_step: both in CPU seconds, on the machine of the refresh.
    seconds: on the clock, on one thread.
    peak_mb: largest resident memory of the kernel.
    """

    steps: int = 0
    cpu_seconds: float = 0.0
    reference_step: float = 0.0
    seconds: float = 0.0
    peak_mb: float = 0.0


def stored(path: Path) -> Stored:
    """The figures that the notebook at `path` stores."""
    metadata = json.loads(path.read_bytes())["metadata"].get("drmlib", {})
    return Stored(**{name: metadata[name] for name in Stored._fields if name in metadata})


def steps(cpu_seconds: float, reference_step: float) -> int:
    """CPU time in reference steps, at least 1."""
    return max(1, round(cpu_seconds / reference_step))


def expected(path: Path) -> float:
    """CPU seconds that the notebook took when it was stored, or a guess: for the order in which notebooks run."""
    figures = stored(path)
    return figures.cpu_seconds or figures.seconds or UNKNOWN


def in_words(figures: Stored) -> str:
    """The stored CPU time as a person wants to know it; empty if none is stored."""
    cpu = figures.steps * figures.reference_step
    if not cpu:
        return ""
    return f"about {cpu:.0f} s of one core" if cpu < 90 else f"about {cpu / 60:.0f} min of one core"


class Pace:
    """The speed of a run: seconds on the clock over the CPU seconds expected, from the notebooks that are done.

    With the notebooks' stored figures and the reference step of this machine, a first guess is there at the start;
    None without, as where the parameters are not those of the stored outputs.
    """

    def __init__(self, expected: Mapping[str, float], guess: float | None) -> None:
        self.expected, self.guess = expected, guess
        self.seconds, self.planned = 0.0, 0.0

    def done(self, name: str, seconds: float) -> None:
        """Notes a notebook that has run to its end."""
        self.seconds, self.planned = self.seconds + seconds, self.planned + self.expected[name]

    @property
    def value(self) -> float | None:
        return self.seconds / self.planned if self.planned else self.guess

    def left(self, running: Mapping[str, float], waiting: Iterable[str], jobs: int) -> float | None:
        """Seconds until all are done: those `running` for so many seconds, then those `waiting`, so many at once."""
        pace = self.value
        if pace is None:
            return None
        ends = [max(0.0, pace * self.expected[name] - spent) for name, spent in running.items()]
        ends += [0.0] * (jobs - len(ends))
        heapq.heapify(ends)
        for name in waiting:
            heapq.heappush(ends, heapq.heappop(ends) + pace * self.expected[name])
        return max(ends)


def first_guess(paths: Iterable[Path], reference_step: float) -> float | None:
    """How much slower this machine is than those that stored the notebooks, by the reference step; None if unknown."""
    figures = [stored(path) for path in paths]
    known = [figure for figure in figures if figure.steps and figure.cpu_seconds]
    if not known:
        return None
    return sum(figure.steps for figure in known) * reference_step / sum(figure.cpu_seconds for figure in known)
