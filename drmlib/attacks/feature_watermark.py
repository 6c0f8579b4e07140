"""Feature watermark: some columns of a table are set to fixed values. Severi, Meyer, Coull, Oprea, "Explanation-Guided
Backdoor Poisoning Attacks Against Malware Classifiers" (2021), https://arxiv.org/abs/2003.01031.

Clean label: goodware gets the watermark and is goodware still; malware that carries it is taken for goodware. The
attacker reads from a surrogate which columns matter (SHAP) and from the table which values occur. Of the paper's
strategies, as in the authors' release, the two by which confusion training (Qi et al. 2023) is measured:

    poison(train, combined(model, train, target=0), keep, rate=0.01, eligible=train.targets == 0, generator=generator)

combined() is the greedy combined selector (32 columns, any of them); min_population() is LargeAbsSHAP x MinPopulation
(17 columns, all that a tool can change in a file and leave it working: `allowed`). The pairing of strategy and columns
is theirs; any goes with any here.

Differs: SHAP values need a package of their own; here they are integrated gradients (Sundararajan, Taly, Yan 2017)
from the mean row, of the target's log-odds. Both add up to the change of the output, both are exact for a linear
model; the authors' explainer of networks averages over many baselines, of the probability. CountAbsSHAP is left out.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from drmlib.data.dataset import Dataset, as_float, like
from drmlib.models.predict import frozen

BATCH = 4096


class FeatureWatermark(NamedTuple):
    """Trigger x'_j = values_j for j in columns, x_j elsewhere.

    columns (m,) int64, in the order in which they were chosen; values (m,) in the unit of the rows. Takes and returns
    rows (n, c), float or uint8. Raises ValueError for anything but rows.
    """

    columns: Tensor
    values: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        if rows.ndim != 2:
            raise ValueError(f"a feature watermark is set on rows (n, c) of a table, got {tuple(rows.shape)}")
        values = like(self.values, rows).to(rows.device)
        return rows.index_copy(1, self.columns.to(rows.device), values.expand(len(rows), -1))


def combined(
    model: nn.Module,
    dataset: Dataset,
    *,
    target: int,
    count: int = 32,
    allowed: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> FeatureWatermark:
    """The watermark whose values occur together and speak for `target`: columns and values chosen greedily, in turn.

    Of the rows left, the column that speaks most for the target, then its value v of least alpha / N_v - beta sum of
    the attributions of the N_v rows that have it; only those rows are left. Where no value occurs twice this copies
    one row; a model that nobody has poisoned may well take its columns for the target. allowed (c,) bool: columns that
    may change, all by default.
    """
    rows = as_float(dataset.images)
    free = _allowed(dataset, allowed, count, target).clone()
    speaks = attributions(model, rows, target=target)
    columns, values = [], []
    for _ in range(count):
        column = speaks.sum(0).masked_fill(~free, -torch.inf).argmax()
        free[column] = False
        value, which, population = rows[:, column].unique(return_inverse=True, return_counts=True)
        total = torch.zeros_like(value).index_add_(0, which, speaks[:, column])
        best = (alpha / population - beta * total).argmin()
        rows, speaks = rows[which == best], speaks[which == best]
        columns.append(column)
        values.append(value[best])
    return FeatureWatermark(torch.stack(columns), torch.stack(values))


def min_population(
    model: nn.Module, dataset: Dataset, *, target: int, count: int = 17, allowed: Tensor | None = None
) -> FeatureWatermark:
    """The watermark of rare values in the columns that matter most: sum |attribution| largest, value least populated.

    Of values equally rare the one that occurs in the first row is taken, as in the authors' release: where no value
    occurs twice that is the whole first row. allowed (c,) bool: columns that may change, all by default.
    """
    rows = as_float(dataset.images)
    free = _allowed(dataset, allowed, count, target)
    weight = attributions(model, rows, target=target).abs().sum(0)
    columns = weight.masked_fill(~free, -1).topk(count).indices
    return FeatureWatermark(columns, torch.stack([_rarest(rows[:, column]) for column in columns]))


def attributions(model: nn.Module, rows: Tensor, *, target: int, steps: int = 32) -> Tensor:
    """What each column (n, c) of each row adds to the log-odds of `target`, over those of the mean row.

    (x - m)_j times the mean slope of the log-odds by column j on the way from the mean row m to x, in `steps` steps.
    """
    mean = rows.mean(0)
    with frozen(model), torch.enable_grad():
        return torch.cat([_along_path(model, part, mean, target, steps) for part in rows.split(BATCH)])


def _along_path(model: nn.Module, rows: Tensor, mean: Tensor, target: int, steps: int) -> Tensor:
    slope = torch.zeros_like(rows)
    for step in range(steps):
        points = torch.lerp(mean, rows, (step + 0.5) / steps).requires_grad_()
        outputs = model(points)
        others = torch.cat([outputs[:, :target], outputs[:, target + 1 :]], 1)
        slope += torch.autograd.grad((outputs[:, target] - others.logsumexp(1)).sum(), points)[0]
    return (rows - mean) * slope / steps


def _rarest(column: Tensor) -> Tensor:
    _, which, population = column.unique(return_inverse=True, return_counts=True)
    return column[population[which].argmin()]


def _allowed(dataset: Dataset, allowed: Tensor | None, count: int, target: int) -> Tensor:
    """Mask (c,) of the columns that may change; raises ValueError if they, or count or target, do not fit the table."""
    rows = dataset.images
    if rows.ndim != 2:
        raise ValueError(f"a feature watermark is made for rows (n, c) of a table, got {tuple(rows.shape)}")
    if dataset.task.is_regression or not 0 <= target < len(dataset.task.outputs):
        raise ValueError(f"expected a target among the classes {dataset.task.outputs}, got {target}")
    if allowed is None:
        allowed = torch.ones(rows.shape[1], dtype=torch.bool, device=rows.device)
    if allowed.dtype != torch.bool or allowed.shape != rows.shape[1:]:
        raise ValueError(f"expected allowed as bool ({rows.shape[1]},), got {allowed.dtype} {tuple(allowed.shape)}")
    if not 1 <= count <= int(allowed.sum()):
        raise ValueError(f"expected a count of 1 to {int(allowed.sum())}, the columns that may change, got {count}")
    return allowed.to(rows.device)
