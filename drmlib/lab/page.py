"""summary.html: one page of a run that needs no other file, no script and no network."""

import json
from html import escape
from typing import Any

from drmlib.lab.records import band_text, number, value_text
from drmlib.lab.results import SYMBOL, Result, Summary

STYLE = """
:root { color-scheme: light dark; --line: #c8ccd1; --soft: #f4f5f7; --text: #1c1e21; --page: #fff; --link: #0b57b0; }
@media (prefers-color-scheme: dark) {
  :root { --line: #4a4f57; --soft: #26292e; --text: #e8eaed; --page: #17191c; --link: #8ab8f5; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; margin-bottom: .3rem } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
a { color: var(--link) }
.verdict { font-size: 1.2rem; font-weight: 600; border-left: .4rem solid; padding: .5rem 1rem; background: var(--soft) }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .93rem }
caption { text-align: left; padding: .4rem 0; opacity: .85 }
th, td { text-align: left; vertical-align: top; padding: .4rem .7rem; border-bottom: 1px solid var(--line) }
thead th, tfoot td, tfoot th { background: var(--soft) } th { font-weight: 600 } tbody th { min-width: 9rem }
.n { text-align: right; font-variant-numeric: tabular-nums } .s { white-space: nowrap } .bad { font-weight: 700 }
.bad td:first-child, .bad th:first-child { border-left: .3rem double }
.figures { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)) }
figure { margin: 0 } figcaption { font-size: .9rem }
figure img { box-sizing: border-box; width: 100%; height: 13rem; object-fit: contain; background: #fff;
  border: 1px solid var(--line) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem; font-size: .93rem }
dt { opacity: .75 } dd { margin: 0; overflow-wrap: anywhere }
footer { margin: 3rem 0 1rem; font-size: .9rem; opacity: .85 }
"""


def html(summary: Summary) -> str:
    """The page of a run, finished or not."""
    good = summary.exit_code == 0 and summary.state == "complete"
    symbol = "✓" if good else "…" if summary.state == "running" else "✗"
    state = "" if summary.state == "complete" else f" The run is {summary.state}."
    day, _, hour = summary.started.partition("T")
    sections = [_notebooks(summary), _errors(summary), _figures(summary), _claims(summary), _shortfalls(summary)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>drmlib run of {day} {hour[:5]}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>drmlib: run of {day}, {hour[:5]}</h1>\n"
        f'<p class="verdict">{symbol} {escape(summary.verdict() + state)}</p>\n'
        f"{''.join(sections)}{_environment(summary)}"
        "</main>\n<footer>Values are shown to six significant digits; <code>summary.json</code> beside this page holds "
        "them exactly. Brackets are 95 % intervals.</footer>\n</body>\n</html>\n"
    )


def _notebooks(summary: Summary) -> str:
    found, rows = summary.notebooks, [_notebook(result) for result in summary.notebooks]
    peak = max((result.peak_mb for result in found), default=0)
    held = f"{sum(r.held for r in found)} of {sum(len(r.claims) for r in found)}"
    used = [f"{summary.seconds:.1f}", f"{sum(r.cpu_seconds for r in found):.1f}", f"{peak:.0f}"]
    cells = _figures_of([*used, held, str(sum(len(r.shortfalls) for r in found))])
    total = f'<tfoot><tr><th scope="row" colspan="2">Total</th>{cells}</tr></tfoot>'
    heads = ["Notebook", "Status", "Seconds", "CPU seconds", "Peak MB", "Claims that hold", "Shortfalls"]
    text = "Seconds include the start of the kernel; their total is that of the run, in which several run at once."
    return "<h2>Notebooks</h2>\n" + _table(text, heads, rows, total)


def _notebook(result: Result) -> str:
    name = f"{result.number} {escape(result.title)}"
    link = f'<a href="{escape(result.html)}">{name}</a>' if result.html else name
    figures = [""] * 5
    if result.executed:
        held = f"{result.held} of {len(result.claims)}"
        used = [f"{result.seconds:.1f}", f"{result.cpu_seconds:.1f}", f"{result.peak_mb:.0f}"]
        figures = [*used, held, str(len(result.shortfalls))]
    status = f'<td class="s">{SYMBOL[result.status]} {result.status}</td>'
    return f'<tr{_bad(result.status != "held")}><th scope="row">{link}</th>{status}{_figures_of(figures)}</tr>'


def _figures_of(texts: list[str]) -> str:
    return "".join(f'<td class="n">{text}</td>' for text in texts)


def _errors(summary: Summary) -> str:
    failed = [(result, result.error) for result in summary.notebooks if result.error]
    rows = [
        f'<tr><th scope="row">{_link(r)}</th><td class="n">{e["cell"]}</td>'
        f"<td><code>{escape(e['source'])}</code></td><td>{escape(e['message'])}</td></tr>"
        for r, e in failed
    ]
    heads = ["Notebook", "Cell", "First line of the cell", "Error"]
    return "<h2>Errors</h2>\n" + _table("Cells are counted from 1, text included.", heads, rows) if rows else ""


def _figures(summary: Summary) -> str:
    pictures = [_figure(result, figure) for result in summary.notebooks for figure in result.figures]
    return f'<h2>Key figures</h2>\n<div class="figures">\n{"".join(pictures)}</div>\n' if pictures else ""


def _figure(result: Result, figure: dict[str, Any]) -> str:
    image = f'<img alt="{escape(figure["alt"])}" src="data:image/png;base64,{figure["png"]}">'
    linked = f'<a href="{escape(result.html)}">{image}</a>' if result.html else image
    return f"<figure>{linked}<figcaption>{_link(result)}: {escape(figure['caption'])}</figcaption></figure>\n"


def _claims(summary: Summary) -> str:
    rows = [_claim(result, claim) for result in summary.notebooks for claim in result.claims]
    heads = ["Notebook, cell", "Claim", "Measured", "Band", "Verdict", "Source of the band"]
    return "<h2>Claims</h2>\n" + _table("A claim holds if the measured value lies in its band.", heads, rows)


def _claim(result: Result, claim: dict[str, Any]) -> str:
    verdict = "✓ holds" if claim["holds"] else "✗ FAILS"
    measured = f'<data value="{escape(str(claim["value"]))}">{escape(value_text(claim))}</data>'
    band = escape(band_text(claim["at_least"], claim["at_most"]))
    return (
        f'<tr{_bad(not claim["holds"])}><td class="s">{_link(result)}, {claim["cell"]}</td>'
        f'<th scope="row">{escape(claim["name"])}</th><td>{measured}</td><td class="s">{band}</td>'
        f'<td class="s">{verdict}</td><td>{escape(claim["source"])}</td></tr>'
    )


def _shortfalls(summary: Summary) -> str:
    rows = [
        f'<tr><td class="s">{_link(r)}, {s["cell"]}</td><th scope="row">{escape(s["name"])}</th>'
        f'<td>{number(s["asked"]):g}</td><td><data value="{s["reached"]}">{number(s["reached"]):.6g}</data></td>'
        f"<td>{escape(s['reason'])}</td></tr>"
        for r in summary.notebooks
        for s in r.shortfalls
    ]
    heads = ["Notebook, cell", "Figure", "Asked", "Reached", "Reason"]
    text = "What falls short of its paper's figure, or of what was asked; it fails no run."
    return "<h2>Shortfalls</h2>\n" + (_table(text, heads, rows) if rows else "<p>None recorded.</p>\n")


def _environment(summary: Summary) -> str:
    """Versions once, then the parameters of each notebook."""
    machine = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in summary.environment.items())
    used = "".join(
        f"<dt>{_link(r)}</dt><dd>{escape(', '.join(f'{k} = {json.dumps(v)}' for k, v in r.parameters.items()))}</dd>"
        for r in summary.notebooks
    )
    return f"<h2>Parameters</h2>\n<dl>{used}</dl>\n<h2>Versions and machine</h2>\n<dl>{machine}</dl>\n"


def _table(caption: str, heads: list[str], rows: list[str], foot: str = "") -> str:
    numeric = {"Seconds", "CPU seconds", "Peak MB", "Claims that hold", "Shortfalls", "Cell"}
    head = "".join(f'<th scope="col"{" class=n" if text in numeric else ""}>{text}</th>' for text in heads)
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n{foot}</table></div>\n"
    )


def _link(result: Result) -> str:
    return f'<a href="{escape(result.html)}">{result.name}</a>' if result.html else result.name


def _bad(bad: bool) -> str:
    return ' class="bad"' if bad else ""
