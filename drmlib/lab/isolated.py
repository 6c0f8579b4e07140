"""What notebook 13 and benchmarks/abl.py do with Anti-Backdoor Learning beyond calling it: they watch what is learned
first, and go on from the same isolated samples in one way or another.

Precision is for the evaluator, who knows the poison; no defence sees it.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from drmlib import metrics
from drmlib.data.dataset import Dataset
from drmlib.lab.staging import Staged
from drmlib.lab.victims import Material, untrained
from drmlib.metrics import Estimate
from drmlib.rng import stream
from drmlib.session import lookup, progress
from drmlib.training import abl_alternatives as alternatives
from drmlib.training.abl import SMALL_POLICY, small_recipes
from drmlib.training.fit import Loss, fit
from drmlib.training.isolated_losses import Uphill
from drmlib.training.isolated_steps import AS_IN_CODE, Steps, isolated_steps, never
from drmlib.training.isolation import Ascent, LocalAscent, fit_by_ascent, isolate, lowest, sample_losses, without


class Tuned(NamedTuple):
    """A model fine-tuned on all but the samples isolated (m,), which are still to be unlearned."""

    model: nn.Module
    isolated: Tensor


def watched(
    source: Material, dataset: Dataset, *, epochs: int, seed: int, name: str, ascent: Ascent = LocalAscent
) -> Tensor:
    """Loss (epochs, n) of every sample of the poisoned `dataset` after each epoch of ABL's isolation, small recipes.

    The first epochs are those of `tuned`, bit for bit; `name` labels the bar.
    """
    model, recipe = untrained(source, seed=seed), replace(small_recipes(source.recipe).isolation, epochs=epochs)
    losses: list[Tensor] = []

    def each(numbers: Iterable[int]) -> Iterator[int]:
        for number in progress(name)(numbers):
            yield number
            losses.append(sample_losses(model, dataset, recipe.loss))

    generator = stream(seed, "abl", device=dataset.device)
    fit_by_ascent(model, dataset, recipe, ascent=ascent, generator=generator, progress=each)
    return torch.stack(losses)


def precision(staged: Staged, losses: Tensor, share: float) -> Estimate:
    """Share of poison among the `share` of samples with the lowest losses (n,), with its interval."""
    return metrics.rate(staged.poisoned.poison[lowest(losses, share)])


def tuned(
    source: Material, dataset: Dataset, *, share: float = 0.01, smooth: bool = True, one_target: bool = True, seed: int
) -> Tuned:
    """ABL by its small recipes up to the ascent. smooth: False fine-tunes on labels as they are."""
    recipes, g = small_recipes(source.recipe), stream(seed, "abl", device=dataset.device)
    model, bar = untrained(source, seed=seed), progress("isolate")
    found = isolate(model, dataset, recipes.isolation, share=share, one_target=one_target, generator=g, progress=bar)
    recipe = recipes.fine_tuning or source.recipe
    recipe = recipe if smooth else replace(recipe, loss=source.recipe.loss)
    fit(model, without(dataset, found.isolated), recipe, generator=g, progress=progress("fine-tune"))
    return Tuned(model, found.isolated)


def unlearned(source: Material, dataset: Dataset, start: Tuned, way: str, *, seed: int) -> nn.Module:
    """A copy of start.model after steps on the isolated samples in the `way`, one of `ways`."""
    model, recipe = copy.deepcopy(start.model), small_recipes(source.recipe).unlearning
    steps = lookup("way", way, ways(source.recipe.loss))
    steps(model, dataset, start.isolated, recipe, generator=stream(seed, "unlearning", device=dataset.device))
    return model


def trained_without(source: Material, dataset: Dataset, isolated: Tensor, *, seed: int) -> nn.Module:
    """A new model trained on all but the isolated samples, as the victim is on all."""
    model, order = untrained(source, seed=seed), stream(seed, "victim", "order", device=dataset.device)
    bar = progress("train without the isolated")
    alternatives.retrain_without(model, dataset, isolated, source.recipe, generator=order, progress=bar)
    return model


def ways(loss: Loss) -> dict[str, Callable[..., Steps]]:
    """What to do with isolated samples: ascent, beside others and alone, and what the paper holds against it.

    Ascent always has the stop rule: without, it goes on to a loss that is not finite. The alternatives, bounded below,
    go on for all passes: the rule would stop some of them at once, and others never.
    """
    ascent, to_the_end = partial(isolated_steps, on_isolated=Uphill(loss)), SMALL_POLICY._replace(stop=never)
    return {
        "ABL": partial(ascent, policy=SMALL_POLICY),
        "the code's ascent, stopped": partial(ascent, policy=AS_IN_CODE._replace(stop=SMALL_POLICY.stop)),
        "label shuffling": partial(alternatives.shuffle_labels, policy=to_the_end),
        "self-learning": partial(alternatives.self_learn, policy=to_the_end),
        "label uniform": partial(alternatives.uniform_labels, policy=to_the_end),
        "label smoothing": partial(alternatives.smooth_labels, policy=to_the_end),
        "pixel noise": partial(alternatives.pixel_noise, policy=to_the_end),
    }
