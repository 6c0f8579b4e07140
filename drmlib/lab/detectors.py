"""What the name of a detector of poisoned samples stands for: what it is given, which samples it scores, what it flags.

The detectors are in detectors_by_set.py, _by_sample.py and _by_training.py. DETECTORS are those that train
no classifier of their own, METHODS all. Profiles change how many passes they make, never the path.
"""

import time
from typing import NamedTuple

import torch
from torch import Tensor

from drmlib import metrics
from drmlib.data.dataset import Dataset
from drmlib.detection import frequency
from drmlib.lab.detectors_by_sample import BY_SAMPLE
from drmlib.lab.detectors_by_set import BY_SET
from drmlib.lab.detectors_by_training import BY_TRAINING
from drmlib.lab.inspection import Effort, Findings, Inspection
from drmlib.rng import stream
from drmlib.session import lookup

DETECTORS = BY_SET | BY_SAMPLE
METHODS = DETECTORS | BY_TRAINING
EFFORT = {
    "quick": Effort(20, 30, 150, 8, 60),
    "standard": Effort(100, 100, 1000, 16, 400),
    "paper": Effort(100, 100, 4000, 32, 400),
}


class Figures(NamedTuple):
    """How good findings are: over all scored samples, at 5 % false positives, and at the method's own threshold."""

    auroc: metrics.Estimate
    tpr_at_5: metrics.Estimate
    tpr: metrics.Estimate
    fpr: metrics.Estimate
    seconds: float


def sample_of(poison: Tensor, *, poisoned: int, clean: int, seed: int) -> Tensor:
    """Which samples slow detectors score, drawn by the evaluator: at most so many poisoned and so many clean ones."""
    g = stream(seed, "sample", device=poison.device)
    parts = [(mask.nonzero().squeeze(1), most) for mask, most in ((poison, poisoned), (~poison, clean))]
    return torch.cat([p[torch.randperm(len(p), generator=g, device=p.device)[:most]] for p, most in parts])


def inspect(name: str, inspection: Inspection, poison: Tensor) -> tuple[Findings, Figures]:
    """What the detector called `name` finds, and how good that is by the evaluator's mask (n,) of the poison."""
    detector = lookup("detector", name, METHODS)
    start = time.perf_counter()
    found = detector(inspection)
    seconds = time.perf_counter() - start
    truth = poison[found.samples]
    return found, Figures(
        metrics.auroc(found.scores, truth),
        metrics.true_positive_rate(found.scores, truth, false_positive_rate=0.05),
        metrics.rate(found.flagged[truth]),
        metrics.rate(found.flagged[~truth]),
        seconds,
    )


def learn_network(clean: Dataset, effort: Effort, *, seed: int) -> frequency.FrequencyNetwork:
    """Frequency's network, which one data set needs once, for it looks at no victim."""
    g = stream(seed, "frequency", device=clean.device)
    return frequency.learn(clean.images, steps=effort.network, width=effort.width, batch_size=32, generator=g)
