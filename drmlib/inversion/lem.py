"""Local error maximisers (LEM): Li, Kesidis, Miller, Lucic (2021), "Backdoor Attack and Defense for Deep Regression",
https://arxiv.org/abs/2109.02381; the search is that of Li et al. (2021), https://arxiv.org/abs/2107.13124.

A regressor of a known function errs where it had few samples: extrapolation. A large error among many training samples
is another matter: the samples are wrong. A maximiser x of |Y - Z| is suspicious where both hold:

    |Y(x) - Z(x)| > error bound     and     proximity(x) > proximity bound

The abstracts leave all numbers open. Here: the error bound is five times the root mean square error on fresh uniform
points, labelled by the oracle; near are the samples within 0.1 (proximity.py has others), and the bound is the 99.9th
percentile of that at uniform points among as many uniform samples, at least 10. It is not taken among the training
samples, for in few inputs a poisoned region is a good part of the domain and would raise its own bound; where training
samples are not uniform by design, give the bound. Seeds come from the training samples, for uniform ones would hardly
ever hit a small region: those of the largest |Y - Z|, after Levy flights if wanted.

The defence asks the oracle. Where it can be asked about every training sample, comparing their targets with it finds
wrong ones with no search at all: `calls` says what was spent, `ranked` and Spsa spend less.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.data.dataset import Dataset
from drmlib.data.functions import Oracle
from drmlib.inversion.lem_search import Climbed, Slope, absolute_error, apart, ascend, cuckoo
from drmlib.inversion.proximity import Proximity, Within

ERROR_FACTOR, PROXIMITY_QUANTILE = 5.0, 0.999
UNIFORM_POINTS = 1000  # labelled, for the error bound
UNLABELLED_POINTS = 10_000  # for the proximity bound: no oracle call
SMALLEST_BOUND = 1e-6  # of the error: what a network in float32 rounds


class LEM(NamedTuple):
    """The maximisers, by falling error, and what was found of each.

    trigger (t, d): the suspicious maximisers, centres of poisoned regions. score: the largest over maximisers of
    min(error / error_bound, proximity / proximity_bound): above 1 the model is backdoored. rows (m, d), error (m,),
    proximity (m,), flagged (m,) bool; calls: oracle calls; climbed: the way of every seed, before pruning.
    """

    trigger: Tensor
    score: float
    rows: Tensor
    error: Tensor
    proximity: Tensor
    flagged: Tensor
    error_bound: float
    proximity_bound: float
    calls: int
    climbed: Climbed

    @property
    def alarms(self) -> dict[str, int]:
        """Number of maximisers, how many each half of the test would flag by itself, and how many both do."""
        error, crowd = self.error > self.error_bound, self.proximity > self.proximity_bound
        rules = {
            "maximisers": torch.ones_like(error),
            "error alone": error,
            "proximity alone": crowd,
            "both": error & crowd,
        }
        return {name: int(rule.sum()) for name, rule in rules.items()}


def lem(
    model: nn.Module,
    dataset: Dataset,
    oracle: Oracle,
    *,
    seeds: int = 100,
    ranked: float = 1.0,
    flights: int = 0,
    steps: int = 60,
    slope: Slope | None = None,
    proximity: Proximity | None = None,
    merge: float = 0.05,
    error_bound: float | None = None,
    proximity_bound: float | None = None,
    generator: Generator,
) -> LEM:
    """Local error maximisers of `model`, whose training rows (n, d) in [0, 1] are those of `dataset`; see LEM.

    seeds: how many climb. ranked: share of the training rows that the oracle is asked about to find the worst; 0 takes
    random ones. flights: Levy flights of the seeds before they climb. Maximisers within `merge` of a larger one are
    left out. The data set's targets are not used. Raises ValueError for more seeds than ranked rows.
    """
    rng.check_device(generator, dataset.images, "the data set")
    before, near = oracle.calls, proximity or Within()
    start = worst_rows(model, dataset, oracle, seeds=seeds, ranked=ranked, generator=generator)
    if flights:
        start = cuckoo(model, start, oracle, flights=flights, generator=generator)
    climbed = ascend(model, start, oracle, slope=slope, steps=steps, generator=generator)
    kept = apart(climbed.rows, climbed.error, radius=merge)
    rows, error = climbed.rows[kept], climbed.error[kept]
    if error_bound is None:
        error_bound = max(SMALLEST_BOUND, ERROR_FACTOR * _uniform_error(model, dataset, oracle, generator))
    if proximity_bound is None:
        proximity_bound = max(near.floor, _by_chance(near, dataset, generator))
    crowd = near(rows, dataset.images)
    flagged = (error > error_bound) & (crowd > proximity_bound)
    score = torch.minimum(error / error_bound, crowd / proximity_bound).max().item()
    return LEM(
        rows[flagged],
        score,
        rows,
        error,
        crowd,
        flagged,
        error_bound,
        proximity_bound,
        oracle.calls - before,
        climbed,
    )


def worst_rows(
    model: nn.Module, dataset: Dataset, oracle: Oracle, *, seeds: int, ranked: float = 1.0, generator: Generator
) -> Tensor:
    """The `seeds` training rows (seeds, d) of the largest |Y - Z| among a random share `ranked`; for 0 random ones."""
    if not 0 <= ranked <= 1:
        raise ValueError(f"expected ranked in [0, 1], a share of the training rows, got {ranked}")
    candidates = round(ranked * len(dataset)) if ranked else seeds
    if not 1 <= seeds <= candidates <= len(dataset):
        raise ValueError(
            f"expected 1 to {min(candidates, len(dataset))} seeds, as many as rows are ranked of {len(dataset)}, "
            f"got {seeds}; lower seeds or raise ranked"
        )
    order = torch.randperm(len(dataset), generator=generator, device=dataset.device)[:candidates]
    rows = dataset.images[order]
    return rows[absolute_error(model, rows, oracle).topk(seeds).indices] if ranked else rows


def _by_chance(near: Proximity, dataset: Dataset, generator: Generator) -> float:
    """What one uniform point in a thousand has near it among as many uniform rows as the data set has."""
    rows = dataset.images
    points, uniform = (
        torch.rand(n, rows.shape[1], generator=generator, device=rows.device) for n in (UNLABELLED_POINTS, len(rows))
    )
    return near(points, uniform).quantile(PROXIMITY_QUANTILE).item()


def _uniform_error(model: nn.Module, dataset: Dataset, oracle: Oracle, generator: Generator) -> float:
    rows = torch.rand(UNIFORM_POINTS, dataset.images.shape[1], generator=generator, device=dataset.device)
    return absolute_error(model, rows, oracle).square().mean().sqrt().item()
