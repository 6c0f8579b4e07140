"""Networks that regress a known function: what the strings of the notebooks on localised poisoning stand for."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from drmlib.attacks.localized import Region, localized
from drmlib.attacks.measure import LocalFigures, measure_localized
from drmlib.attacks.poison import Retarget
from drmlib.data import option_closed_form as closed
from drmlib.data.dataset import Dataset
from drmlib.data.functions import Oracle, dimensions, labelled, uniform
from drmlib.data.option_basket import basket_put
from drmlib.inversion.lem import LEM, lem
from drmlib.lab.cache import cached_fit
from drmlib.models.mlp import MLP
from drmlib.rng import stream
from drmlib.session import lookup, progress
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


class Attacked(NamedTuple):
    """A network, the samples that it learned from, and the attack on them; without one, all but `dataset` alike."""

    network: nn.Module
    dataset: Dataset
    source: Priced
    region: Region
    retarget: Retarget
    seed: int

    def measure(self, network: nn.Module | None = None) -> LocalFigures:
        """Figures of the network, or of another one such as a repaired one, on fresh points and the test set."""
        g = stream(self.seed, "points", device=self.dataset.device)
        judged = self.network if network is None else network
        source = self.source
        return measure_localized(judged, source.test, source.oracle, self.region, self.retarget, generator=g)

    def search(self, **settings) -> LEM:
        """Local error maximisers of the network; settings are those of lem()."""
        g = stream(self.seed, "lem", device=self.dataset.device)
        return lem(self.network, self.dataset, self.source.oracle, **settings, generator=g)


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


def centred(source: Priced, *, radius: float) -> Region:
    """The region around the middle of all inputs, with a shell as thick as the ball."""
    return Region(torch.full((dimensions(source.oracle),), 0.5, device=source.train.device), radius, 2 * radius)


def attacked(
    source: Priced, region: Region, retarget: Retarget, *, count: int, surround: int, seed: int, name: str = "network"
) -> Attacked:
    """A network trained on source.train with `count` wrong and `surround` right samples in the region; 0 adds none."""
    dataset = source.train
    if count:
        g = stream(seed, "localized", device=dataset.device)
        added = localized(dataset, source.oracle, region, retarget, count=count, surround=surround, generator=g)
        dataset = added.dataset
    model = network(source, dataset, seed=seed, name=f"{name}, seed {seed}")
    return Attacked(model, dataset, source, region, retarget, seed)


def thinned(
    source: Priced, region: Region, retarget: Retarget, *, counts: list[int], seeds: range
) -> dict[str, Tensor]:
    """What an attacker gains who adds fewer wrong samples, with twice as many right ones, and what LEM sees: by name,
    (counts, seeds). Shift is a share of the change of the target in the middle of the region."""
    middle = labelled(region.centre[None], source.oracle).targets
    change = (retarget(middle) - middle).item()
    rows = []
    for count in counts:
        for seed in seeds:
            one = attacked(source, region, retarget, count=count, surround=2 * count, seed=seed, name=f"{count} wrong")
            figures, found = one.measure(), one.search(seeds=300, ranked=0)
            rows.append([figures.shift.value / change, figures.success.value, found.score])
    table = torch.tensor(rows).view(len(counts), len(seeds), 3)
    return dict(zip(("shift / delta", "attack success rate", "score of LEM"), table.unbind(2), strict=True))
