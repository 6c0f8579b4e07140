"""What a detector of poisoned samples is given, and what it hands back.

An Inspection is what the defender holds; each detector of lab/detectors.py makes Findings of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from drmlib.data.dataset import Dataset
from drmlib.detection.confusion_settings import ConfusionSettings
from drmlib.detection.frequency import FrequencyNetwork
from drmlib.rng import stream
from drmlib.training.fit import Recipe


class Effort(NamedTuple):
    """Passes: overlays of STRIP and SentiNet, steps of cognitive distillation, steps and width of Frequency's network;
    clean samples that a threshold is taken from where each costs as many passes."""

    overlays: int
    steps: int
    network: int
    width: int
    held_out: int


class Training(NamedTuple):
    """What the defender trains on the suspicious set: an untrained network, by which recipe it is usually trained, and
    the settings of confusion training."""

    network: nn.Module
    recipe: Recipe
    confusion: ConfusionSettings


class Inspection(NamedTuple):
    """A model and its training set as the attacker left it, clean samples, and what costs too much for every sample.

    sample: which training samples the slow detectors score; network: from Frequency's `learn`, on the same clean
    samples; oracle_poison_count: the number of poisoned samples, which two papers take as known; training: for the
    detectors that train.
    """

    model: nn.Module
    train: Dataset
    clean: Dataset
    sample: Tensor
    network: FrequencyNetwork
    effort: Effort
    oracle_poison_count: int
    seed: int
    training: Training | None = None

    @property
    def suspects(self) -> Tensor:
        return self.train.images[self.sample]

    @property
    def everything(self) -> tuple[nn.Module, Tensor, Tensor]:
        return self.model, self.train.images, self.train.targets

    def stream(self, name: str) -> torch.Generator:
        return stream(self.seed, "detector", name, device=self.train.device)


class Findings(NamedTuple):
    """Scores (m,) of the training samples `samples` (m,), and which of these the paper's own rule flags, (m,) bool."""

    samples: Tensor
    scores: Tensor
    flagged: Tensor


def every(scores: Tensor, flagged: Tensor) -> Findings:
    """Findings of a detector that scores all training samples, in their order."""
    return Findings(torch.arange(len(scores), device=scores.device), scores, flagged)


Detector = Callable[[Inspection], Findings]
