"""Confusion training as notebook 07 and its benchmark run it: settings of each profile, controls, what is left.

Only here do its findings meet the masks of the attacker, which the evaluator has.
"""

from dataclasses import replace
from typing import NamedTuple

from torch import Tensor, nn

from drmlib import metrics
from drmlib.attacks.measure import ClassifierFigures
from drmlib.attacks.poison import Poisoned
from drmlib.data.dataset import Dataset
from drmlib.detection.confusion_settings import CIFAR10, SMALL, ConfusionSettings
from drmlib.detection.confusion_training import Confusion, confusion
from drmlib.lab.staging import Staged
from drmlib.lab.victims import Material, untrained, victim
from drmlib.metrics import Estimate
from drmlib.rng import stream
from drmlib.session import progress

SETTINGS = {"quick": SMALL, "standard": SMALL, "paper": CIFAR10}


class Arm(NamedTuple):
    """Settings and the reserved samples that a run has."""

    settings: ConfusionSettings
    reserved: Dataset


class Found(NamedTuple):
    """What confusion training found, and how much of the poison and of the clean samples (covers are clean) it took."""

    confusion: Confusion
    true_positive_rate: Estimate
    false_positive_rate: Estimate

    def survival(self, samples: Tensor) -> list[float]:
        """After each round, the share of `samples` (n,) bool whose given label is still predicted."""
        return [r.agrees[samples].float().mean().item() for r in self.confusion.rounds]

    def purity(self, poison: Tensor) -> list[float]:
        """Share of poison in the set that each round starts from."""
        return [poison[r.distilled].float().mean().item() for r in self.confusion.rounds]


def search(source: Material, poisoned: Poisoned, model: nn.Module, arm: Arm, *, seed: int, name: str) -> Found:
    """Confusion training of the poisoned set, that `model` learned; `name` labels the progress bar.

    Where the first round does not pretrain it starts from `model`, else from new weights.
    """
    start = untrained(source, seed=seed + 1000) if arm.settings.rounds[0].pretrain_epochs else model
    found = confusion(
        model,
        poisoned.dataset,
        arm.reserved,
        start,
        settings=arm.settings,
        generator=stream(seed, "confusion training", device=source.train.device),
        progress=progress(name),
    )
    return Found(found, *(metrics.rate(found.removed[kind]) for kind in (poisoned.poison, ~poisoned.poison)))


def retrained(source: Material, staged: Staged, found: Found, *, seed: int) -> ClassifierFigures:
    """The attack's figures on a new model, trained on the samples that are kept."""
    kept = staged.poisoned.dataset[~found.confusion.removed]
    figures = staged.measure(victim(source, kept, seed=seed, name="retrain"), source.test)
    assert isinstance(figures, ClassifierFigures)  # labels are a classifier's
    return figures


def arms(source: Material, settings: ConfusionSettings, *, controls: bool = True) -> dict[str, Arm]:
    """The method, and three runs that lack one of its parts each.

    One round, of as many steps: nothing is distilled. No confusion, lambda 1: the reserved samples enter no loss. Few
    reserved: a tenth of the defender's samples.
    """
    first, steps = settings.rounds[0], sum(now.steps for now in settings.rounds)
    plain = tuple(now._replace(balance=1.0, mix_every=1) for now in settings.rounds)
    every = source.defender
    method = {"confusion training": Arm(settings, every)}
    lacking = {
        "one round": Arm(replace(settings, rounds=(first._replace(steps=steps, keep=None),)), every),
        "no confusion": Arm(replace(settings, rounds=plain), every),
        "few reserved": Arm(settings, every[: len(every) // 10]),
    }
    return method | lacking if controls else method
