"""torchvision imports beside any torch, once asked for and not before. Each case runs in a process of its own."""

import ast
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch

from drmlib.data import torchvision_compat
from drmlib.data.torchvision_compat import load_torchvision, torchvision_state

ROOT = Path(__file__).parents[2]
GATE = "torchvision_compat.py"

# Each case finds torch imported and torchvision not. All run in one interpreter, which imports torch once, and each in
# a fork of it, so that none sees what another has imported or declared.
CASES = {
    "after an import that failed or succeeded": (
        "try:\n    import torchvision\nexcept RuntimeError:\n    pass\nassert load_torchvision() is load_torchvision()"
    ),
    "beside operators that somebody declared before": (
        "lib = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "if not hasattr(torch.ops.torchvision, 'nms'):\n"
        "    lib.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "load_torchvision()"
    ),
}
USE = """
import torch
from torchvision import datasets, models
from torchvision.transforms import v2
assert v2.Resize(4)(torch.rand(3, 8, 8)).shape == (3, 4, 4)
assert datasets.CIFAR10.base_folder and models.resnet18(num_classes=2).eval()(torch.rand(1, 3, 32, 32)).shape == (1, 2)
"""
INTERPRETER = """
import json, os, sys, traceback
import torch, drmlib.data.images, drmlib.models.resnet
from drmlib.data.torchvision_compat import load_torchvision
assert "torchvision" not in sys.modules, "importing the package imports torchvision"
ended = {}
for name, code in json.loads(sys.argv[1]).items():
    child = os.fork()
    if not child:
        try:
            exec(code)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    ended[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(ended))
"""


def run_cases(cases: dict[str, str]) -> tuple[dict[str, int], str]:
    """The exit status of each case, and what they said on stderr."""
    command = [sys.executable, "-c", INTERPRETER, json.dumps(cases)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), result.stderr


def test_datasets_transforms_and_models_work():
    load_torchvision()
    exec(USE, {})


def test_they_work_whatever_went_before_and_importing_drmlib_does_not_import_torchvision():
    """The last case is one that must fail, so that a case which cannot would be noticed."""
    cases = {name: code + USE for name, code in CASES.items()} | {"control": "raise RuntimeError('seen')"}
    ended, said = run_cases(cases)
    assert ended == dict.fromkeys(CASES, 0) | {"control": 1}, said
    assert "RuntimeError: seen" in said


@pytest.fixture
def stand_in(monkeypatch):
    """An empty torchvision that needs an operator which nobody has, and nothing declared so far."""
    module = ModuleType("torchvision")
    module.__spec__ = find_spec("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", module)
    monkeypatch.setattr(torchvision_compat, "NEEDED", ("an_operator_that_nobody_has",))
    monkeypatch.setattr(torchvision_compat, "_declared", [])


def test_declares_nothing_where_the_compiled_operators_load(monkeypatch, stand_in):
    """A matching build: loading the library is said to work, and nothing may then be declared."""
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    assert torchvision_compat._compiled_ops_load()
    torchvision_compat.load_torchvision()
    assert not torchvision_compat._declared


def test_declares_what_is_missing_where_they_do_not(monkeypatch, stand_in):
    """The second call finds it there."""
    monkeypatch.setattr(torchvision_compat, "_compiled_ops_load", lambda: False)
    torchvision_compat.load_torchvision()
    torchvision_compat.load_torchvision()
    assert len(torchvision_compat._declared) == 1


def test_says_when_torchvision_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert torchvision_state() == "not installed"


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
