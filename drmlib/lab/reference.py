"""The reference step: what one fixed training step costs on this machine, in CPU seconds.

The budget of a notebook is a number of such steps, so that it means the same on a fast and on a slow machine. The
network is written out here in plain torch and must not change: it is a unit. drmlib's own models may become cheaper.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from drmlib import session

if TYPE_CHECKING:
    from torch import nn

CHANNELS = (3, 16, 32, 32, 64, 64)
STRIDED = (2, 4)  # convolutions, counted from 1, that halve the image
STEPS = 15


def step_seconds(steps: int = STEPS) -> float:
    """Median CPU seconds of a step on one thread: 64 images of 32x32, float32, forward, backward and AdamW."""
    import torch
    from torch import nn

    from drmlib import rng

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with rng.seeded_layers(rng.stream(0, "reference")):
            model = _network()
        images = torch.rand(64, 3, 32, 32, generator=rng.stream(0, "reference images"))
        targets = torch.arange(64) % 10
        optimizer, seconds = torch.optim.AdamW(model.parameters(), fused=False), []
        for _ in range(steps + 2):  # the first two warm up
            start = time.process_time()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), targets).backward()
            optimizer.step()
            seconds.append(time.process_time() - start)
    finally:
        torch.set_num_threads(before)
    return statistics.median(seconds[2:])


def measured_apart(steps: int = STEPS) -> float:
    """step_seconds of a fresh process of one thread, as a kernel is one."""
    code = f"from drmlib.lab import reference; import json; print(json.dumps(reference.step_seconds({steps})))"
    environment = {**os.environ, **session.thread_environment(1)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _network() -> "nn.Module":
    from torch import nn

    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(zip(CHANNELS, CHANNELS[1:], strict=False), 1):
        stride = 2 if number in STRIDED else 1
        layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], 10))
