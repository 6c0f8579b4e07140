"""Claims, aims, shortfalls and tables: displays whose text is stable and whose exact figures lie beside it as data.

nbval compares text/plain, so that a change of CPU which moves a figure inside its band passes and a broken kernel
fails; a person reads text/html with the value; a run collects the JSON. A claim that fails does not raise here, so
that the other claims still run: the runner turns it into the exit status.
"""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd
from IPython.core.getipython import get_ipython
from IPython.display import display

from drmlib.lab.records import CLAIM, SHORTFALL, band_text, storable, value_text
from drmlib.metrics import Estimate

Number = float | int | bool


def claim(
    name: str,
    value: Number | Estimate,
    *,
    at_least: Number | None = None,
    at_most: Number | None = None,
    source: str,
) -> None:
    """Displays whether `value` lies in the band, and where the band comes from; nan never does.

    value: a number, a bool (at_least=True says that it must be true, at_most=False that it must be false), or an
    Estimate, of which the value decides and the interval is reported.
    """
    record = _judge(name, value, at_least, at_most, source)
    verdict = "holds" if record["holds"] else "FAILS"
    band = band_text(record["at_least"], record["at_most"])
    text = f"{verdict}  {name}: {band}  (source: {source})"
    html = (
        f"<p><strong>{'✓' if record['holds'] else '✗'} {verdict}</strong> &nbsp;{escape(name)}: {escape(band)}; "
        f"measured <strong>{escape(value_text(record))}</strong>. <em>Source: {escape(source)}</em></p>"
    )
    _publish({"text/plain": text, "text/html": html, CLAIM: record}, f"{text}  measured {value_text(record)}")


def shortfall(name: str, *, asked: Number, reached: Number | Estimate, reason: str) -> None:
    """Displays a figure that falls short of its paper's, or of what was asked. It fails no run; summaries list it."""
    reached = _plain(reached.value if isinstance(reached, Estimate) else reached)
    record = {"name": name, "asked": storable(_plain(asked)), "reached": storable(reached), "reason": reason}
    text = f"shortfall  {name}: asked {asked:g}  (reason: {reason})"
    html = (
        f"<p><strong>△ shortfall</strong> &nbsp;{escape(name)}: asked {asked:g}, reached "
        f"<strong>{reached:.6g}</strong>. <em>Reason: {escape(reason)}</em></p>"
    )
    _publish({"text/plain": text, "text/html": html, SHORTFALL: record}, f"{text}  reached {reached:.6g}")


def aim(
    name: str,
    value: Number | Estimate,
    *,
    at_least: Number | None = None,
    at_most: Number | None = None,
    source: str,
    reason: str,
) -> None:
    """Displays a figure so near its band's edge that seed or processor decides: reached a claim, missed a shortfall.

    What nbval compares is the same for both, so an aim fails no run; beside it belongs a claim of what always holds.
    reason: why it is missed where it is missed.
    """
    record = _judge(name, value, at_least, at_most, source)
    band, measured = band_text(record["at_least"], record["at_most"]), value_text(record)
    text = f"aim  {name}: {band}  (source: {source}; where missed: {reason})"
    verdict = "✓ aim reached" if record["holds"] else "△ aim missed"
    why = f"Source: {source}" if record["holds"] else f"Source: {source}. Reason: {reason}"
    html = (
        f"<p><strong>{verdict}</strong> &nbsp;{escape(name)}: {escape(band)}; measured "
        f"<strong>{escape(measured)}</strong>. <em>{escape(why)}</em></p>"
    )
    asked = record["at_most"] if at_least is None else record["at_least"]
    missed = {"name": name, "asked": asked, "reached": record["value"], "reason": reason}
    kind = {CLAIM: record} if record["holds"] else {SHORTFALL: missed}
    _publish({"text/plain": text, "text/html": html, **kind}, f"{text}  measured {measured}")


def table(frame: pd.DataFrame, caption: str = "") -> None:
    """Displays `frame` in full for a reader; what nbval compares is its shape, its columns and the caption."""
    columns = ", ".join(str(column) for column in frame.columns)
    text = f"Table{': ' + caption if caption else ''} ({len(frame)} rows; columns {columns})"
    head, end, body = frame.to_html(border=0).partition("</thead>")
    if caption:
        head = head.replace(">", f"><caption>{escape(caption)}</caption>", 1)
    html = head.replace("<th>", '<th scope="col">') + end + body.replace("<th>", '<th scope="row">')
    _publish({"text/plain": text, "text/html": html}, f"{text}\n{frame}")


def figures_table(rows: Mapping[str, Any], caption: str = "") -> None:
    """Displays named figures, such as measure_classifier's, a row each, with their intervals."""
    table(
        pd.DataFrame({n: {k.replace("_", " "): str(v) for k, v in f._asdict().items()} for n, f in rows.items()}).T,
        caption,
    )


def _judge(
    name: str, value: Number | Estimate, at_least: Number | None, at_most: Number | None, source: str
) -> dict[str, Any]:
    if at_least is None and at_most is None:
        raise ValueError(f"claim {name!r} has no band; give at_least, at_most, or both")
    if at_least is not None and at_most is not None and not at_least <= at_most:
        raise ValueError(f"claim {name!r}: expected at_least <= at_most, got {at_least:g} and {at_most:g}")
    interval: dict[str, Any] = {"low": None, "high": None, "n": None}
    if isinstance(value, Estimate):
        interval = {"low": storable(value.low), "high": storable(value.high), "n": value.n}
    measured = _plain(value.value if isinstance(value, Estimate) else value)
    low = -math.inf if at_least is None else at_least
    high = math.inf if at_most is None else at_most
    return {
        "name": name,
        "value": storable(measured),
        **interval,
        "at_least": None if at_least is None else _plain(at_least),
        "at_most": None if at_most is None else _plain(at_most),
        "source": source,
        "holds": bool(low <= measured <= high),  # nan compares false
    }


def _plain(value: Any) -> Number:
    """`value` as a Python number: numpy's and torch's scalars have item()."""
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, int | float):
        raise TypeError(f"expected a number, a bool or an Estimate, got {type(value).__name__}")
    return value


def _publish(bundle: dict[str, Any], line: str) -> None:
    if get_ipython() is None:
        print(line)
    else:
        display(bundle, raw=True)
