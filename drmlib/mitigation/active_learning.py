"""Active learning of a regressor with an oracle: Li, Kesidis, Miller, Bergeron, Ferguson, Lucic (2021), "Robust and
Active Learning for Deep Neural Network Regression", https://arxiv.org/abs/2107.13124.

Each round adds labelled rows where the network is worst and trains on. Rows are synthesised by the search for local
error maximisers, whatever the training set holds; that search asks the oracle for far more than the labels it leaves,
so a Round counts both. Beside it: uniform rows, and the worst of a random pool, one oracle call a row of the pool.

The papers leave numbers and stopping rule open, and whether to fine-tune or to retrain: here a fixed number of rounds,
each training anew from where the last round ended.
"""

import copy
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from drmlib.data.dataset import Dataset
from drmlib.data.functions import Oracle, dimensions, labelled
from drmlib.inversion.lem import worst_rows
from drmlib.inversion.lem_search import Slope, absolute_error, apart, ascend
from drmlib.training.fit import Recipe, fit


class Query(Protocol):
    """Any callable that chooses `count` rows (count, d) in [0, 1] to be labelled next."""

    def __call__(
        self, model: nn.Module, dataset: Dataset, oracle: Oracle, count: int, /, *, generator: Generator
    ) -> Tensor: ...


class Round(NamedTuple):
    """A network, what it was trained on, and the oracle calls so far: all of them, and those for labels alone."""

    model: nn.Module
    dataset: Dataset
    calls: int
    labels: int


def active_learning(
    model: nn.Module,
    dataset: Dataset,
    oracle: Oracle,
    recipe: Recipe,
    query: Query,
    *,
    rounds: int = 5,
    count: int = 200,
    generator: Generator,
) -> nn.Module:
    """The network after the last of `rounds`: a trained copy of `model`; see learning_rounds."""
    *_, last = learning_rounds(model, dataset, oracle, recipe, query, rounds=rounds, count=count, generator=generator)
    return last.model


def learning_rounds(
    model: nn.Module,
    dataset: Dataset,
    oracle: Oracle,
    recipe: Recipe,
    query: Query,
    *,
    rounds: int = 5,
    count: int = 200,
    generator: Generator,
) -> Iterator[Round]:
    """Yields the trained `model` (round 0), then one Round after each `count` rows that `query` chose.

    model: trained on `dataset`, whose labels count as calls; it is not changed. What the caller asks the oracle between
    rounds does not count. Raises ValueError for rounds or count below 1.
    """
    if rounds < 1 or count < 1:
        raise ValueError(f"expected rounds >= 1 and count >= 1, got {rounds} and {count}")
    calls = len(dataset)
    yield Round(model, dataset, calls, len(dataset))
    for _ in range(rounds):
        before = oracle.calls
        rows = query(model, dataset, oracle, count, generator=generator)
        new = labelled(rows.to(dataset.images.dtype), oracle)
        calls += oracle.calls - before
        dataset = Dataset(
            torch.cat([dataset.images, new.images]), torch.cat([dataset.targets, new.targets]), dataset.task
        )
        model = copy.deepcopy(model)
        fit(model, dataset, recipe, generator=generator)
        yield Round(model, dataset, calls, len(dataset))


def at_random(model: nn.Module, dataset: Dataset, oracle: Oracle, count: int, *, generator: Generator) -> Tensor:
    """Uniform rows: the control."""
    return torch.rand(count, dimensions(oracle), generator=generator, device=dataset.device)


def from_pool(
    model: nn.Module, dataset: Dataset, oracle: Oracle, count: int, *, size: int = 20, generator: Generator
) -> Tensor:
    """The worst |Y - Z| of a uniform pool of `size` times `count` rows, an oracle call each; no search."""
    pool = torch.rand(size * count, dimensions(oracle), generator=generator, device=dataset.device)
    return pool[absolute_error(model, pool, oracle).topk(count).indices]


def by_synthesis(
    model: nn.Module,
    dataset: Dataset,
    oracle: Oracle,
    count: int,
    *,
    steps: int = 60,
    slope: Slope | None = None,
    merge: float = 0.05,
    mixed: float = 0.0,
    generator: Generator,
) -> Tensor:
    """Local error maximisers that climb from the worst training rows, at least `merge` apart; a share `mixed`, and as
    many as the search falls short, are uniform. Raises ValueError for a share outside [0, 1)."""
    if not 0 <= mixed < 1:
        raise ValueError(f"expected mixed in [0, 1), the share of uniform rows, got {mixed}; for 1 use at_random")
    wanted = max(1, round((1 - mixed) * count))
    seeds = min(2 * wanted, len(dataset))
    start = worst_rows(model, dataset, oracle, seeds=seeds, generator=generator)
    climbed = ascend(model, start, oracle, slope=slope, steps=steps, generator=generator)
    found = climbed.rows[apart(climbed.rows, climbed.error, radius=merge)[:wanted]]
    free = at_random(model, dataset, oracle, count - len(found), generator=generator)
    return torch.cat([found.to(free.dtype), free])
