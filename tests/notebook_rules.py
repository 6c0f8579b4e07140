"""Rules that every committed notebook keeps; each returns what breaks it, in words, and has its breakage in a test."""

import ast
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from drmlib.lab import parameters, records

TAGS = {"parameters", "nbval-ignore-output", "exercise", "solution"}
REQUIRED = {"profile", "dataset", "seed", "device"}
LIMITS = {"compared": 4, "bytes": 300_000, "code": 115, "definitions": 3, "peak_mb": 800}
ABSOLUTE = re.compile(r"(?<![\w.:/<~])/(?:home|root|tmp|Users|usr|opt|var|mnt|work|srv)/|\b[A-Z]:\\\\?Users")
NO_CODE = re.compile(r"\s*(?:#.*)?$|import |from ")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def kernel(notebook: Any, path: Path) -> Iterator[str]:
    name = notebook.metadata.get("kernelspec", {}).get("name")
    if name != "python3":
        yield f"kernel {name!r}, expected 'python3'"


def parameters_cell(notebook: Any, path: Path) -> Iterator[str]:
    """One cell of annotated, commented literals, and papermill sees each of them."""
    cells = [cell for cell in code(notebook) if "parameters" in tags(cell)]
    if len(cells) != 1:
        yield f"{len(cells)} cells tagged parameters, expected one"
        return
    found = parameters.read(path)
    statements = ast.parse(cells[0].source).body
    written = [ast.unparse(s.target) for s in statements if isinstance(s, ast.AnnAssign)]
    if len(written) != len(statements) or written != list(found):
        yield f"the parameters cell has other lines than `name: type = literal  # meaning`; seen are {list(found)}"
    yield from (f"parameter {name} is missing" for name in REQUIRED - found.keys())
    yield from (f"parameter {p.name} has no comment that says what it is" for p in found.values() if not p.meaning)
    if "profile" in found and found["profile"].value != "quick":
        yield f"stored with profile {found['profile'].value!r}, expected 'quick'"
    wrong = [p.name for p in found.values() if parameters.invalid(p.value, p)]
    yield from (f"the default of {name} is not among its choices" for name in wrong)


def counts(notebook: Any, path: Path) -> Iterator[str]:
    found = [cell.execution_count for cell in code(notebook)]
    if found != list(range(1, len(found) + 1)):
        yield f"execution counts {found}, expected 1 to {len(found)}: run `drmlib refresh {path.name[:2]}`"


def compared(notebook: Any, path: Path) -> Iterator[str]:
    cells = [cell for cell in code(notebook) if cell.outputs and "nbval-ignore-output" not in tags(cell)]
    if len(cells) < LIMITS["compared"]:
        yield f"{len(cells)} cells with compared outputs, expected at least {LIMITS['compared']}"


def errors(notebook: Any, path: Path) -> Iterator[str]:
    yield from (f"stored error {o.ename}: {o.evalue}" for o in outputs(notebook) if o.output_type == "error")


def size(notebook: Any, path: Path) -> Iterator[str]:
    if path.stat().st_size > LIMITS["bytes"]:
        yield f"{path.stat().st_size} bytes, expected at most {LIMITS['bytes']}"


def links(notebook: Any, path: Path) -> Iterator[str]:
    for image, text, target in LINK.findall(prose(notebook)):
        if not re.match(r"[a-z]+:|#|attachment:", target) and not (path.parent / target.partition("#")[0]).exists():
            yield f"link to {target}, which does not exist"
        if image and not text.strip():
            yield f"image {target} without a text for who cannot see it"


def allowed_tags(notebook: Any, path: Path) -> Iterator[str]:
    found = {tag for cell in notebook.cells for tag in tags(cell)}
    yield from (f"tag {tag}, expected one of {sorted(TAGS)}" for tag in sorted(found - TAGS))


def absolute_paths(notebook: Any, path: Path) -> Iterator[str]:
    texts = [cell.source for cell in notebook.cells] + [
        text for output in outputs(notebook) for text in texts_of(output)
    ]
    yield from (
        f"absolute path near {text[max(0, m.start() - 20) : m.end() + 20]!r}"
        for text in texts
        if (m := ABSOLUTE.search(text))
    )


def captions(notebook: Any, path: Path) -> Iterator[str]:
    for output in outputs(notebook):
        about = output.get("metadata", {}).get(records.FIGURE, {})
        captioned = output.get("data", {}).get("text/plain") == f"Figure: {about.get('caption')}"
        if "image/png" in output.get("data", {}) and not (captioned and about.get("alt")):
            yield "a figure without a caption: show it with drmlib.lab.figures.show"


def run_time(notebook: Any, path: Path, budget: int = 1000) -> Iterator[str]:
    """`budget` is in reference steps of CPU time (drmlib/lab/reference.py), which mean the same on any machine."""
    found = notebook.metadata.get("drmlib", {})
    steps, peak = found.get("steps", 0), found.get("peak_mb", 0)
    if not 0 < steps <= budget:
        yield f"stored CPU time {steps} reference steps, expected 1 to {budget}: run `drmlib refresh {path.name[:2]}`"
    if not 0 < peak <= LIMITS["peak_mb"]:
        yield f"stored peak memory {peak} MB, expected 1 to {LIMITS['peak_mb']}"


def first_import(notebook: Any, path: Path) -> Iterator[str]:
    """drmlib settles the threads, which has an effect only before torch is loaded, by whatever imports it."""
    nodes = [node for cell in code(notebook) for node in sorted(imports(cell.source), key=lambda node: node.lineno)]
    for node in nodes[:1]:
        name = node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
        if name.partition(".")[0] != "drmlib":
            yield f"the first import is {name}, expected drmlib, which settles threads before torch is loaded"


def imports(source: str) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]


def claims(notebook: Any, path: Path) -> Iterator[str]:
    found = records.collect(notebook).claims
    if not found:
        yield "no claim, expected at least one"
    yield from (f"stored claim FAILS: {claim['name']}" for claim in found if not claim["holds"])


def length(notebook: Any, path: Path) -> Iterator[str]:
    sources = [cell.source for cell in code(notebook)]
    lines = [line for source in sources for line in source.splitlines() if not NO_CODE.match(line)]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    definitions = sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in nodes)
    if len(lines) > LIMITS["code"]:
        found = f"{len(lines)} code lines beside imports"
        yield f"{found}, expected at most {LIMITS['code']}: what is used twice belongs into drmlib"
    if definitions > LIMITS["definitions"]:
        yield f"{definitions} definitions, expected at most {LIMITS['definitions']}"


def headings(notebook: Any, path: Path) -> Iterator[str]:
    levels = [len(marks) for marks in re.findall(r"^(#{1,6}) ", without_code(prose(notebook)), re.MULTILINE)]
    if levels[:1] != [1] or levels.count(1) != 1:
        yield f"{levels.count(1)} headings of level 1, expected one, before all others"
    yield from (f"a heading of level {b} follows one of level {a}" for a, b in pairwise(levels) if b > a + 1)


Rule = Callable[[Any, Path], Iterator[str]]
RULES: tuple[Rule, ...] = (
    kernel,
    parameters_cell,
    counts,
    compared,
    errors,
    size,
    links,
    allowed_tags,
    absolute_paths,
    captions,
    claims,
    length,
    headings,
    first_import,
)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in code(notebook) for output in cell.outputs]


def texts_of(output: Any) -> list[str]:
    """Texts of one output that a reader sees; pictures are left out."""
    shown = [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    return [*shown, output.get("text", "")]


def prose(notebook: Any) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
