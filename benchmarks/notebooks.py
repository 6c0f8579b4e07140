"""What the notebooks store of their cost, their budgets, and how long they would take on this machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from drmlib.lab import course, estimates, reference


def run() -> str:
    """The table of all notebooks, with the reference step measured now."""
    from tests.budgets import BUDGETS

    return table([notebook.path for notebook in course.discover()], BUDGETS, reference.step_seconds())


def table(paths: Sequence[Path], budgets: Mapping[str, int], step: float) -> str:
    """Steps stored, budget, and what the steps take where a reference step takes `step` CPU seconds."""
    head = (
        f"{'notebook':34} {'steps':>7} {'budget':>7} {'share':>6} {'CPU s then':>11} {'CPU s here':>11} {'peak MB':>8}"
    )
    lines, total = [head, "-" * len(head)], 0
    for path in paths:
        figures, budget = estimates.stored(path), budgets.get(path.name[:2], 0)
        total += figures.steps
        share = f"{figures.steps / budget:.0%}" if budget else ""
        lines.append(
            f"{path.stem:34} {figures.steps:7} {budget:7} {share:>6} {figures.cpu_seconds:11.1f} "
            f"{figures.steps * step:11.0f} {figures.peak_mb:8.0f}"
        )
    lines.append(f"All: {total} steps, about {total * step / 60:.0f} min of one core at {step * 1e3:.0f} ms a step.")
    return "\n".join(lines)
