"""Models to judge a defence of models by: benign ones and backdoored ones that differ in seed, target and trigger.

One benign and one backdoored model of a seed start from the same weights; benign ones serve every attack. All come from
the cache where they were trained before. Models that a threshold is chosen on must be others: REFERENCE is added to
their seeds.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from drmlib import metrics
from drmlib.attacks.measure import RegressorFigures, angle_variance_ratio, first_order_ratio
from drmlib.attacks.poison import Trigger
from drmlib.attacks.targets import ConstantVector
from drmlib.data.dataset import Dataset
from drmlib.lab.attacks import stage
from drmlib.lab.victims import Material, victim
from drmlib.rng import stream

REFERENCE = 1000  # first seed of the benign models that thresholds are chosen on


class Suspect(NamedTuple):
    """A model and what its maker knows of it: nothing of this is shown to a defence but the model."""

    name: str
    model: nn.Module
    trigger: Trigger | None = None
    target: tuple[float, ...] | None = None
    figures: RegressorFigures | None = None
    angle_variance_ratio: Tensor | None = None
    first_order_ratio: Tensor | None = None

    @property
    def is_backdoored(self) -> bool:
        return self.target is not None


class Verdict(NamedTuple):
    """How well scores tell backdoored from benign: AUROC, and accuracy at a threshold that was set elsewhere."""

    auroc: metrics.Estimate
    accuracy: metrics.Estimate


def benign(source: Material, *, seed: int) -> Suspect:
    """A model trained on source.train as it is."""
    return Suspect(f"benign {seed}", victim(source, source.train, seed=seed, name=f"benign {seed}"))


def backdoored(attack: str, source: Material, *, profile: str, seed: int) -> Suspect:
    """A model trained on source.train poisoned by `attack` (lab.attacks.REGRESSOR), to a target of its own."""
    target = random_target(source.train, seed=seed)
    staged = stage(attack, source, target, profile=profile, seed=seed)
    model = victim(source, staged.poisoned.dataset, seed=seed, name=f"{attack} {seed}")
    figures = staged.measure(model, source.test)
    assert isinstance(figures, RegressorFigures)  # a target vector is a regressor's
    return Suspect(
        f"{attack} {seed}",
        model,
        staged.trigger,
        target.vector,
        figures,
        angle_variance_ratio(model, source.test, staged.trigger),
        first_order_ratio(model, source.test, staged.trigger),
    )


def random_target(dataset: Dataset, *, seed: int) -> ConstantVector:
    """A target vector of the seed's own: each component 0.7 to 1.3 standard deviations above or below the mean."""
    targets, g = dataset.targets, stream(seed, "target")
    size = 0.7 + 0.6 * torch.rand(targets.shape[1], generator=g)
    side = torch.where(torch.rand(targets.shape[1], generator=g) < 0.5, -1.0, 1.0)
    return ConstantVector(tuple((targets.mean(0).cpu() + side * size * targets.std(0).cpu()).tolist()))


def threshold(reference_scores: list[float], *, share: float = 0.75) -> float:
    """The score below which a model counts as backdoored: `share` of the median of benign reference models."""
    if not reference_scores:
        raise ValueError("expected scores of at least one benign reference model, got none")
    return share * torch.tensor(reference_scores).median().item()


def judge(scores: dict[str, float], is_backdoored: Callable[[str], bool], limit: float) -> Verdict:
    """The verdict on models by name, whose small `scores` are suspicious, at the threshold `limit`."""
    values = torch.tensor(list(scores.values()), dtype=torch.float64)
    truth = torch.tensor([is_backdoored(name) for name in scores])
    return Verdict(metrics.auroc(-values, truth), metrics.rate((values < limit) == truth))
