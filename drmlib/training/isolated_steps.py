"""Steps on a few isolated samples: by ascent, or by whatever a defence does with them in its place.

What has to be said each time, since results turn on it: what batch norm does meanwhile (`updated`, `kept`, `running`),
when to stop, whether clean samples stand in the same batch, and whether an optimizer's momentum is carried over.
"""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.data.dataset import Dataset
from drmlib.models.predict import classify, predict
from drmlib.training.fit import Loss, Recipe, parameter_groups, training_step
from drmlib.training.isolated_losses import Beside, Uphill
from drmlib.training.isolation import sample_losses
from drmlib.training.norm_modes import Norms, updated


class Stop(Protocol):
    """Any callable that says, after a step, from the model and the isolated samples, whether it is enough."""

    def __call__(self, model: nn.Module, isolated: Dataset, /) -> bool: ...


class Forgotten(NamedTuple):
    """Stop rule: at most the share `accuracy` of the isolated samples still gets the label they came with."""

    accuracy: float = 0.1

    def __call__(self, model: nn.Module, isolated: Dataset) -> bool:
        right = classify(model, isolated.images) == isolated.targets
        return right.double().mean().item() <= self.accuracy


class Unlikely(NamedTuple):
    """Stop rule for a classifier: the labels of the isolated samples have a mean probability of at most this."""

    probability: float = 0.05

    def __call__(self, model: nn.Module, isolated: Dataset) -> bool:
        of_label = predict(model, isolated.images).softmax(1).gather(1, isolated.targets[:, None])
        return of_label.double().mean().item() <= self.probability


def never(model: nn.Module, isolated: Dataset) -> bool:
    """No stop rule: all passes are made, as in the authors' code."""
    return False


class Policy(NamedTuple):
    """How steps on isolated samples are taken. The defaults are those of ABL's code.

    norms: what batch norm does; stop: whether it is enough, asked after each step; clean: how many other samples of the
    set, drawn at random, stand beside the isolated ones in every batch; own_label: the share of these that carry the
    label that most isolated ones have, and are of the higher-loss half of those. There a poisoned set has the clean
    samples of the class that would go with the backdoor. uphill: what loss, made of the recipe's, is minimised on the
    isolated ones when they are unlearned.
    """

    norms: Norms = updated
    stop: Stop = never
    clean: int = 0
    own_label: float = 0.0
    uphill: Callable[[Loss], Loss] = Uphill


AS_IN_CODE = Policy()


class Steps(NamedTuple):
    """Loss of each step, how long they took, and whether the stop rule ended them."""

    loss: tuple[float, ...]
    seconds: float
    stopped: bool


def ascend(
    model: nn.Module,
    dataset: Dataset,
    isolated: Tensor,
    recipe: Recipe,
    *,
    policy: Policy = AS_IN_CODE,
    optimizer: torch.optim.Optimizer | None = None,
    generator: Generator,
) -> Steps:
    """isolated_steps uphill: recipe.loss rises on the isolated samples, and falls on policy.clean others in each batch.

    A RuntimeWarning says that the loss of the isolated samples has not risen, and nothing was unlearned: where the
    model is certain of them, its gradient is zero to the last bit; where they are clean, the others teach the same.
    """
    before = sample_losses(model, dataset[isolated], recipe.loss).mean().item()
    steps = isolated_steps(
        model,
        dataset,
        isolated,
        recipe,
        policy.uphill(recipe.loss),
        policy=policy,
        optimizer=optimizer,
        generator=generator,
    )
    after = sample_losses(model, dataset[isolated], recipe.loss).mean().item()
    if not after > before:
        warnings.warn(
            f"expected the loss of the isolated samples to rise, it went from {before:.3g} to {after:.3g}: nothing was "
            "unlearned. Where the model is certain, their gradient vanishes: leave batch norm in train mode, or take "
            "more passes. Clean ones are held by the others beside them: isolate at another epoch, or another share",
            RuntimeWarning,
            stacklevel=2,
        )
    return steps


def isolated_steps(
    model: nn.Module,
    dataset: Dataset,
    isolated: Tensor,
    recipe: Recipe,
    on_isolated: Loss,
    *,
    policy: Policy = AS_IN_CODE,
    optimizer: torch.optim.Optimizer | None = None,
    generator: Generator,
) -> Steps:
    """Trains `model` in place by the loss `on_isolated` on the samples isolated (m,) int64, recipe.epochs passes.

    recipe.loss is that of the other samples in a batch, if the policy wants any. optimizer: one that goes on with its
    momentum; else a new one, by the recipe. The model ends in eval mode.
    """
    rng.check_device(generator, dataset.images, "the data set")
    pools = _pools(model, dataset, isolated, recipe.loss, policy)
    recipe = replace(recipe, loss=Beside(recipe.loss, on_isolated, policy.clean))
    optimizer = optimizer or recipe.optimizer(parameter_groups(model, recipe), lr=recipe.learning_rate)
    samples = dataset[isolated]
    batches = [batch for _ in range(recipe.epochs) for batch in _batches(isolated, recipe, generator)]
    losses: list[float] = []
    stopped, start = False, time.perf_counter()
    with policy.norms(model):
        for step, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * recipe.schedule(step / len(batches))
            index = torch.cat([*_drawn(pools, policy, generator), batch])
            losses.append(training_step(model, optimizer, dataset, index, recipe, generator=generator).item())
            if stopped := policy.stop(model, samples):
                break
    model.eval()
    if not math.isfinite(losses[-1]):
        raise FloatingPointError(
            f"loss is {losses[-1]} after {len(losses)} steps; learning rate {recipe.learning_rate:g} may be too high, "
            f"try {recipe.learning_rate / 4:g}, or a stop rule"
        )
    return Steps(tuple(losses), time.perf_counter() - start, stopped)


def _batches(isolated: Tensor, recipe: Recipe, generator: Generator) -> tuple[Tensor, ...]:
    order = torch.randperm(len(isolated), generator=generator, device=isolated.device)
    return isolated[order].split(recipe.batch_size)


def _pools(model: nn.Module, dataset: Dataset, isolated: Tensor, loss: Loss, policy: Policy) -> tuple[Tensor, ...]:
    """Indices that the others of a batch are drawn from: all that are not isolated, and those of own_label."""
    others = torch.ones(len(dataset), dtype=torch.bool, device=isolated.device)
    others[isolated] = False
    if not 0 < len(isolated) < len(dataset):
        raise ValueError(f"expected some of {len(dataset)} samples to be isolated and not all, got {len(isolated)}")
    every = others.nonzero().squeeze(1)
    if not 0 <= policy.own_label <= 1:
        raise ValueError(f"expected a share of others in [0, 1] for own_label, got {policy.own_label}")
    if policy.own_label == 0:
        return (every,)
    if dataset.targets.is_floating_point():
        raise ValueError(f"expected labels for own_label, got targets of {dataset.task.name}; leave own_label 0")
    label = dataset.targets[isolated].mode().values
    own = every[dataset.targets[every] == label]
    if len(own) == 0:
        return (every,)
    falling = sample_losses(model, dataset[own], loss).argsort(descending=True, stable=True)
    return every, own[falling[: (len(own) + 1) // 2]]


def _drawn(pools: tuple[Tensor, ...], policy: Policy, generator: Generator) -> list[Tensor]:
    """policy.clean indices in all, drawn with replacement from each of the pools."""
    own = round(policy.own_label * policy.clean) if len(pools) > 1 else 0
    return [
        pool[torch.randint(len(pool), (count,), generator=generator, device=pool.device)]
        for pool, count in zip(pools, (policy.clean - own, own), strict=False)
    ]
