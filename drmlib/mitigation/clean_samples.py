"""What repairs do with the defender's few clean samples: hold some out, judge by them when to stop, draw batches.

Toolkits stop pruning on the error of the test set, some on the attack's success there; a defender has neither. Here one
rule ends every repair that has a strength: of ever stronger ones, the last before the first whose error on held-out
clean samples is beyond a Tolerance. A method states its levels, the rule chooses among them.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, takewhile
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib.data.dataset import Dataset, Task, as_float
from drmlib.models.predict import predict

HELD_OUT = 0.2  # share of the defender's samples that only judges; ours, of the 500 that papers grant him: 100


class Tolerance(NamedTuple):
    """How much worse than before repair a model may be on held-out samples, for a classifier and for a regressor.

    drop: in accuracy, 0.04 as fine-pruning's paper; growth: of the mean error, relative to what it was.
    """

    drop: float = 0.04
    growth: float = 0.10

    def limit(self, error: float, task: Task) -> float:
        """The highest error allowed where `error` was that of the model before repair."""
        rounding = 1e-6
        return rounding + (error * (1 + self.growth) if task.is_regression else error + self.drop)


TOLERANCE = Tolerance()


def last_tolerable(errors: Iterable[float], task: Task, tolerance: Tolerance) -> int:
    """How many of `errors`, after the first, come before one beyond the tolerance; the first is that before repair.

    errors: of ever stronger repairs, read no further than the decision needs.
    """
    rising = iter(errors)
    limit = tolerance.limit(next(rising), task)
    return sum(1 for _ in takewhile(lambda error: error <= limit, rising))


def strongest_tolerable(
    model: nn.Module,
    repair: Callable[[float], nn.Module],
    levels: Sequence[float],
    judging: Dataset,
    *,
    tolerance: Tolerance = TOLERANCE,
) -> nn.Module:
    """repair(level) of the last of `levels`, given weakest first, before one whose error on `judging` is too high.

    If the first is, a copy of `model`.
    """
    repaired = (candidate for _, candidate in tolerable(model, repair, levels, judging, tolerance=tolerance))
    given = copy.deepcopy(model).to(judging.device).eval()
    return deque(chain([given], repaired), maxlen=1).pop()


def tolerable(
    model: nn.Module,
    repair: Callable[[float], nn.Module],
    levels: Sequence[float],
    judging: Dataset,
    *,
    tolerance: Tolerance = TOLERANCE,
) -> Iterator[tuple[float, nn.Module]]:
    """Each of `levels`, given weakest first, with repair(level), before the first whose error on `judging` is too high.

    A repair that raises FloatingPointError, as training does that diverges, is too strong.
    """
    limit = tolerance.limit(mean_error(copy.deepcopy(model).to(judging.device).eval(), judging), judging.task)
    for level in levels:
        try:
            candidate = repair(level)
        except FloatingPointError:
            return
        if mean_error(candidate, judging) > limit:
            return
        yield level, candidate


def hold_out(dataset: Dataset, share: float, *, generator: Generator) -> tuple[Dataset, Dataset]:
    """`dataset` in two disjoint random parts, the second of the given `share`, at least one sample each."""
    if not 0 < share < 1 or len(dataset) < 2:
        raise ValueError(f"expected a share in (0, 1) of at least 2 samples to hold out, got {share} of {len(dataset)}")
    size = min(max(1, round(share * len(dataset))), len(dataset) - 1)
    rest, held = dataset.split(len(dataset) - size, size, generator=generator)
    return rest, held


def errors_of(outputs: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Error (n,) of each sample: that of the task, in its unit, or for labels 1 where the label is wrong."""
    return (outputs.argmax(1) != targets).float() if task.error is None else task.error(outputs, targets)


def mean_error(model: nn.Module, dataset: Dataset) -> float:
    """Mean of errors_of over `dataset`: one minus accuracy for a classifier."""
    return errors_of(predict(model, as_float(dataset.images)), dataset.targets, dataset.task).mean().item()


def shuffled(dataset: Dataset, batch_size: int, *, generator: Generator) -> Iterator[Tensor]:
    """Index tensors of one pass over `dataset` in random order; the last may be shorter."""
    yield from torch.randperm(len(dataset), generator=generator, device=dataset.device).split(batch_size)
