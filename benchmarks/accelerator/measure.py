"""Times one measurement after another within a budget of seconds. What fails or finds no time left is recorded."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

REPEATS = 7
MEASURED, FAILED, SKIPPED = "measured", "failed", "skipped"
Clock = Callable[[], float]


class Measure(NamedTuple):
    """What is to be timed.

    prepare: makes data and models, which is not timed, and returns the function that is.
    n: how many images one call handles. unit: "images/s", or "s" for the seconds of one call.
    """

    name: str
    prepare: Callable[[], Callable[[], object]]
    n: int
    unit: str = "images/s"
    precision: str = "float32"


class Section(NamedTuple):
    """Measures that share a budget of `seconds`, each repeated at most `repeats` times after its warm-up."""

    title: str
    seconds: float
    measures: Sequence[Measure]
    repeats: int = REPEATS


@dataclass(frozen=True)
class Record:
    """One line of records.jsonl without the machine.

    value: the median in `unit`, None if nothing was measured. repeats: how many calls it is the median of; 0 says that
    the first call, which warms up, left no time for another and is itself the value. memory: the largest memory of the
    card in MB, None on a processor. reason: why there is no value.
    """

    name: str
    section: str
    value: float | None
    unit: str
    n: int
    precision: str
    repeats: int = 0
    memory: float | None = None
    status: str = MEASURED
    reason: str = ""


def run(section: Section, device: torch.device, *, clock: Clock = time.perf_counter) -> Iterator[Record]:
    """A record for each measure of the section, in order. The time that is left is shared by the measures left."""
    end = clock() + section.seconds
    for position, measure in enumerate(section.measures):
        about = measure.name, section.title
        left = end - clock()
        if left <= 0:
            yield _without(about, measure, SKIPPED, f"the section's budget of {section.seconds:g} s is spent")
            continue
        try:
            share = left / (len(section.measures) - position)
            yield _measured(about, measure, device, share, clock, section.repeats)
        except Exception as error:  # whatever a card may answer: the record says what, and the others go on
            lines = str(error).strip().splitlines() or [""]
            yield _without(about, measure, FAILED, f"{type(error).__name__}: {lines[0][:300]}")
        finally:
            _free(device)


def seconds(function: Callable[[], object], device: torch.device, *, clock: Clock = time.perf_counter) -> float:
    """Seconds of one call, from an idle device to an idle device: kernels on CUDA go on after the call has returned."""
    _wait(device)
    start = clock()
    function()
    _wait(device)
    return clock() - start


def _measured(
    about: tuple[str, str], measure: Measure, device: torch.device, budget: float, clock: Clock, repeats: int
) -> Record:
    end = clock() + budget
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    function = measure.prepare()
    first, times = seconds(function, device, clock=clock), []
    while len(times) < repeats and clock() + first < end:
        times.append(seconds(function, device, clock=clock))
    median = statistics.median(times or [first])
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    value = median if measure.unit == "s" else measure.n / median
    return Record(*about, value, measure.unit, measure.n, measure.precision, len(times), memory)


def _without(about: tuple[str, str], measure: Measure, status: str, reason: str) -> Record:
    return Record(*about, None, measure.unit, measure.n, measure.precision, status=status, reason=reason)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
