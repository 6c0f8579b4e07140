"""The plain training loop: data on the device, whole-batch augmentation, AdamW, a schedule, and a finite check.

One recipe for classifiers and one for regressors; an attack changes the data, a defence the model, neither this loop.
The one-cycle schedule is that of Smith and Topin (2018) with cosine flanks; AdamW of Loshchilov and Hutter (2019).
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.data.dataset import Dataset, as_float

Progress = Callable[[Iterable[int]], Iterable[int]]


class Loss(Protocol):
    """Any callable from outputs and targets of a batch to their mean loss."""

    def __call__(self, outputs: Tensor, targets: Tensor, /) -> Tensor: ...


class Augment(Protocol):
    """Any callable from a batch of float images and a generator to images of the same shape."""

    def __call__(self, images: Tensor, /, *, generator: Generator) -> Tensor: ...


class Mix(Protocol):
    """Any callable from a batch of float images and their targets to mixed ones, which the loss takes."""

    def __call__(self, images: Tensor, targets: Tensor, /, *, generator: Generator) -> tuple[Tensor, Tensor]: ...


class Schedule(Protocol):
    """Any callable from the share of steps done, in [0, 1), to the share of the peak learning rate."""

    def __call__(self, progress: float, /) -> float: ...


class History(NamedTuple):
    """Mean loss and last learning rate of each epoch, and the seconds of the whole training."""

    loss: tuple[float, ...]
    learning_rate: tuple[float, ...]
    seconds: float


def one_cycle(progress: float) -> float:
    """Share of the peak learning rate: cosine up from 1/25 over the first 30 % of the steps, cosine down to 1e-4."""
    start, end, warm_up = 1 / 25, 1e-4, 0.3
    if progress < warm_up:
        return start + (1 - start) * (1 - math.cos(math.pi * progress / warm_up)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))) / 2


class MultiStep(NamedTuple):
    """Share of the peak learning rate: times `gamma` at each milestone, given as a share of all steps."""

    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1

    def __call__(self, progress: float) -> float:
        return self.gamma ** sum(progress >= milestone for milestone in self.milestones)


ADAMW = partial(torch.optim.AdamW, fused=True)
NESTEROV = partial(torch.optim.SGD, momentum=0.9, nesterov=True)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    loss: (outputs, targets) -> scalar; augment: (images, generator=) -> images or None; schedule: share of steps done
    -> share of `learning_rate`; autocast: a dtype for mixed precision (torch.bfloat16) or None. Weight decay applies
    to matrices and kernels, not to biases and norms. frozen_norms: batch norm keeps its statistics, as fine-tuning on
    few samples wants it. mix: (images, targets, generator=) -> both, after augment, where targets change with images.
    optimizer: (groups of parameters, lr=) -> a torch optimizer.
    """

    loss: Loss
    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    schedule: Schedule = one_cycle
    augment: Augment | None = None
    autocast: torch.dtype | None = None
    frozen_norms: bool = False
    mix: Mix | None = None
    optimizer: Callable[..., torch.optim.Optimizer] = ADAMW

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected {name} above 0, got {getattr(self, name)}")


REGRESSION = Recipe(nn.functional.l1_loss)
CLASSIFICATION = Recipe(nn.functional.cross_entropy)


def fit(
    model: nn.Module, dataset: Dataset, recipe: Recipe, *, generator: Generator, progress: Progress = iter
) -> History:
    """Trains `model` in place on `dataset` and returns its History; the model ends in eval mode.

    generator orders and augments the samples, on the data set's device. progress wraps the iterable of epochs
    (tqdm fits). Raises FloatingPointError as soon as an epoch's loss is not finite.
    """
    rng.check_device(generator, dataset.images, "the data set")
    model.to(device=dataset.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if recipe.frozen_norms:
        _freeze_norms(model)
    steps = max(1, len(dataset) // recipe.batch_size)
    optimizer = recipe.optimizer(parameter_groups(model, recipe), lr=recipe.learning_rate)
    losses: list[float] = []
    rates: list[float] = []
    start = time.perf_counter()
    for epoch in progress(range(recipe.epochs)):
        total = torch.zeros((), device=dataset.device)
        order = torch.randperm(len(dataset), generator=generator, device=dataset.device)
        for step, index in enumerate(order[: steps * recipe.batch_size].split(recipe.batch_size)):
            rate = recipe.learning_rate * recipe.schedule((epoch * steps + step) / (recipe.epochs * steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            total += training_step(model, optimizer, dataset, index, recipe, generator=generator)
        losses.append((total / steps).item())
        rates.append(rate)
        _check_finite(losses, recipe)
    model.eval()
    return History(tuple(losses), tuple(rates), time.perf_counter() - start)


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    index: Tensor,
    recipe: Recipe,
    *,
    generator: Generator,
) -> Tensor:
    """Loss (scalar, detached) of the samples at `index` (b,), after one optimizer step on them."""
    images, targets = as_float(dataset.images[index]), dataset.targets[index]
    if recipe.augment is not None:
        images = recipe.augment(images, generator=generator)
    if recipe.mix is not None:
        images, targets = recipe.mix(images, targets, generator=generator)
    if images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, dtype=recipe.autocast, enabled=recipe.autocast is not None):
        outputs = model(images)
        loss = recipe.loss(outputs if recipe.autocast is None else outputs.float(), targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


def adamw(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW on the trainable parameters of `model`, as `recipe` says; no decay on biases and norms."""
    return ADAMW(parameter_groups(model, recipe), lr=recipe.learning_rate)


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The trainable parameters of `model` in two groups: with the weight decay of `recipe`, and without."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _freeze_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _check_finite(losses: list[float], recipe: Recipe) -> None:
    if not math.isfinite(losses[-1]):
        raise FloatingPointError(
            f"loss is {losses[-1]} in epoch {len(losses)}; learning rate {recipe.learning_rate:g} may be too high, "
            f"try {recipe.learning_rate / 4:g}"
        )
