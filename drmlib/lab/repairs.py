"""The bench of repairs: every mitigation by name, with the settings that a few hundred rendered samples want.

Where a paper's figures are for thousands of photographs and hours of training, those here are smaller: batches of 32 to
50, fewer iterations, and gentler rates (super-fine-tuning's first peak of 0.5 cost 0.24 of clean accuracy on signs,
hence 0.2). At the gentle rate of repair_recipe backdoors stay (benchmarks/repair.md). "Rate by clean error" lets clean
samples choose: of a few rates the highest whose error on a fifth of them, held out, is tolerable (clean_samples.py);
with it the repair then learns from all. Settings are the same for every attack and task. What a repair may see is in
Suspected: the model, the defender's clean samples and the recipe of repairs, nothing of the attack.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from torch import Generator, nn

from drmlib.attacks.poison import Trigger
from drmlib.data.dataset import Dataset
from drmlib.inversion.drmguard import drmguard
from drmlib.inversion.neural_cleanse import neural_cleanse
from drmlib.lab.victims import searched
from drmlib.mitigation.anp import anp
from drmlib.mitigation.clean_samples import HELD_OUT, hold_out, tolerable
from drmlib.mitigation.clp import clp
from drmlib.mitigation.fine_pruning import fine_pruning
from drmlib.mitigation.fine_tune import fine_tune
from drmlib.mitigation.ft_sam import ft_sam
from drmlib.mitigation.i_bau import i_bau
from drmlib.mitigation.mode_connectivity import mode_connectivity
from drmlib.mitigation.nad import nad
from drmlib.mitigation.neural_polarizer import neural_polarizer
from drmlib.mitigation.rnp import rnp
from drmlib.mitigation.sau import sau
from drmlib.mitigation.super_fine_tuning import super_fine_tuning
from drmlib.mitigation.unlearn import Mixture, unlearn
from drmlib.rng import stream
from drmlib.session import lookup
from drmlib.training.fit import Recipe

DEVIATIONS = tuple(step / 4 for step in range(16, 1, -1))  # CLP's u where clean samples choose it: 4, 3.75, .., 0.5
MULTIPLES = (1, 4, 6, 8, 12, 16)  # of the recipe's rate, where clean samples choose it; 6 is that of the training
FEWER = (1, 4, 8, 16)  # for methods that take long
SHORTER: dict[str, Any] = {"epochs": 60, "first_epochs": 24, "first_peak": 0.2, "batch_size": 50}  # super-fine-tuning
PEAKS = (0.1, 0.15, 0.2, 0.3, 0.5)  # super-fine-tuning's first
POSITIONS = (0.1, 0.2, 0.3, 0.4, 0.5)  # MCR's, on its path
POLARIZER = {"learning_rate": 1e-2, "epochs": 50}  # the authors'
I_BAU_RATES = (5e-4, 1e-3, 2e-3, 3e-3)  # the first is the authors'


class Suspected(NamedTuple):
    """What a defender has: a model, clean labelled samples, the recipe of a repair; and the seed of all draws."""

    model: nn.Module
    clean: Dataset
    recipe: Recipe
    seed: int

    def stream(self, name: str) -> Generator:
        return stream(self.seed, name, device=self.clean.device)


Way = Callable[[Suspected], nn.Module]


class Repaired(NamedTuple):
    """A repaired model and the seconds that it took, a trigger's recovery included."""

    model: nn.Module
    seconds: float


def repair(name: str, suspected: Suspected) -> Repaired:
    """The repair called `name` carried out. Raises ValueError for a name that there is not, or not for this task."""
    way = lookup("repair", name, repairs_for(suspected.clean))
    start = time.perf_counter()
    model = way(suspected)
    return Repaired(model, time.perf_counter() - start)


def repairs_for(dataset: Dataset) -> dict[str, Way]:
    """All repairs by name that can be stated for the task of `dataset`."""
    return EVERY if dataset.task.is_regression else EVERY | CLASSIFIERS


def unlearn_with(suspected: Suspected, trigger: Trigger, *, share: float = 0.5) -> Repaired:
    """Unlearning with a trigger at hand: a recovered one, or the true one, which no defender has."""
    start = time.perf_counter()
    model = _tuned(partial(_with_trigger, trigger=trigger), share=share)(suspected)
    return Repaired(model, time.perf_counter() - start)


def recovered(suspected: Suspected) -> Trigger:
    """The trigger that Neural Cleanse finds in a classifier; in a regressor a mixture of all DRMGuard's families'."""
    model, clean, g = suspected.model, suspected.clean, suspected.stream("inversion")
    if not clean.task.is_regression:
        return neural_cleanse(searched(model), clean.images, len(clean.task.outputs), generator=g).trigger
    found = drmguard(searched(model), clean.images, every_family=True, generator=g)
    return Mixture(tuple(one.trigger for one in found.recovered.values()), found.weights)


def _tuned(
    method: Callable[..., nn.Module], *, times: float = 1.0, recipe: dict[str, Any] | None = None, **settings: Any
) -> Way:
    """The repair by `method` with these settings, these changes to the recipe, and its rate `times` as high."""

    def way(suspected: Suspected) -> nn.Module:
        changed = replace(suspected.recipe, **recipe or {})
        changed = replace(changed, learning_rate=times * changed.learning_rate)
        return method(suspected.model, suspected.clean, changed, **settings, generator=suspected.stream("repair"))

    return way


def _by_clean_error(at: Callable[[float], Way], levels: Sequence[float]) -> Way:
    """The repair at(level), with all samples, of the strongest level that is tolerable where some are held out."""

    def way(suspected: Suspected) -> nn.Module:
        learning, judging = hold_out(suspected.clean, HELD_OUT, generator=suspected.stream("held out"))
        less = suspected._replace(clean=learning)
        tried = tolerable(suspected.model, lambda level: at(level)(less), levels, judging)
        passed = [level for level, _ in tried]
        return at(passed[-1])(suspected) if passed else copy.deepcopy(suspected.model)

    return way


def by_rate(method: Callable[..., nn.Module], multiples: Sequence[float] = MULTIPLES, **settings: Any) -> Way:
    """The repair by `method` at the highest of these multiples of its rate that held-out clean samples tolerate."""
    return _by_clean_error(lambda multiple: _tuned(method, times=multiple, **settings), multiples)


def _with_trigger(
    model: nn.Module, dataset: Dataset, recipe: Recipe, *, trigger: Trigger, share: float, generator: Generator
) -> nn.Module:
    return unlearn(model, dataset, trigger, recipe, share=share, generator=generator)


def _unlearn_recovered(suspected: Suspected) -> nn.Module:
    return unlearn_with(suspected, recovered(suspected)).model


EVERY: dict[str, Way] = {
    "fine-tuning": _tuned(fine_tune),
    "fine-tuning, rate by clean error": by_rate(fine_tune),
    "super-fine-tuning": _tuned(super_fine_tuning, **SHORTER),
    "super-fine-tuning, peak by clean error": _by_clean_error(
        lambda peak: _tuned(super_fine_tuning, **SHORTER | {"first_peak": peak}), PEAKS
    ),
    "FT-SAM": _tuned(ft_sam, rho=0.5),
    "FT-SAM, rate by clean error": by_rate(ft_sam, rho=0.5),
    "fine-pruning": _tuned(fine_pruning),
    "ANP": _tuned(anp, iterations=200),
    "RNP": _tuned(rnp, batch_size=32),
    "CLP": lambda suspected: clp(suspected.model),
    "CLP, u by clean error": _by_clean_error(lambda u: lambda suspected: clp(suspected.model, u=u), DEVIATIONS),
    "NAD": _tuned(nad),
    "NAD, rate by clean error": by_rate(nad),
    "MCR": _tuned(mode_connectivity, positions=POSITIONS),
    "MCR, rate by clean error": by_rate(mode_connectivity, positions=POSITIONS),
    "I-BAU": _tuned(i_bau, searches=5, share=0.1, batch_size=50),
    "I-BAU, rate by clean error": _by_clean_error(
        lambda rate: _tuned(i_bau, learning_rate=rate, rounds=5, share=0.1, batch_size=50), I_BAU_RATES
    ),
    "unlearning": _unlearn_recovered,
}
CLASSIFIERS: dict[str, Way] = {
    "NPD": _tuned(neural_polarizer, recipe=POLARIZER),
    "NPD, rate by clean error": by_rate(neural_polarizer, FEWER, recipe=POLARIZER),
    "SAU": _tuned(sau),
    "SAU, rate by clean error": by_rate(sau, FEWER),
}
