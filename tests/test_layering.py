"""Imports go one way: metrics, rng < data < models < training < attacks < detection, inversion < mitigation < lab.

session and precision stand below all and are imported by lab alone: no kernel asks for threads or precision itself.

plots draws what metrics and data hold, and only lab and notebooks draw. Imports inside functions count.
"""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "drmlib"

BELOW_ATTACKS = {"metrics", "rng", "data", "models", "training"}
MAY_IMPORT = {
    "": {"session"},  # drmlib/__init__.py settles the threads
    "metrics": set(),
    "rng": set(),
    "session": set(),
    "precision": {"rng"},
    "data": {"metrics", "rng"},
    "models": {"metrics", "rng", "data"},  # data for what an image is (data/dataset.py); test below
    "training": BELOW_ATTACKS,
    "attacks": BELOW_ATTACKS | {"attacks"},
    "detection": BELOW_ATTACKS | {"attacks", "detection"},
    "inversion": BELOW_ATTACKS | {"attacks", "inversion"},
    "mitigation": BELOW_ATTACKS | {"attacks", "detection", "inversion", "mitigation"},
    "plots": {"metrics", "data"},
    "lab": BELOW_ATTACKS | {"attacks", "detection", "inversion", "mitigation", "plots", "session", "precision", "lab"},
}
ONLY_LAB = "IPython ipykernel ipywidgets papermill nbformat nbclient nbconvert jupyter tqdm click dask psutil".split()


def imported(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Full names of what `source`, the text of `module`, imports anywhere: "a.b" for `from a import b`."""
    names: list[str] = []
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{prefix}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            names += [a.value for a in node.args[:1] if isinstance(a, ast.Constant)] or ["<computed>"]
    return names


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What `source`, the text of `module` ("drmlib.data.faces"), imports and may not."""
    here = module.split(".")[1] if "." in module else ""
    wrong = []
    for name in imported(source, module, is_package=is_package):
        top, *rest = name.split(".")
        if top == "drmlib" and rest and rest[0] != "__version__":
            if rest[0] != here and rest[0] not in MAY_IMPORT.get(here, set()):
                wrong.append(f"{module} imports {name}; {here or 'drmlib'} stands below {rest[0]}")
            elif here == "models" and rest[0] == "data" and rest[1:2] != ["dataset"]:
                wrong.append(f"{module} imports {name}; of data a model may know dataset alone")
        elif top in ONLY_LAB and here not in ("lab", "session"):
            wrong.append(f"{module} imports {name}; only lab knows about notebooks and terminals")
        elif top == "matplotlib" and here not in ("plots", "lab"):
            wrong.append(f"{module} imports {name}; only plots and lab draw")
        elif top in ("notebooks", "tests", "benchmarks"):
            wrong.append(f"{module} imports {name}, which is not part of the package")
        elif name == "<computed>" and here != "lab":
            wrong.append(f"{module} computes the name of what it imports")
    return wrong


def modules() -> dict[str, Path]:
    """Dotted name and path of every file of drmlib."""
    paths = sorted(ROOT.rglob("*.py"))
    return {".".join(p.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module):
    path = modules()[module]
    assert violations(path.read_text(), module, is_package=path.name == "__init__.py") == []


def test_every_folder_has_its_place():
    assert {module.split(".")[1] for module in modules() if "." in module} <= set(MAY_IMPORT)


def test_no_two_files_import_each_other():
    known = modules()
    graph = {}
    for module, path in known.items():
        names = imported(path.read_text(), module, is_package=path.name == "__init__.py")
        targets = {name if name in known else name.rpartition(".")[0] for name in names}
        graph[module] = (targets & set(known)) - {module, "drmlib"}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, naming the files


@pytest.mark.parametrize(
    "module, source",
    [
        ("drmlib.metrics", "from drmlib import rng"),
        ("drmlib.rng", "import drmlib.metrics"),
        ("drmlib.data.faces", "from drmlib.models.small_cnn import SmallCNN"),
        ("drmlib.data.faces", "from ..models import small_cnn"),
        ("drmlib.data.faces", "from .. import models"),
        ("drmlib.data.faces", "import importlib\nimportlib.import_module('drmlib.lab.cache')"),
        ("drmlib.data.faces", "import importlib\nimportlib.import_module(name)"),
        ("drmlib.models.small_cnn", "from drmlib.data import faces"),
        ("drmlib.models.small_cnn", "from drmlib.training.fit import fit"),
        ("drmlib.training.fit", "def f():\n    from drmlib.attacks.poison import poison"),
        ("drmlib.attacks.badnets", "from drmlib.detection import strip"),
        ("drmlib.detection.strip", "from drmlib.inversion.drmguard import drmguard"),
        ("drmlib.inversion.drmguard", "from drmlib.detection.strip import strip"),
        ("drmlib.mitigation.unlearn", "from drmlib.lab import cache"),
        ("drmlib.mitigation.unlearn", "from drmlib.plots import masks"),
        ("drmlib.plots", "from drmlib.attacks import badnets"),
        ("drmlib.training.fit", "from tqdm.auto import tqdm"),
        ("drmlib.attacks.blend", "import matplotlib.pyplot as plt"),
        ("drmlib.lab.run", "import tests.problems"),
    ],
)
def test_the_check_catches(module, source):
    assert violations(source, module)


@pytest.mark.parametrize(
    "module, source",
    [
        ("drmlib.training.fit", "import torch\nfrom drmlib import rng\nfrom drmlib.data.dataset import Dataset"),
        ("drmlib.models.small_cnn", "from drmlib.data.dataset import as_float\nfrom drmlib.models.normalise import N"),
        ("drmlib.data.faces", "from . import raster\nfrom .dataset import Dataset\nfrom ..metrics import mean"),
        ("drmlib.mitigation.unlearn", "from drmlib.mitigation.fine_tune import fine_tune"),
        ("drmlib.plots", "import matplotlib.pyplot as plt\nfrom drmlib.metrics import Estimate"),
        ("drmlib.lab.cli", "from drmlib import __version__, plots\nimport papermill, click"),
    ],
)
def test_the_check_lets_pass(module, source):
    assert violations(source, module) == []


def test_the_check_catches_a_cycle(tmp_path, monkeypatch):
    (tmp_path / "drmlib" / "data").mkdir(parents=True)
    (tmp_path / "drmlib" / "data" / "a.py").write_text("from drmlib.data.b import x")
    (tmp_path / "drmlib" / "data" / "b.py").write_text("from drmlib.data.a import y")
    monkeypatch.setitem(globals(), "ROOT", tmp_path / "drmlib")
    with pytest.raises(graphlib.CycleError):
        test_no_two_files_import_each_other()
