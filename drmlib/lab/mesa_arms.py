"""MESA's removal experiment: the attack, what a backdoored classifier is retrained with, and what is left of it.

Beside the distribution of triggers: the true one (the ideal), patches of the images themselves (the control: is it the
triggers that remove the backdoor, or any retraining?), and single inverted ones (the paper's baseline).
"""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from drmlib.attacks.measure import ClassifierFigures, measure_classifier
from drmlib.attacks.per_image import uniform
from drmlib.attacks.poison import Trigger, poison
from drmlib.attacks.roaming_patch import RoamingPatch, paste
from drmlib.attacks.targets import AllToOne
from drmlib.data.dataset import Dataset
from drmlib.inversion.mesa import LEVELS, Patches, trigger_distribution
from drmlib.inversion.point_triggers import point_triggers
from drmlib.lab.cache import cached_fit
from drmlib.lab.victims import Material, searched, untrained
from drmlib.mitigation.unlearn import unlearn
from drmlib.rng import stream
from drmlib.session import progress
from drmlib.training.fit import Recipe

LARGER = 2  # pixels by which a side is overestimated where the size is not known
# Sizes at which generators of a 3 x 3 patch learn in seconds on a processor; {} for the authors'.
SETTINGS: dict[str, dict[str, Any]] = {
    "quick": {"steps": 150, "batch_size": 32, "noise": 32, "width": 128, "learning_rate": 2e-3},
    "standard": {},
    "paper": {},
}


def backdoored(
    source: Material,
    trigger: RoamingPatch,
    label: int,
    *,
    rate: float,
    rounds: int,
    seed: int,
    name: str,
    start: nn.Module | None = None,
) -> nn.Module:
    """A model trained for `rounds` epochs, each on source.train poisoned anew: other samples, other places.

    start: a clean model, a copy of which is trained further without augmentation, as the authors' attacker does; else a
    new model is trained by source.recipe.

    The authors poison afresh in every epoch too. With one poisoned set for all epochs random colours are hardly
    learned. The rounds lie in memory end to end, so that one training sees them: rounds times the training set.
    """
    whole = _poisoned_anew(source.train, trigger, label, rate=rate, rounds=rounds, seed=seed)
    model = untrained(source, seed=seed) if start is None else copy.deepcopy(start)
    order = stream(seed, "victim", "order", device=whole.device)
    recipe = replace(source.recipe, epochs=1, augment=source.recipe.augment if start is None else None)
    cached_fit(model, whole, recipe, generator=order, progress=progress(f"train {name}"))
    return model


def _poisoned_anew(
    clean: Dataset, trigger: RoamingPatch, label: int, *, rate: float, rounds: int, seed: int
) -> Dataset:
    """`rounds` poisoned copies of `clean`, end to end."""
    whole = replace(clean, images=clean.images.repeat(rounds, 1, 1, 1), targets=clean.targets.repeat(rounds))
    for k in range(rounds):
        g = stream(seed, "poison", f"round {k}", device=clean.device)
        drawn = poison(clean, trigger._replace(seed=k), AllToOne(label), rate=rate, generator=g).dataset
        here = slice(k * len(clean), (k + 1) * len(clean))
        whole.images[here], whole.targets[here] = drawn.images, drawn.targets
    return whole


def ordinary(images: Tensor) -> Tensor:
    """Images with their own upper left 3 x 3 pixels pasted elsewhere: the control."""
    return paste(images, images[:, :, :3, :3], uniform(images, 2, seed=1))


def arms(
    model: nn.Module, images: Tensor, trigger: RoamingPatch, label: int, *, restarts: int, seed: int, **settings: Any
) -> dict[str, list[Trigger]]:
    """Triggers to retrain with, by the arm's name; `restarts` points, and as many distributions of other seeds.

    The first distribution also serves with equal weights, the authors' ensemble.
    """
    side = trigger.patch.shape[-1]
    g = stream(seed, "point", device=images.device)
    points = point_triggers(model, images, label, restarts=restarts, size=side, generator=g)
    mixtures = [_distribution(model, images, label, side, seed + k, **settings) for k in range(restarts)]
    return {
        "control": [ordinary],
        "true trigger": [trigger],
        "point": [RoamingPatch(patch) for patch in points],
        "equal weights": [mixtures[0]._replace(weight=torch.full_like(mixtures[0].weight, 1 / len(LEVELS)))],
        "MESA": [*mixtures],
    }


def further_arms(
    model: nn.Module, images: Tensor, trigger: RoamingPatch, label: int, *, seed: int, **settings: Any
) -> dict[str, list[Trigger]]:
    """The distribution of the same seed as the first of arms(), one level at a time; and one by a defender who does not
    know the patch's size and takes its side for LARGER pixels longer."""
    side = trigger.patch.shape[-1]
    mixture = _distribution(model, images, label, side, seed, **settings)
    alone = torch.eye(len(LEVELS), device=images.device)
    levels: dict[str, list[Trigger]] = {
        f"level {level}": [mixture._replace(weight=alone[i])] for i, level in enumerate(LEVELS)
    }
    return levels | {"size unknown": [_distribution(model, images, label, side + LARGER, seed, **settings)]}


def _distribution(model: nn.Module, images: Tensor, label: int, side: int, seed: int, **settings: Any) -> Patches:
    g = stream(seed, "mesa", device=images.device)
    return trigger_distribution(searched(model), images, label, size=side, generator=g, **settings)[0]


def retrained(
    model: nn.Module,
    source: Material,
    triggers: dict[str, list[Trigger]],
    attack: Trigger,
    label: int,
    *,
    recipe: Recipe,
    share: float,
    seed: int,
) -> dict[str, list[ClassifierFigures]]:
    """Figures of `model` before, and after retraining on source.defender by `recipe` with each trigger of each arm."""
    figures = {"before": [measure_classifier(model, source.test, attack, AllToOne(label))]}
    for arm, several in triggers.items():
        figures[arm] = []
        for trigger in several:
            g = stream(seed, "repair", device=source.defender.device)
            repaired = unlearn(model, source.defender, trigger, recipe, share=share, generator=g)
            figures[arm].append(measure_classifier(repaired, source.test, attack, AllToOne(label)))
    return figures
