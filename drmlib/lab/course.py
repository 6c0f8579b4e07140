"""The course map: which notebooks there are, in reading order. Reads JSON only: `drmlib list` answers at once."""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

PARTS = (("Start here", 0), ("Poisoning", 5), ("Detection", 12), ("Mitigation", 15), ("Together", 99))
NAME = re.compile(r"(\d\d)_[a-z0-9_]+\.ipynb")


class Notebook(NamedTuple):
    """One notebook of the course; `number` has two digits, `title` is its first heading without the number."""

    number: str
    path: Path
    title: str
    part: str

    @property
    def name(self) -> str:
        return self.path.stem


def folder() -> Path:
    """Where the notebooks are: DRMLIB_NOTEBOOKS, else ./notebooks, else those beside an editable install."""
    named = os.environ.get("DRMLIB_NOTEBOOKS")
    places = [Path(named)] if named else [Path("notebooks"), Path(__file__).parents[2] / "notebooks"]
    for place in places:
        if place.is_dir():
            return place.resolve()
    raise FileNotFoundError(
        f"no notebooks in {' or '.join(map(str, places))}; run from the repository, or set DRMLIB_NOTEBOOKS"
    )


def discover(place: Path | None = None) -> list[Notebook]:
    """The notebooks `NN_name.ipynb` of a folder, sorted by number; FileNotFoundError if there are none."""
    place = place or folder()
    paths = sorted(path for path in place.glob("*.ipynb") if NAME.fullmatch(path.name))
    if not paths:
        raise FileNotFoundError(f"no notebooks NN_name.ipynb in {place}")
    return [Notebook(path.name[:2], path, _title(path), part(int(path.name[:2]))) for path in paths]


def part(number: int) -> str:
    """The part of the course that a number belongs to."""
    return next(name for name, last in PARTS if number <= last)


def find(names: list[str], notebooks: list[Notebook]) -> list[Notebook]:
    """Those of `notebooks` that `names` mean ("2", "02", "02_gallery"), in reading order; all if no name is given."""
    chosen = [_one(name, notebooks) for name in names]
    return [notebook for notebook in notebooks if notebook in chosen or not names]


def _one(name: str, notebooks: list[Notebook]) -> Notebook:
    wanted = name.removesuffix(".ipynb")
    for notebook in notebooks:
        if wanted == notebook.name or wanted.zfill(2) == notebook.number:
            return notebook
    raise LookupError(f"unknown notebook {name!r}; valid: {', '.join(n.number for n in notebooks)}")


def _title(path: Path) -> str:
    cells: list[dict[str, Any]] = json.loads(path.read_bytes())["cells"]
    for cell in cells:
        heading = re.search(r"^# +(?:\d\d[ .:]+)?(.+)$", "".join(cell["source"]), re.MULTILINE)
        if cell["cell_type"] == "markdown" and heading:
            return heading[1].strip()
    return path.stem
