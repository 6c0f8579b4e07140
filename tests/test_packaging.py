"""What a fresh machine installs: pyproject, constraints, conda, Binder and the two commands say the same.

Conda and Docker cannot run everywhere, so environment.yml is checked against pyproject, whose pip path runs for real.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import drmlib
from tests.test_layering import imported

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {
    "jupyter-client": "jupyter_client",
    "torch": "pytorch-cpu",
    "matplotlib": "matplotlib-base",
}  # conda-forge's name where it differs from PyPI's
TARGETS = ("run", "test", "lab", "bench", "gpu", "lint")


def _requirements(*extras: str) -> dict[str, SpecifierSet]:
    lines = PROJECT["dependencies"] + [line for e in extras for line in PROJECT["optional-dependencies"][e]]
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r.specifier for r in requirements if r.name != "drmlib"}


def _conda() -> dict[str, SpecifierSet]:
    """Name and range of each line of environment.yml; conda's "=" pins a prefix, which is "==x.*" here."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    parsed = (re.fullmatch(r"([a-z0-9_.-]+?)\s*([<>=!].*)?", line) for line in environment["dependencies"])
    return {m[1]: SpecifierSet(re.sub(r"^=([\d.]+)$", r"==\1.*", m[2] or "")) for m in parsed}


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    matches = [re.fullmatch(r"([A-Za-z0-9_.-]+)==([0-9A-Za-z.]+)", line) for line in lines if not line.startswith("#")]
    assert all(matches), "constraints.txt holds name==version lines only: no hashes, markers or +cpu suffixes"
    return {canonicalize_name(m[1]): m[2] for m in matches}


@pytest.mark.parametrize("folder, extras", [("drmlib", ()), ("tests", ("test",)), ("benchmarks", ("test",))])
def test_what_is_imported_is_asked_for(folder, extras):
    """Through another package's dependencies it might vanish with that package's next release."""
    homes = importlib.metadata.packages_distributions()
    declared, missing = _requirements(*extras), set()
    for path in (ROOT / folder).rglob("*.py"):
        for name in {name.split(".")[0] for name in imported(path.read_text(), "x.y")}:
            homes_here = {canonicalize_name(home) for home in homes.get(name, [])} - {"drmlib"}
            if name not in sys.stdlib_module_names and homes_here and not homes_here & set(declared):
                missing.add(name)
    assert missing == set()


def test_conda_asks_for_what_pip_asks_for():
    pip = {CONDA_NAMES.get(name, name): specifier for name, specifier in _requirements().items()}
    conda = _conda()
    python, _ = conda.pop("python"), conda.pop("pip")
    assert conda == pip
    version = str(python).removeprefix("==").removesuffix(".*")
    assert version in SpecifierSet(PROJECT["requires-python"])


def test_binder_reads_python_from_the_environment():
    """repo2docker sees `python=3.12` and no other form; without it the image starts from an older Python."""
    assert re.search(r"^  - python=3\.\d+\b", (ROOT / "environment.yml").read_text(), re.MULTILINE)


def test_ranges_here_pins_there():
    assert not [line for line in PROJECT["dependencies"] if "==" in line]
    assert not [name for name, spec in _conda().items() if name != "python" and "==" in str(spec)]


def test_constraints_pin_every_dependency_within_its_range():
    pins = _pins()
    for name, specifier in _requirements("test").items():
        assert name in pins, f"{name} is not pinned in constraints.txt"
        assert pins[name] in specifier, f"constraints.txt pins {name} to {pins[name]}, pyproject asks for {specifier}"
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for requirement in map(Requirement, build):
        assert pins[requirement.name] in requirement.specifier


def test_what_is_installed_is_what_is_pinned():
    """Said by pip's own record, for whoever runs the tests through `make test`; other environments may differ."""
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("not the environment that the Makefile made")
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--all"], capture_output=True, text=True, check=True
    )
    installed = dict(line.split("==") for line in listed.stdout.splitlines() if re.fullmatch(r"[^@ ]+==[^@ ]+", line))
    pins = _pins()
    differing = {
        name: version
        for name, version in installed.items()
        if pins.get(canonicalize_name(name), version) != version.split("+")[0]
    }
    assert differing == {}


def test_binder_builds_from_the_same_environment():
    binder = ROOT / "binder" / "environment.yml"
    assert binder.read_text() == (ROOT / "environment.yml").read_text()


@pytest.mark.parametrize("script", ["binder/postBuild", "binder/start", ".ci/run"])
def test_scripts_are_executable_and_are_shell(script):
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert re.match(r"#!(/bin/bash|/usr/bin/env bash)\n", path.read_text())
    assert subprocess.run(["bash", "-n", path]).returncode == 0


def test_postbuild_installs_the_package_alone():
    lines = (ROOT / "binder/postBuild").read_text().splitlines()
    assert "set -e" in lines
    assert "pip install --no-deps --no-cache-dir -e ." in lines
    assert any("matplotlib" in line for line in lines), "the font cache is not warmed"


def test_start_hands_over_to_the_server():
    assert (ROOT / "binder/start").read_text().splitlines()[-1] == 'exec "$@"'


def test_ci_calls_make_test_and_installs_nothing():
    lines = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "set -euo pipefail" and lines[-1] == "make test" and len(lines) == 3
    assert lines[1].startswith("cd ")


def test_public_ci_covers_every_python_and_keeps_the_report():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert versions == [c.split()[-1] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.", c)]
    steps = [step.get("run") for job in workflow["jobs"].values() for step in job["steps"]]
    assert {"make lint", ".ci/run", "make run"} <= set(steps)
    assert all(step is None or "pip" not in step for step in steps), "what CI installs, the Makefile installs"


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_sets_itself_up_and_is_explained(target, tmp_path):
    """A dry run in a copy without .venv: the installation comes first, from the constraints, then the work."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}

    def make(*arguments: str) -> str:
        command = ["make", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    steps = make("-n", target)
    install = steps.index('-c constraints.txt -e ".[test]"')
    work = {
        "run": "drmlib run",
        "test": "--nbval",
        "lab": "jupyterlab",
        "bench": "-m benchmarks",
        "gpu": "-m benchmarks.accelerator",
        "lint": "ruff check",
    }
    assert install < steps.index(work[target])
    assert f"make {target}" in make(), "the default target explains the others"

    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    assert "pip install" not in make("-n", target), "a second call installs again"


def test_one_call_runs_units_and_notebooks():
    """Two calls would show two summaries, and the first failure would hide the second call."""
    recipe = re.search(r"^test:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert recipe.count("pytest") == 1
    assert {"tests", "notebooks", "--nbval"} <= set(recipe.split())


def test_a_missing_python_is_one_clear_line(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "run", "PYTHON=/nowhere/python3.9"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1 and "3.11, 3.12 or 3.13" in said[0] and "/nowhere/python3.9" in said[0]
    assert not (tmp_path / ".venv").exists()


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == drmlib.__version__
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT


def test_the_licence_is_the_one_named():
    assert PROJECT["license"] == yaml.safe_load((ROOT / "CITATION.cff").read_text())["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text


def test_the_command_line_exists():
    assert PROJECT["scripts"] == {"drmlib": "drmlib.lab.cli:main"}
    assert (ROOT / "drmlib/lab/cli.py").is_file()


@pytest.mark.skipif(shutil.which("repo2docker") is None, reason="repo2docker is not installed")
def test_binder_would_build_our_environment():
    command = ["repo2docker", "--no-build", "--debug", "."]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    said = result.stdout + result.stderr
    assert 'env update -p ${NB_PYTHON_PREFIX} --file "binder/environment.yml"' in said
    assert "RUN ./binder/postBuild" in said
    assert f"python={_conda_python()}" in said


def _conda_python() -> str:
    return str(_conda()["python"]).removeprefix("==").removesuffix(".*")
