"""Parameters of a notebook: read from its cell tagged `parameters`, and values from the command line checked by it.

A line of that cell says all there is to know:

    attack: str = "badnets"  # trigger stamped on the images; one of badnets, blend

A name `package.module.TABLE` in that list stands for the keys of the table.

papermill accepts a misspelt name with a log line, and turns `false` into the string "false"; hence these checks.
"""

import ast
import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from drmlib.lab.course import Notebook

CHOICES = re.compile(r"\bone of (?P<names>[\w.\-]+(?:(?:, ?| or )[\w.\-]+)*)$")


class Parameter(NamedTuple):
    """Name, annotation, default as written, meaning, and the valid values if the comment lists them."""

    name: str
    type: str
    default: str
    meaning: str
    choices: tuple[str, ...]

    @property
    def value(self) -> Any:
        return ast.literal_eval(self.default)


def read(path: Path) -> dict[str, Parameter]:
    """The parameters of the notebook at `path`, by name."""
    import nbformat
    import papermill

    inspected = papermill.inspect_notebook(nbformat.read(path, as_version=4))
    return {name: _parameter(**found) for name, found in inspected.items()}


def resolve(notebooks: Iterable[Notebook], assignments: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Parameters to inject for each notebook, by its name, from texts `name=value`.

    A value goes to every notebook that has the parameter; at least one must. Raises ValueError with the valid ones.
    """
    known = {notebook.name: read(notebook.path) for notebook in notebooks}
    given: dict[str, dict[str, Any]] = {name: {} for name in known}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        owners = [notebook for notebook, parameters in known.items() if name in parameters]
        if not equals or not owners:
            valid = dict.fromkeys(name for parameters in known.values() for name in parameters)
            problem = f"unknown parameter {name!r}" if equals else f"expected name=value, got {assignment!r}"
            raise ValueError(f"{problem}; valid: {', '.join(valid)}")
        for owner in owners:
            given[owner][name] = convert(text, known[owner][name])
    return given


def convert(text: str, parameter: Parameter) -> Any:
    """`text` as a value of the parameter's type; ValueError names the type or the valid values."""
    kind = parameter.type if parameter.type != "None" else type(parameter.value).__name__
    try:
        value = text if kind == "str" else _checked(yaml.safe_load(text), kind)
    except (ValueError, yaml.YAMLError):
        raise ValueError(f"parameter {parameter.name}: expected {kind}, got {text!r}") from None
    if wrong := invalid(value, parameter):
        raise ValueError(f"unknown {parameter.name} {wrong!r}; valid: {', '.join(parameter.choices)}")
    return value


def invalid(value: Any, parameter: Parameter) -> str:
    """The value, or the first element of a list, that is none of the parameter's choices; else ""."""
    values = value if isinstance(value, list) else [value]
    return next((str(v) for v in values if parameter.choices and str(v) not in parameter.choices), "")


def _checked(value: Any, kind: str) -> Any:
    """`value`, read from YAML, as `kind`: str, int, float, bool, or list[...] of these."""
    if kind.startswith("list") and isinstance(value, list):
        return [_checked(item, kind[5:-1] or "str") for item in value]
    if kind == "float" and not isinstance(value, bool | list | dict | None):
        return float(value)  # an int, or 1e-3, which YAML 1.1 reads as a string
    if type(value).__name__ != kind:
        raise ValueError(f"expected {kind}, got {value!r}")
    return value


def _parameter(name: str, inferred_type_name: str, default: str, help: str) -> Parameter:
    listed = CHOICES.search(help.strip().rstrip("."))
    written = re.split(r", ?| or ", listed["names"]) if listed else []
    choices = tuple(choice for name_ in written for choice in _named(name_))
    return Parameter(name, inferred_type_name, default, help.strip(), choices)


def _named(choice: str) -> list[str]:
    """The choice itself, or the keys of the table that it is the dotted name of."""
    module, _, table = choice.rpartition(".")
    return list(getattr(import_module(module), table)) if module.startswith("drmlib.") else [choice]
