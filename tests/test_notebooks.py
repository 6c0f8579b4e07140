"""The committed notebooks keep the rules of notebook_rules.py, and each rule is seen to notice its breakage."""

import re
from pathlib import Path

import nbformat
import pytest

from drmlib.lab import course, records
from tests import notebook_rules as rules
from tests.budgets import BUDGETS
from tests.lab import notebooks as small

FOLDER = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks_and_their_names_are_those_of_the_course():
    assert PATHS, f"no notebooks in {FOLDER}"
    assert [path for path in PATHS if not course.NAME.fullmatch(path.name)] == []
    assert len({path.name[:2] for path in PATHS}) == len(PATHS), "two notebooks of one number"
    assert sorted(BUDGETS) == [path.name[:2] for path in PATHS], "tests/budgets.py has a line for each notebook"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebook_keeps_the_rules(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    broken = [text for rule in rules.RULES for text in rule(notebook, path)]
    broken += rules.run_time(notebook, path, BUDGETS[path.name[:2]])
    assert not broken, "\n".join(["", *broken])


CLAIM = {"name": "rate", "value": 0.9, "low": None, "high": None, "n": None, "at_least": 0.5, "at_most": None}


def display(data, **metadata):
    return nbformat.v4.new_output("display_data", data, metadata=metadata)


@pytest.fixture
def good(tmp_path):
    """A notebook as `drmlib refresh` would store it, and its path."""
    path = small.write(tmp_path / "01_a.ipynb", *["x = 1"] * 5)
    notebook = nbformat.read(path, as_version=4)
    claim = display({"text/plain": "holds", records.CLAIM: {**CLAIM, "source": "s", "holds": True}})
    about = {records.FIGURE: {"caption": "Seen", "alt": "a line", "key": False}}
    picture = display({"image/png": "iVBORw0K", "text/plain": "Figure: Seen"}, **about)
    text = nbformat.v4.new_output("stream", name="stdout", text="1\n")
    for number, cell in enumerate(notebook.cells[1:], 1):
        cell.execution_count = number
    for cell, output in zip(notebook.cells[3:], [claim, picture, text, text], strict=True):
        cell.outputs = [output]
    notebook.metadata["drmlib"] = {"steps": 200, "peak_mb": 500}
    return notebook, path


def complaints(notebook, path):
    nbformat.write(notebook, path)
    return [text for rule in (*rules.RULES, rules.run_time) for text in rule(notebook, path)]


def test_a_good_notebook_has_no_complaints(good):
    assert complaints(*good) == []


def source(index, text):
    return lambda notebook: notebook.cells[index].update(source=text)


def prose(text):
    return lambda notebook: notebook.cells[0].update(source=text)


def tagged(index, *names):
    return lambda notebook: notebook.cells[index].metadata.update(tags=list(names))


def parameter(old, new):
    return lambda notebook: notebook.cells[1].update(source=re.sub(old, new, notebook.cells[1].source))


def failing(notebook):
    notebook.cells[3].outputs[0].data[records.CLAIM]["holds"] = False


@pytest.mark.parametrize(
    ("breakage", "complaint"),
    [
        (lambda n: n.metadata.kernelspec.update(name="venv"), "kernel 'venv'"),
        (tagged(1), "0 cells tagged parameters"),
        (tagged(2, "parameters"), "2 cells tagged parameters"),
        (parameter("seed: int = 0.*", ""), "parameter seed is missing"),
        (parameter(" # where all.*", ""), "parameter seed has no comment"),
        (parameter("seed: int", "seed"), "has other lines"),
        (parameter("rate: float", "rate: float | None"), "has other lines"),
        (parameter('"quick"', '"paper"'), "stored with profile 'paper'"),
        (parameter('= "gaze"', '= "mnist"'), "the default of dataset is not among its choices"),
        (lambda n: n.cells[4].update(execution_count=9), "execution counts"),
        (lambda n: n.cells[4].update(execution_count=None), "drmlib refresh 01"),
        (tagged(4, "nbval-ignore-output"), "3 cells with compared outputs"),
        (lambda n: n.cells[4].update(outputs=[]), "3 cells with compared outputs"),
        (lambda n: n.cells[6].outputs.append(nbformat.v4.new_output("error", ename="E", evalue="v")), "stored error E"),
        (source(2, f"x = '{'a' * 300_000}'"), "expected at most 300000"),
        (prose("# T\n[next](02_b.ipynb)"), "link to 02_b.ipynb"),
        (prose("# T\n![](01_a.ipynb)"), "image 01_a.ipynb without a text"),
        (tagged(4, "nbval-skip"), "tag nbval-skip"),
        (source(2, "open('/home/me/data')"), "absolute path near"),
        (lambda n: n.cells[5].outputs[0].update(text="saved to /tmp/x/y"), "absolute path near"),
        (lambda n: n.cells[4].outputs[0].update(metadata={}), "without a caption"),
        (lambda n: n.cells[4].outputs[0].data.update({"text/plain": "<Figure size>"}), "without a caption"),
        (lambda n: n.metadata.drmlib.update(steps=0), "stored CPU time 0 reference steps"),
        (lambda n: n.metadata.drmlib.update(steps=1001), "stored CPU time 1001 reference steps, expected 1 to 1000"),
        (lambda n: n.metadata.pop("drmlib"), "stored CPU time 0 reference steps"),
        (lambda n: n.metadata.drmlib.update(peak_mb=801), "stored peak memory 801 MB"),
        (lambda n: n.cells[3].outputs[0].data.pop(records.CLAIM), "no claim"),
        (failing, "stored claim FAILS: rate"),
        (source(2, "x = 1\n" * 116), "code lines beside imports, expected at most 115"),
        (source(2, "def f(): pass\n" * 3 + "class A: pass"), "4 definitions"),
        (prose("## T"), "0 headings of level 1"),
        (prose("# T\n# U"), "2 headings of level 1"),
        (prose("## S\n# T"), "before all others"),
        (source(2, "import torch\nfrom drmlib import session"), "the first import is torch"),
        (source(2, "from torch import nn"), "the first import is torch"),
        (source(3, "def f():\n    import pandas"), "the first import is pandas"),
        (prose("# T\n### U"), "a heading of level 3 follows one of level 1"),
    ],
)
def test_each_rule_notices_its_breakage(good, breakage, complaint):
    notebook, path = good
    breakage(notebook)
    assert [text for text in complaints(notebook, path) if complaint in text]


def test_what_is_allowed_is_not_complained_of(good):
    notebook, path = good
    notebook.cells[
        0
    ].source = (
        "# T\n[self](01_a.ipynb#x) [paper](https://arxiv.org/abs/1708.06733) [up](#T)\n```\n# a comment\n```\n## S"
    )
    notebook.cells[2].source = "ratio = 1 / 2  # 1/tmp/2 is no path, nor is https://host/home/x"
    notebook.cells[3].source = "from drmlib.lab.claims import claim\nimport torch"
    assert complaints(notebook, path) == []
