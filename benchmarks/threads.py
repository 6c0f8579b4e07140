"""A training beside busy processes against the same training on an idle machine, under the thread policy of session.py.

The busy processes are children that count in a loop, one core each. Each measurement is a process of its own, since
OpenMP reads its settings once.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.timing import Row
from drmlib import session

TRAINING = """
import sys, time
import drmlib
import torch
from drmlib.data.faces import gaze_faces
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import REGRESSION, adamw, training_step

data = gaze_faces(256, generator=stream(0, "faces"))
model = SmallCNN(2, generator=stream(0, "weights")).to(memory_format=torch.channels_last)
optimizer, g = adamw(model, REGRESSION), stream(0, "order")
index = torch.arange(REGRESSION.batch_size)
steps = -2
start = time.perf_counter()
while steps < 1 or time.perf_counter() - start < float(sys.argv[1]):
    if steps == 0:
        start = time.perf_counter()
    training_step(model, optimizer, data, index, REGRESSION, generator=g)
    steps += 1
print((time.perf_counter() - start) / steps)
"""


def run(seconds: float = 5.0, repeats: int = 3) -> list[Row]:
    """Seconds of a training step beside one and two busy processes, over those on the machine as it is."""
    idle = [step_seconds(seconds) for _ in range(repeats)]
    rows = []
    for others, target in ((1, "< 2.22"), (2, "< 3.33")):
        with busy(others):
            beside = [step_seconds(seconds) for _ in range(repeats)]
        name = f"training step beside {others} busy {'process' if others == 1 else 'processes'}, against idle"
        ours, reference = statistics.median(beside), statistics.median(idle)
        rows.append(Row(f"{name}, {session.cores()} cores", ours, reference, ours / reference, target))
    return rows


def step_seconds(seconds: float) -> float:
    """Wall seconds of a training step of the quick profile, measured for `seconds` in a process of its own."""
    command = [sys.executable, "-c", TRAINING, str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=fresh_environment()).stdout)


def fresh_environment() -> dict[str, str]:
    """The environment without what the thread policy has put there: a child settles its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}


@contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes that keep a core busy each."""
    loop = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(loop) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
