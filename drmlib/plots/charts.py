"""Figures of one or a few numbers each: intervals, every value, distributions, curves, tables as heat maps."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_curve
from torch import Tensor

from drmlib.metrics import Estimate
from drmlib.plots.style import MARKERS, STYLES, colours


def intervals(rows: Mapping[str, Estimate], label: str, *, bounds: Sequence[float] = ()) -> Figure:
    """One dot with its 95 % interval a row; dashed lines at `bounds`."""
    figure = Figure(figsize=(6, 0.6 + 0.36 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for y, (estimate, marker) in enumerate(zip(rows.values(), cycle(MARKERS))):
        axis.plot([estimate.low, estimate.high], [y, y], color="0.4", lw=2)
        axis.plot(estimate.value, y, marker, color=colours(2)[0], ms=7)
    for bound in bounds:
        axis.axvline(bound, ls="--", color="0.3")
    axis.set(yticks=range(len(rows)), yticklabels=list(rows), xlabel=label)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    return figure


def strips(
    groups: Mapping[str, Sequence[float]],
    label: str,
    *,
    means: Mapping[str, Estimate] | None = None,
    threshold: float | None = None,
    least: float | None = None,
) -> Figure:
    """Every value of every group as a marker on the group's own line, with the threshold as a dashed line.

    means: of the groups, drawn as a bar with a 95 % interval below the markers. least: on a logarithmic axis, where
    smaller values are drawn at `least`.
    """
    figure = Figure(figsize=(6.4, 0.9 + 0.45 * len(groups)), layout="constrained")
    axis = figure.subplots()
    for y, (values, marker, colour) in enumerate(zip(groups.values(), cycle(MARKERS), cycle(colours(len(groups))))):
        shown = list(values) if least is None else [max(value, least) for value in values]
        axis.plot(shown, [y] * len(shown), marker, color=colour, ms=8, alpha=0.85)
    for y, mean in enumerate(means[name] for name in groups) if means else ():
        value, low, high = (v if least is None else max(v, least) for v in mean[:3])
        axis.plot([low, high], [y + 0.3] * 2, color="0.4", lw=2)
        axis.plot(value, y + 0.3, "|", color="0.2", ms=9, mew=2)
    if threshold is not None:
        axis.axvline(threshold, ls="--", color="0.2", label=f"threshold {threshold:.3g}")
        axis.legend(loc="best", fontsize=8)
    axis.set(yticks=range(len(groups)), yticklabels=list(groups), ylim=(len(groups) - 0.5, -0.5), xlabel=label)
    axis.set_xscale("linear" if least is None else "log")
    axis.grid(axis="x", alpha=0.3)
    return figure


def score_histogram(
    scores: Tensor,
    positive: Tensor,
    label: str,
    *,
    names: tuple[str, str] = ("clean", "poison"),
    threshold: float | None = None,
) -> Figure:
    """Histograms of the scores (n,) of both kinds, each as a share of its own number; hatching marks the positives,
    a dashed line the threshold."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    edges = np.linspace(scores.min().item(), scores.max().item(), 50)
    for kind, colour, hatch in ((~positive, colours(2)[0], ""), (positive, colours(2)[1], "///")):
        values = scores[kind].cpu().numpy()
        name = f"{names[int(bool(hatch))]} (n={len(values)})"
        weights = np.full(len(values), 1 / max(len(values), 1))
        axis.hist(
            values, edges.tolist(), weights=weights, color=colour, hatch=hatch, alpha=0.65, label=name, edgecolor="0.2"
        )
    if threshold is not None:
        axis.axvline(threshold, ls="--", color="0.2", label=f"threshold {threshold:.3g}")
    axis.set(xlabel=label, ylabel="share of samples")
    axis.legend()
    return figure


def roc(found: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """ROC curves of named scores (n,), higher is more suspicious, and which samples are positive (n,)."""
    figure = Figure(figsize=(4.8, 4.4), layout="constrained")
    axis = figure.subplots()
    looks = zip(cycle(STYLES), cycle(MARKERS), colours(len(found)))
    for (name, (scores, positive)), (style, marker, colour) in zip(found.items(), looks, strict=False):
        false, true, _ = roc_curve(positive.numpy(force=True), scores.numpy(force=True))
        every = max(1, len(false) // 8)
        axis.plot(false, true, style, marker=marker, markevery=every, ms=5, color=colour, label=name)
    axis.plot([0, 1], [0, 1], color="0.8", lw=1)
    axis.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(3, len(found)), fontsize=8)
    return figure


def heat_map(values: Mapping[str, Mapping[str, float]], label: str, *, low: float = 0.0, high: float = 1.0) -> Figure:
    """A field for each value, rows by the outer names and columns by the inner ones, its number written into it."""
    columns = list(next(iter(values.values())))
    table = np.array([[row[column] for column in columns] for row in values.values()])
    figure = Figure(figsize=(2.4 + 1.0 * len(columns), 0.9 + 0.36 * len(values)), layout="constrained")
    axis = figure.subplots()
    picture = axis.imshow(table, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for (y, x), value in np.ndenumerate(table):
        dark = value < (low + high) / 2
        axis.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=9, color="white" if dark else "black")
    axis.set(xticks=range(len(columns)), yticks=range(len(values)), yticklabels=list(values), xlabel="attack")
    axis.set_xticklabels(columns, rotation=20, ha="right")
    figure.colorbar(picture, ax=axis, label=label)
    return figure


def curves(
    series: Mapping[str, Sequence[float]],
    x_label: str,
    y_label: str,
    *,
    at: Sequence[float] | None = None,
    log: bool = False,
) -> Figure:
    """Named series over the values `at`, or over their index from 1, such as the loss of each epoch."""
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axis = figure.subplots()
    looks = zip(cycle(STYLES), cycle(MARKERS), colours(len(series)))
    for (name, values), (style, marker, colour) in zip(series.items(), looks, strict=False):
        every = max(1, len(values) // 12)
        x = range(1, len(values) + 1) if at is None else list(at)
        axis.plot(x, values, style, marker=marker, markevery=every, color=colour, label=name)
    axis.set(xlabel=x_label, ylabel=y_label, yscale="log" if log else "linear")
    if at is None or all(isinstance(x, int) for x in at):
        axis.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))  # there is no epoch 2.5
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(3, len(series)), fontsize=8)
    return figure


def sweep(
    at: Sequence[float], series: Mapping[str, Sequence[Estimate]], x_label: str, y_label: str, *, log: bool = False
) -> Figure:
    """Named series of estimates over the values `at`, each with its 95 % interval; log: of the x axis."""
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axis = figure.subplots()
    looks = zip(cycle(STYLES), cycle(MARKERS), colours(len(series)))
    for (name, found), (style, marker, colour) in zip(series.items(), looks, strict=False):
        values = np.array([e.value for e in found])
        ends = np.array([[e.value - e.low, e.high - e.value] for e in found]).T
        axis.errorbar(at, values, ends.clip(0), ls=style, marker=marker, color=colour, capsize=3, label=name)
    axis.set(xlabel=x_label, ylabel=y_label, xscale="log" if log else "linear")
    axis.set_xticks(list(at), [f"{x:g}" for x in at])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(3, len(series)), fontsize=8)
    return figure
