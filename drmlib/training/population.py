"""Trains many copies of one small network at once: their weights are stacked, and one call computes all of them.

A small network does not fill a graphics card: most of a step is spent on starting kernels, not on arithmetic. Here k
networks share each kernel, by torch.func's stack_module_state, functional_call and vmap. Every network sees its own
samples in its own order and ends where `fit` would have taken it alone, up to rounding: optimisers work on the stacked
weights element by element, so that the networks do not touch each other.

Left out: optimisers whose step depends on a norm over all weights, and networks that draw, such as those with dropout
(vmap raises a RuntimeError for them). Batches are not in channels-last layout, which vmap does not keep.
"""

import math
import time
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from drmlib import rng
from drmlib.data.dataset import Dataset, as_float
from drmlib.training.fit import History, Progress, Recipe

State = dict[str, Tensor]


def fit_population(
    models: Sequence[nn.Module],
    datasets: Sequence[Dataset],
    recipe: Recipe,
    *,
    generator: Generator,
    progress: Progress = iter,
) -> tuple[History, ...]:
    """Trains every one of `models` in place on its own of the `datasets` and returns a History for each.

    The models are copies of one architecture with weights of their own; the data sets have the same length and stand
    on one device. Pass one data set k times to train k models on it: it is then kept once. Model j is trained as
    `fit(models[j], datasets[j], recipe, generator=...)` does with the j-th call of `rng.spawn(generator)`. Each History
    carries the seconds of the whole population. Raises FloatingPointError if a model's loss is not finite.
    """
    data = _Together(models, datasets, generator)
    population = _Population(models, recipe, data.pool.device)
    steps = max(1, data.size // recipe.batch_size)
    losses: list[list[float]] = []
    rates: list[float] = []
    start = time.perf_counter()
    for epoch in progress(range(recipe.epochs)):
        total = torch.zeros(len(models), device=data.pool.device)
        for step, index in enumerate(data.order()[:, : steps * recipe.batch_size].split(recipe.batch_size, dim=1)):
            rates[epoch:] = [recipe.learning_rate * recipe.schedule((epoch * steps + step) / (recipe.epochs * steps))]
            total += population.step(*data.batch(index, recipe), rates[-1])
        losses.append((total / steps).tolist())
        _check_finite(losses, recipe)
    population.hand_back()
    seconds = time.perf_counter() - start
    return tuple(History(loss, tuple(rates), seconds) for loss in zip(*losses, strict=True))


class _Together:
    """The samples of all models in one pool, and a stream of random numbers for every model."""

    def __init__(self, models: Sequence[nn.Module], datasets: Sequence[Dataset], generator: Generator) -> None:
        if not models or len(models) != len(datasets):
            raise ValueError(f"expected a data set for each model, got {len(models)} and {len(datasets)}")
        lengths = sorted({len(dataset) for dataset in datasets})
        if len(lengths) > 1:
            raise ValueError(f"expected data sets of one length, got {lengths}: cut them with dataset[:{lengths[0]}]")
        rng.check_device(generator, datasets[0].images, "the data sets")
        self.size = lengths[0]
        shared = all(dataset is datasets[0] for dataset in datasets)
        images, targets = ([getattr(one, name) for one in datasets] for name in ("images", "targets"))
        self.pool = datasets[0] if shared else Dataset(torch.cat(images), torch.cat(targets), datasets[0].task)
        self.first = [0 if shared else j * self.size for j in range(len(models))]
        self.generators = [rng.spawn(generator) for _ in models]

    def order(self) -> Tensor:
        """The order (k, n) in which an epoch goes through the pool, a row for each model."""
        device = self.pool.device
        rows = [torch.randperm(self.size, generator=g, device=device) for g in self.generators]
        return torch.stack([row + first for row, first in zip(rows, self.first, strict=True)])

    def batch(self, index: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """Images (k, b, c, h, w) and targets at `index` (k, b), each model's augmented and mixed by its own stream."""
        images, targets = as_float(self.pool.images[index]), self.pool.targets[index]
        if recipe.augment is not None:
            pairs = zip(images, self.generators, strict=True)
            images = torch.stack([recipe.augment(batch, generator=g) for batch, g in pairs])
        if recipe.mix is not None:
            triples = zip(images, targets, self.generators, strict=True)
            mixed = [recipe.mix(batch, wanted, generator=g) for batch, wanted, g in triples]
            images, targets = (torch.stack(parts) for parts in zip(*mixed, strict=True))
        return images, targets


class _Population:
    """The stacked weights and buffers of all models, and one optimiser of them all."""

    def __init__(self, models: Sequence[nn.Module], recipe: Recipe, device: torch.device) -> None:
        for model in models:
            model.to(device).train()
            for module in model.modules() if recipe.frozen_norms else ():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        self.models, self.recipe = models, recipe
        self.weights, self.buffers = stack_module_state(list(models))
        self.layers = models[0]  # how one is computed; functional_call lends it the stacked numbers
        self.optimizer = recipe.optimizer(self._groups(), lr=recipe.learning_rate)

    def step(self, images: Tensor, targets: Tensor, rate: float) -> Tensor:
        """Losses (k,), detached, of one step of all models on images (k, b, c, h, w) and their targets."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        autocast = self.recipe.autocast
        with torch.autocast(images.device.type, dtype=autocast, enabled=autocast is not None):
            losses = vmap(self._loss, randomness="error")(self.weights, self.buffers, images, targets)
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        self.optimizer.step()
        return losses.detach()

    def hand_back(self) -> None:
        """Copies weights and statistics into the models, which end in eval mode."""
        with torch.no_grad():
            for j, model in enumerate(self.models):
                for stacked, own in ((self.weights, model.named_parameters()), (self.buffers, model.named_buffers())):
                    for name, tensor in own:
                        tensor.copy_(stacked[name][j])
                model.eval()

    def _loss(self, weights: State, buffers: State, images: Tensor, targets: Tensor) -> Tensor:
        return self.recipe.loss(functional_call(self.layers, (weights, buffers), (images,)), targets)

    def _groups(self) -> list[dict]:
        """As parameter_groups of fit.py: no decay on biases and norms, which have one dimension more when stacked."""
        trainable = [weight for weight in self.weights.values() if weight.requires_grad]
        return [
            {"params": [w for w in trainable if w.ndim > 2], "weight_decay": self.recipe.weight_decay},
            {"params": [w for w in trainable if w.ndim <= 2], "weight_decay": 0.0},
        ]


def _check_finite(losses: list[list[float]], recipe: Recipe) -> None:
    bad = [j for j, loss in enumerate(losses[-1]) if not math.isfinite(loss)]
    if bad:
        raise FloatingPointError(
            f"loss of model {bad[0]} is {losses[-1][bad[0]]} in epoch {len(losses)}; learning rate "
            f"{recipe.learning_rate:g} may be too high, try {recipe.learning_rate / 4:g}"
        )
