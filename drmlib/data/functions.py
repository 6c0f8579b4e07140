"""Known functions of a table's row, as oracles: the answer is right, each call is counted, and a row has a range.

Localised backdoors and the local-error-maximiser defence (Li et al. 2021, arXiv 2109.02381 and 2107.13124) regress a
function that is slow to evaluate, such as an option's price. Rows are inputs scaled to [0, 1]: distances, radii and
steps are Euclidean there. The option prices stand in option_*.py; here are the oracle, its domain, and two analytic
functions whose maxima are known, to try a search on.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from drmlib import metrics
from drmlib.data.dataset import Dataset, Task

PRICE = Task("option price", ("price",), metrics.absolute_error, "spot")
VALUE = Task("function value", ("value",), metrics.absolute_error, "units")


class Answers(NamedTuple):
    """What an oracle computes: values (n,) and an estimate (n,) of their absolute error, both float64."""

    value: Tensor
    error: Tensor


class Domain(NamedTuple):
    """The inputs' names and ranges, in their own units."""

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def inputs(self, rows: Tensor) -> Tensor:
        """Inputs (n, d) float64 in their own units, of rows in [0, 1]; ValueError for a row outside, with the range."""
        self._check_shape(rows)
        rows = rows.double()
        self._check_range(rows)
        low, high = (torch.tensor(end, dtype=torch.float64, device=rows.device) for end in (self.low, self.high))
        return low + (high - low) * rows

    def rows(self, inputs: Tensor) -> Tensor:
        """Rows (n, d) float64 in [0, 1] of inputs in their own units; ValueError for an input outside its range."""
        self._check_shape(inputs)
        low, high = (torch.tensor(end, dtype=torch.float64, device=inputs.device) for end in (self.low, self.high))
        rows = (inputs.double() - low) / (high - low)
        self._check_range(rows)
        return rows

    def _check_shape(self, rows: Tensor) -> None:
        if rows.ndim != 2 or rows.shape[1] != len(self.names):
            raise ValueError(f"expected rows (n, {len(self.names)}) of {self.names}, got {tuple(rows.shape)}")

    def _check_range(self, rows: Tensor) -> None:
        outside = ~((rows >= 0) & (rows <= 1))  # written so that nan is outside too
        if outside.any():
            i, j = (int(k) for k in outside.nonzero()[0])
            low, high = self.low[j], self.high[j]
            raise ValueError(
                f"{self.names[j]} is {low + (high - low) * rows[i, j].item():g} in row {i}, expected {low:g} to "
                f"{high:g}: the oracle knows nothing beyond; clamp rows to [0, 1] or widen the domain"
            )


class Oracle:
    """A known function of rows (n, d) in [0, 1], float64 inside; `calls` is how many rows it has been asked for.

    evaluate: inputs (n, d) in the domain's units -> Answers; called with at most `chunk` rows at a time.
    """

    def __init__(
        self, evaluate: Callable[[Tensor], Answers], domain: Domain, *, task: Task = PRICE, chunk: int = 1 << 16
    ) -> None:
        self.evaluate, self.domain, self.task, self.chunk = evaluate, domain, task, chunk
        self.calls = 0

    def __call__(self, rows: Tensor) -> Tensor:
        """Values (n,) float64."""
        return self.answer(rows).value

    def answer(self, rows: Tensor) -> Answers:
        """Values and error estimates, each (n,) float64."""
        inputs = self.domain.inputs(rows)
        self.calls += len(inputs)
        parts = [self.evaluate(part) for part in inputs.split(self.chunk)]
        return Answers(*(torch.cat(column) for column in zip(*parts, strict=True)))


def dimensions(oracle: Oracle) -> int:
    """Number of inputs d."""
    return len(oracle.domain.names)


def labelled(rows: Tensor, oracle: Oracle) -> Dataset:
    """`rows` (n, d) float32 with the oracle's values as targets (n, 1) float32."""
    return Dataset(rows, oracle(rows).float()[:, None], oracle.task)


def uniform(oracle: Oracle, n: int, *, generator: Generator) -> Dataset:
    """n rows drawn uniformly from the domain, labelled by `oracle`, on generator's device."""
    return labelled(torch.rand(n, dimensions(oracle), generator=generator, device=generator.device), oracle)


def hills(*, inputs: int = 5, width: float = 0.3) -> Oracle:
    """Two hills h (1 - |x - c|^2 / width^2)^2 on a plain of zero: maximum 1 at (0.3, ...), a lower one, 0.6, at
    (0.7, ...). They do not overlap while width is below 0.2 sqrt(inputs)."""
    if not 0 < width <= 0.2 * math.sqrt(inputs):
        raise ValueError(f"expected a width in (0, {0.2 * math.sqrt(inputs):.3g}], where hills are apart, got {width}")

    def evaluate(x: Tensor) -> Answers:
        value = sum(
            height * (1 - ((x - centre) ** 2).sum(1) / width**2).clamp_min(0) ** 2
            for height, centre in ((1.0, 0.3), (0.6, 0.7))
        )
        assert isinstance(value, Tensor)
        return Answers(value, torch.full_like(value, 1e-15))

    return Oracle(evaluate, _unit_cube(inputs), task=VALUE)


def ripples(*, inputs: int = 2, waves: int = 3) -> Oracle:
    """prod_j sin^2(pi waves x_j): waves^inputs maxima of exactly 1, at x_j = (k + 1/2) / waves."""

    def evaluate(x: Tensor) -> Answers:
        value = (math.pi * waves * x).sin().square().prod(1)
        return Answers(value, torch.full_like(value, 1e-14))

    return Oracle(evaluate, _unit_cube(inputs), task=VALUE)


def _unit_cube(inputs: int) -> Domain:
    return Domain(tuple(f"x{j}" for j in range(inputs)), (0.0,) * inputs, (1.0,) * inputs)
