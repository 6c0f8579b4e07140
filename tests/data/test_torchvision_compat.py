"""torchvision imports beside any torch, once asked for and not before. Each case runs in an interpreter of its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from drmlib.data import torchvision_compat
from drmlib.data.torchvision_compat import torchvision_state

ROOT = Path(__file__).parents[2]
GATE = "torchvision_compat.py"
USE = """
from torchvision import datasets, models
from torchvision.transforms import v2
assert v2.Resize(4)(torch.rand(3, 8, 8)).shape == (3, 4, 4)
assert datasets.CIFAR10.base_folder and models.resnet18(num_classes=2).eval()(torch.rand(1, 3, 32, 32)).shape == (1, 2)
"""


def python(code: str) -> str:
    """What `code` prints in a fresh interpreter."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_datasets_transforms_and_models_work():
    python("import torch\nfrom drmlib.data.torchvision_compat import load_torchvision\nload_torchvision()" + USE)


def test_works_after_an_import_that_failed_or_succeeded_before_and_when_called_twice():
    python(
        "import torch\ntry:\n    import torchvision\nexcept RuntimeError:\n    pass\n"
        "from drmlib.data.torchvision_compat import load_torchvision\n"
        "assert load_torchvision() is load_torchvision()" + USE
    )


def test_leaves_operators_alone_that_somebody_declared_before():
    python(
        "import torch\nlib = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "if not hasattr(torch.ops.torchvision, 'nms'):\n"
        "    lib.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "from drmlib.data.torchvision_compat import load_torchvision\nload_torchvision()" + USE
    )


def test_declares_nothing_where_the_compiled_operators_load():
    """A stand-in for a matching build: loading the library is said to work, and nothing may then be declared."""
    python(
        "import torch, drmlib.data.torchvision_compat as compat\n"
        "torch.ops.load_library = lambda path: None\n"
        "assert compat._compiled_ops_load()\n"
        "try:\n    compat.load_torchvision()\nexcept Exception:\n    pass\n"
        "assert not compat._declared"
    )


def test_importing_the_package_does_not_import_torchvision():
    loaded = python("import sys, drmlib.data.images, drmlib.models.resnet\nprint('torchvision' in sys.modules)")
    assert loaded == "False"


def test_says_when_torchvision_is_not_installed():
    hide = (
        "import sys\nsys.modules['torchvision'] = None\nimport importlib.util as u\nu.find_spec = lambda name: None\n"
    )
    assert python(hide + "from drmlib.data.torchvision_compat import *\nprint(torchvision_state())") == "not installed"


def test_state_names_the_version_and_what_works():
    assert torchvision_state().split(": ")[1] in (
        "compiled ops loaded",
        "compiled ops cannot load beside this torch; datasets, transforms and models work",
    )


@pytest.mark.parametrize(
    "compiled, expected",
    [
        (True, "9.9: compiled ops loaded"),
        (False, "9.9: compiled ops cannot load beside this torch; datasets, transforms and models work"),
    ],
)
def test_state_tells_a_matching_build_from_another(monkeypatch, compiled, expected):
    monkeypatch.setattr(torchvision_compat, "version", lambda name: "9.9")
    monkeypatch.setattr(torchvision_compat, "load_torchvision", lambda: None)
    monkeypatch.setattr(torchvision_compat, "_compiled_ops_load", lambda: compiled)
    assert torchvision_state() == expected


def test_state_reports_a_torchvision_that_cannot_be_imported(monkeypatch):
    def broken():
        raise RuntimeError("no luck")

    monkeypatch.setattr(torchvision_compat, "version", lambda name: "9.9")
    monkeypatch.setattr(torchvision_compat, "load_torchvision", broken)
    assert torchvision_state() == "9.9: cannot be imported (RuntimeError: no luck)"


def importers(folder: Path) -> list[str]:
    """Files under `folder` that import torchvision."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [path.name for name in names if name.split(".")[0] == "torchvision"]
    return found


def test_no_other_file_imports_torchvision():
    assert importers(ROOT / "drmlib") == [GATE]


@pytest.mark.parametrize("line", ["import torchvision", "import torchvision.ops as o", "from torchvision import io"])
def test_the_check_sees_an_import(tmp_path, line):
    (tmp_path / "a.py").write_text(f"def f():\n    {line}\n")
    assert importers(tmp_path) == ["a.py"]
