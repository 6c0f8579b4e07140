"""Which samples: the first of an attack's three answers, and where toolkits differ most.

Any sample may be chosen unless `eligible` says otherwise (so do ABL, BackdoorBench and BackdoorBox for all-to-one).
Toolkits call two different fractions the poison rate, so here they have two names: `rate` is of the whole set,
`rate_of_eligible` of the eligible samples alone. A clean-label attack may touch the target class only: 5 % of all of
ten equal classes (BackdoorBench's way) is half of that class; ABL draws p of all and keeps those of the class, which
is rate_of_eligible=p.
"""

import torch
from torch import Generator, Tensor

from drmlib.data.dataset import Dataset


def choose(
    dataset: Dataset,
    *,
    rate: float | None,
    rate_of_eligible: float | None,
    eligible: Tensor | None,
    ranking: Tensor | None,
    generator: Generator,
) -> Tensor:
    """Indices (m,), rising, of the samples to poison: m is `rate` of the set or `rate_of_eligible` of the eligible.

    eligible (n,) bool, all by default. ranking (n,): those of the lowest numbers are chosen; without it they are
    drawn at random. Raises ValueError for a rate outside (0, 1], for both or none, or more than are eligible.
    """
    if (rate is None) == (rate_of_eligible is None):
        raise ValueError("expected one of rate (of the whole set) and rate_of_eligible, got both or none")
    pool = _pool(dataset, eligible, "eligible")
    part, of = (rate, len(dataset)) if rate is not None else (rate_of_eligible, len(pool))
    assert part is not None
    if not 0 < part <= 1:
        whole = "the whole set" if rate is not None else "the eligible samples"
        raise ValueError(f"expected a poison rate in (0, 1], got {part}; it is a fraction of {whole}")
    m = round(part * of)
    if m == 0:
        raise ValueError(f"a poison rate of {part} selects none of {of} samples; raise it to {1 / max(of, 1):.2g}")
    if m > len(pool):
        raise ValueError(
            f"{m} poison samples were asked for, only {len(pool)} of {len(dataset)} are eligible; "
            "lower the rate, or give rate_of_eligible"
        )
    if ranking is not None and ranking.shape != (len(dataset),):
        raise ValueError(f"expected a ranking ({len(dataset)},), got {tuple(ranking.shape)}")
    return _drawn(pool, m, generator) if ranking is None else pool[ranking[pool].argsort(stable=True)[:m]].sort().values


def choose_covers(
    dataset: Dataset, poisoned: Tensor, *, cover_rate: float, cover_eligible: Tensor | None, generator: Generator
) -> Tensor:
    """Indices, rising, of a random `cover_rate` of the whole set among `cover_eligible`, none of them poisoned."""
    if not 0 <= cover_rate < 1:
        raise ValueError(f"expected a cover rate in [0, 1), got {cover_rate}; it is a fraction of the whole set")
    free = torch.ones(len(dataset), dtype=torch.bool, device=dataset.device)
    free[poisoned] = False
    if cover_eligible is not None:
        free &= _checked(dataset, cover_eligible, "cover_eligible")
    pool = free.nonzero().squeeze(1)
    m = round(cover_rate * len(dataset))
    if m > len(pool):
        raise ValueError(
            f"{m} cover samples were asked for, only {len(pool)} of {len(dataset)} are eligible and not poisoned"
        )
    return _drawn(pool, m, generator)


def _pool(dataset: Dataset, eligible: Tensor | None, name: str) -> Tensor:
    if eligible is None:
        return torch.arange(len(dataset), device=dataset.device)
    return _checked(dataset, eligible, name).nonzero().squeeze(1)


def _checked(dataset: Dataset, eligible: Tensor, name: str) -> Tensor:
    if eligible.dtype != torch.bool or eligible.shape != (len(dataset),):
        raise ValueError(f"expected {name} as bool ({len(dataset)},), got {eligible.dtype} {tuple(eligible.shape)}")
    return eligible


def _drawn(pool: Tensor, m: int, generator: Generator) -> Tensor:
    """m random ones of `pool`, in its order. The generator moves on as far for m = 0 as for any other number."""
    drawn = torch.zeros(len(pool), dtype=torch.bool, device=pool.device)
    drawn[torch.randperm(len(pool), generator=generator, device=pool.device)[:m]] = True
    return pool[drawn.nonzero().squeeze(1)]
