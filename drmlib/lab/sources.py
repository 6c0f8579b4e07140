"""Which source files stand behind a module: itself and every module of ours that it imports, directly or not."""

import ast
import importlib.util
import os
import sysconfig
from functools import cache
from pathlib import Path

OURS = __name__.partition(".")[0]


@cache
def closure(module: str) -> tuple[Path, ...]:
    """Files of `module` and of all that it imports and that is not an installed library, sorted; empty for a library.

    Read from import statements, lazy ones included. A superset of what a function of `module` can reach.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = None if name in found else _our_file(name)
        if file is not None:
            found[name] = file
            waiting += _imports(file, name)
    return tuple(sorted(set(found.values())))


def changed_since(start: float, files: tuple[Path, ...]) -> list[Path]:
    """Files modified after `start` (seconds since the epoch): what a running process has loaded may be older."""
    return [file for file in files if file.stat().st_mtime > start]


def _our_file(module: str) -> Path | None:
    """The file of a module that is drmlib's or the user's own; None for libraries, built-ins and what is not found."""
    top = module.partition(".")[0]
    if top != OURS and _is_library(top):
        return None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a name that `from x import name` binds to something else than a module
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@cache
def _is_library(top: str) -> bool:
    """Whether the top-level module `top` is installed or built in; asked first, since find_spec imports parents."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return True
    origin = "" if spec is None else spec.origin or ""
    return not origin.endswith(".py") or any(origin.startswith(folder + os.sep) for folder in _library_folders())


@cache
def _library_folders() -> tuple[str, ...]:
    return tuple(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))


def _imports(file: Path, module: str) -> list[str]:
    """Names of modules that `file` imports; of `from a import b` both a and a.b, since b may be a module."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names
