"""SHA-256 of things that determine trained weights: tensors, models, recipes, generators, and the code of functions.

Two things get one fingerprint only if training with them does the same: values bit by bit, functions by the source of
their module and of what it imports, notebook functions by their bytecode and the globals that they read. What cannot be
described this way is an error, since a wrong hit would be silent.
"""

import dataclasses
import dis
import enum
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from drmlib.lab import sources

Tokens = Iterator[bytes | memoryview]
_BY_REPR = (bool, int, float, complex, str, bytes, type(None), type(...), range, slice, Path, enum.Enum, np.generic)
_TORCH_BY_REPR = (torch.dtype, torch.device, torch.layout, torch.memory_format)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def fingerprint(*things: Any) -> tuple[str, tuple[Path, ...]]:
    """Hex SHA-256 of `things`, and the source files that went into it. Raises TypeError for what it cannot describe."""
    digest = hashlib.sha256()
    reader = _Reader()
    for token in reader.read(things):
        digest.update(len(token).to_bytes(8, "little"))
        digest.update(token)
    for file in sorted(reader.files):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest(), tuple(sorted(reader.files))


class _Reader:
    """Turns values into tokens; remembers the source files met, and functions and classes already read."""

    def __init__(self) -> None:
        self.files: set[Path] = set()
        self.seen: dict[int, Any] = {}  # by id, kept alive so that no id is used twice

    def read(self, value: Any) -> Tokens:
        yield f"{type(value).__module__}.{type(value).__qualname__}".encode()
        if isinstance(value, _BY_REPR + _TORCH_BY_REPR):
            yield repr(value).encode()
        elif isinstance(value, Tensor):
            yield from _tensor(value)
        elif isinstance(value, np.ndarray):
            yield from _tensor(torch.from_numpy(np.ascontiguousarray(value)))
        elif isinstance(value, Generator):
            yield from _tensor(value.get_state())
        elif isinstance(value, nn.Module):
            yield from self._model(value)
        elif isinstance(value, Mapping):
            yield from self._all(sorted(value.items(), key=repr))
        elif isinstance(value, set | frozenset):
            yield from self._all(sorted(value, key=repr))
        elif isinstance(value, tuple | list):
            yield from self._class(type(value))
            yield from self._all(value)
        else:
            yield from self._code(value)

    def _all(self, values: Iterable[Any]) -> Tokens:
        """How many, then each: without the number, ((1, 2), 3) would read like ((1, 2, 3),)."""
        listed = list(values)
        yield str(len(listed)).encode()
        for value in listed:
            yield from self.read(value)

    def _code(self, value: Any) -> Tokens:
        if isinstance(value, ModuleType):
            yield from self._module(value.__name__)
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, partial):
            yield from self._all((value.func, value.args, value.keywords))
        elif isinstance(value, MethodType):
            yield from self._all((value.__self__, value.__func__))
        elif isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, BuiltinFunctionType):
            yield f"{value.__module__}.{value.__qualname__}".encode()
        else:
            yield from self._object(value)

    def _module(self, name: str) -> Tokens:
        """The name, the files behind it (hashed at the end, once), and the version if it is a library's."""
        yield name.encode()
        self.files.update(sources.closure(name))
        yield str(getattr(sys.modules.get(name.partition(".")[0]), "__version__", "")).encode()

    def _class(self, cls: type) -> Tokens:
        yield cls.__qualname__.encode()
        yield from self._module(cls.__module__)
        if cls.__module__ == "__main__" and self._is_new(cls):
            yield from self._all(cls.__bases__)
            inner = {k: _unwrapped(v) for k, v in vars(cls).items() if not k.startswith("__") or callable(v)}
            yield from self._all(item for item in inner.items() if isinstance(item[1], (FunctionType, *_BY_REPR)))

    def _function(self, function: FunctionType) -> Tokens:
        yield from self._module(function.__module__)
        yield f"{function.__qualname__}:{function.__code__.co_firstlineno}".encode()
        ours = function.__module__ == "__main__" or sources.closure(function.__module__)
        if not (ours and self._is_new(function)):
            return
        yield from self._all((function.__defaults__, function.__kwdefaults__))
        yield from self._all(cell.cell_contents for cell in function.__closure__ or ())
        if function.__module__ == "__main__":
            yield from self._bytecode(function.__code__)
            names = sorted(_globals_read(function.__code__) & function.__globals__.keys())
            yield from self._all((name, function.__globals__[name]) for name in names)

    def _model(self, model: nn.Module) -> Tokens:
        """Classes, settings and hooks of all layers; parameters and buffers, also those outside the state_dict."""
        for name, layer in model.named_modules():
            yield name.encode()
            yield from self._class(type(layer))
            settings = {k: v for k, v in vars(layer).items() if not k.startswith("_") and k != "training"}
            yield from self.read(settings)
            yield from self._all(tuple(vars(layer).get(hooks, {}).values()) for hooks in _HOOKS)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            yield f"{name} {tensor.requires_grad}".encode()
            yield from _tensor(tensor)

    def _object(self, value: Any) -> Tokens:
        if not (dataclasses.is_dataclass(value) or hasattr(value, "__dict__")):
            raise TypeError(
                f"expected numbers, tensors, functions or objects made of them, got {type(value).__qualname__}; "
                "the cache cannot tell what it does, call drmlib.training.fit.fit instead"
            )
        yield from self._class(type(value))
        if dataclasses.is_dataclass(value):
            yield from self.read({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
        elif self._is_new(value):
            yield from self.read(vars(value))

    def _bytecode(self, code: CodeType) -> Tokens:
        yield code.co_code
        yield from self.read(code.co_names)
        for constant in code.co_consts:
            yield from self._bytecode(constant) if isinstance(constant, CodeType) else self.read(constant)

    def _is_new(self, value: Any) -> bool:
        """Whether `value` is met for the first time: recursion ends at what was already read."""
        if id(value) in self.seen:
            return False
        self.seen[id(value)] = value
        return True


def _tensor(tensor: Tensor) -> Tokens:
    yield f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    flat = tensor.detach().cpu().contiguous().flatten()
    yield flat.view(torch.uint8).numpy().data


def _unwrapped(attribute: Any) -> Any:
    """The function inside a staticmethod, classmethod or property."""
    return getattr(attribute, "__func__", getattr(attribute, "fget", attribute))


def _globals_read(code: CodeType) -> set[str]:
    inner = [_globals_read(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}.union(*inner)
