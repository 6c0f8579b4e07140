"""What a notebook's outputs say about themselves: claims, shortfalls and figures, written as data and read back.

Nothing here imports torch, so that the command line starts fast.
"""

import math
from typing import Any, NamedTuple

CLAIM = "application/vnd.drmlib.claim+json"
SHORTFALL = "application/vnd.drmlib.shortfall+json"
FIGURE = "drmlib-figure"  # key in the metadata of an output: {"caption", "alt", "key"}


class Found(NamedTuple):
    """What an executed notebook holds, each item with the number of its cell (`cell`, from 1)."""

    claims: list[dict[str, Any]]
    shortfalls: list[dict[str, Any]]
    figures: list[dict[str, Any]]


def collect(notebook: Any) -> Found:
    """Claims, shortfalls and key figures (caption, alt, png in base64) of an executed notebook, in reading order."""
    found = Found([], [], [])
    for number, cell in numbered(notebook):
        for output in cell.get("outputs", []):
            _sort_in(output, number, found)
    return found


def numbered(notebook: Any) -> list[tuple[int, Any]]:
    """The cells with their numbers from 1 in the notebook as written: without those that papermill has added."""
    added = {"injected-parameters", "papermill-error-cell-tag"}
    return list(enumerate((cell for cell in notebook.cells if not added & set(cell.metadata.get("tags", []))), 1))


def _sort_in(output: Any, cell: int, found: Found) -> None:
    data = output.get("data", {})
    if CLAIM in data:
        found.claims.append({"cell": cell, **data[CLAIM]})
    if SHORTFALL in data:
        found.shortfalls.append({"cell": cell, **data[SHORTFALL]})
    figure = output.get("metadata", {}).get(FIGURE)
    if figure and figure["key"] and "image/png" in data:
        found.figures.append({"cell": cell, **figure, "png": "".join(data["image/png"]).replace("\n", "")})


def number(value: float | str | None) -> float:
    """The float of a stored number; JSON has no nan and no infinity, they are stored as "nan", "inf", "-inf"."""
    return math.nan if value is None else float(value)


def storable(value: float | int) -> float | int | str:
    """`value` as JSON can hold it: a finite number stays exact, nan and infinity become strings."""
    return value if math.isfinite(value) else str(float(value))


def band_text(at_least: float | bool | None, at_most: float | bool | None) -> str:
    """The band in words: "at least 0.95", "at most 2", "from 0.5 to 1.5", "true", "false"."""
    if isinstance(at_least, bool) or isinstance(at_most, bool):
        return "true" if at_least else "false"
    if at_most is None:
        return f"at least {at_least:g}"
    return f"at most {at_most:g}" if at_least is None else f"from {at_least:g} to {at_most:g}"


def value_text(record: dict[str, Any]) -> str:
    """The measured value with its interval and n, to six significant digits."""
    if isinstance(record["value"], bool):
        return str(record["value"]).lower()
    text = f"{number(record['value']):.6g}"
    if record["n"] is not None and math.isfinite(number(record["low"])):
        text += f" [{number(record['low']):.4g}, {number(record['high']):.4g}]"
    return text + (f", n = {record['n']}" if record["n"] is not None else "")
