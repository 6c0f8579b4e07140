"""Training on a device: batch sizes and precisions, populations of small models, and a victim of the paper profile."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from benchmarks.accelerator.measure import Measure
from benchmarks.accelerator.sizes import Sizes, random_images
from drmlib.data.dataset import Dataset
from drmlib.data.signs import signs
from drmlib.lab import victims
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import spawn, stream
from drmlib.training.fit import CLASSIFICATION, Recipe, fit, parameter_groups, training_step
from drmlib.training.population import fit_population

PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}
Function = Callable[[], object]


def trainings(sizes: Sizes, device: torch.device) -> list[Measure]:
    """SmallCNN and ResNet-18 on 32 x 32 images, at every batch size, in float32 and in mixed precision."""
    networks = {"SmallCNN": partial(SmallCNN, width=sizes.width), "ResNet-18": partial(resnet18, width=sizes.large)}
    return [
        Measure(
            f"training {name}, batch of {batch}",
            partial(_on_noise, network, replace(CLASSIFICATION, batch_size=batch, autocast=dtype), sizes.steps, device),
            sizes.steps * batch,
            precision=precision,
        )
        for name, network in networks.items()
        for batch in sizes.batches
        for precision, dtype in PRECISIONS.items()
    ]


def populations(sizes: Sizes, device: torch.device) -> list[Measure]:
    """k SmallCNNs of the quick profile trained side by side, and one after another."""
    batch = min(sizes.batches)
    ways = {"side by side": _side_by_side, "one after another": _in_turn}
    return [
        Measure(
            f"{count} SmallCNNs {name}, batches of {batch}",
            partial(way, count, replace(CLASSIFICATION, batch_size=batch, epochs=1, autocast=dtype), sizes, device),
            count * sizes.steps * batch,
            precision=precision,
        )
        for count in sizes.populations
        for precision, dtype in PRECISIONS.items()
        for name, way in ways.items()
    ]


def victim(sizes: Sizes, device: torch.device) -> list[Measure]:
    """Some steps of the paper profile's ResNet-18: on CIFAR-10 if DRMLIB_DATA is set, else on rendered signs."""
    name = "cifar10" if os.environ.get("DRMLIB_DATA") else f"rendered signs of side {sizes.side}"
    batch = CLASSIFICATION.batch_size if sizes.victim > 1 else 4
    return [
        Measure(
            f"victim of the paper profile, {name}, batch of {batch}",
            partial(_victim, sizes, batch, dtype, device),
            sizes.victim * batch,
            precision=precision,
        )
        for precision, dtype in PRECISIONS.items()
    ]


def _on_noise(network: Callable[..., nn.Module], recipe: Recipe, steps: int, device: torch.device) -> Function:
    return _some_steps(network, random_images(4 * recipe.batch_size, device), recipe, steps)


def _some_steps(network: Callable[..., nn.Module], data: Dataset, recipe: Recipe, steps: int) -> Function:
    """`steps` training steps of a network in the layout of fit, on batches drawn anew."""
    model = network(len(data.task.outputs), generator=stream(0, "weights")).to(data.device).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = recipe.optimizer(parameter_groups(model, recipe), lr=recipe.learning_rate)
    g = stream(0, "order", device=data.device)

    def train() -> None:
        for _ in range(steps):
            index = torch.randint(len(data), (recipe.batch_size,), generator=g, device=data.device)
            training_step(model, optimizer, data, index, recipe, generator=g)

    return train


def _models(count: int, sizes: Sizes, device: torch.device) -> list[nn.Module]:
    return [SmallCNN(10, width=sizes.width, generator=stream(k, "weights")).to(device) for k in range(count)]


def _side_by_side(count: int, recipe: Recipe, sizes: Sizes, device: torch.device) -> Function:
    data, models = random_images(sizes.steps * recipe.batch_size, device), _models(count, sizes, device)
    return lambda: fit_population(models, [data] * count, recipe, generator=stream(0, "order", device=device))


def _in_turn(count: int, recipe: Recipe, sizes: Sizes, device: torch.device) -> Function:
    data, models = random_images(sizes.steps * recipe.batch_size, device), _models(count, sizes, device)

    def train() -> None:
        g = stream(0, "order", device=device)
        for model in models:
            fit(model, data, recipe, generator=spawn(g))

    return train


def _victim(sizes: Sizes, batch: int, dtype: torch.dtype | None, device: torch.device) -> Function:
    recipe, network = replace(CLASSIFICATION, batch_size=batch, autocast=dtype), partial(resnet18, width=sizes.large)
    if os.environ.get("DRMLIB_DATA"):
        source = victims.material("cifar10", "paper", seed=0, device=device)
        return _some_steps(network, source.train, replace(recipe, augment=source.recipe.augment), sizes.victim)
    # As many images as a few batches need: drawing the profile's 45,000 would take longer than the whole budget.
    data = signs(4 * batch, size=sizes.side, generator=stream(0, "signs", device=device))
    return _some_steps(network, data, recipe, sizes.victim)
