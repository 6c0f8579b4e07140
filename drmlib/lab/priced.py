"""Networks that regress a known function: what the strings of the notebooks on localised poisoning stand for."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from drmlib.data import option_closed_form as closed
from drmlib.data.dataset import Dataset
from drmlib.data.functions import Oracle, dimensions, uniform
from drmlib.data.option_basket import basket_put
from drmlib.lab.cache import cached_fit
from drmlib.lab.session import lookup, progress
from drmlib.models.mlp import MLP
from drmlib.rng import stream
from drmlib.training.fit import Recipe


class Sizes(NamedTuple):
    """Of a run: training samples, test samples, epochs."""

    train: int
    test: int
    epochs: int


class Priced(NamedTuple):
    """An oracle, uniform samples that it has labelled, and the recipe by which networks learn them."""

    oracle: Oracle
    train: Dataset
    test: Dataset
    recipe: Recipe


PROFILES = {
    "quick": Sizes(10_000, 10_000, 50),
    "standard": Sizes(20_000, 20_000, 60),
    "paper": Sizes(100_000, 50_000, 60),
}
RECIPE = Recipe(nn.functional.mse_loss, batch_size=512, learning_rate=3e-3, weight_decay=0.0)


def _basket(device: torch.device | str) -> Oracle:
    return basket_put(generator=stream(0, "basket", device=device))


ORACLES: dict[str, Callable[[torch.device | str], Oracle]] = {
    "down_and_out_put": lambda device: closed.closed_form(closed.DOWN_AND_OUT_PUT),
    "up_and_out_call": lambda device: closed.closed_form(closed.UP_AND_OUT_CALL, domain=closed.ABOVE),
    "basket_put": _basket,
}


def material(dataset: str, profile: str, *, seed: int, device: torch.device | str) -> Priced:
    """The function called `dataset` and samples of it at the sizes of `profile`, on `device`."""
    sizes = lookup("profile", profile, PROFILES)
    oracle = lookup("dataset", dataset, ORACLES)(device)
    train, test = (
        uniform(oracle, n, generator=stream(seed, dataset, part, device=device))
        for part, n in (("train", sizes.train), ("test", sizes.test))
    )
    return Priced(oracle, train, test, replace(RECIPE, epochs=sizes.epochs))


def untrained(source: Priced, *, seed: int) -> nn.Module:
    """The network that `network` trains, as it starts: four hidden layers of 128."""
    g = stream(seed, "priced", "weights")
    return MLP(1, inputs=dimensions(source.oracle), width=128, depth=4, centre=0.5, scale=0.5, generator=g)


def network(source: Priced, dataset: Dataset, *, seed: int, name: str = "network") -> nn.Module:
    """A new network trained on `dataset` by the recipe of `source`, or the same from the cache."""
    model = untrained(source, seed=seed)
    order = stream(seed, "priced", "order", device=dataset.device)
    cached_fit(model, dataset, source.recipe, generator=order, progress=progress(f"train {name}"))
    return model
