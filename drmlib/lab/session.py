"""What the first cells of a notebook call: the device, a progress bar, and the one look-up of a name."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from IPython.core.getipython import get_ipython

T = TypeVar("T")


def device(name: str = "auto", *, double: bool = False) -> torch.device:
    """The device called `name`; "auto" is the first there is of cuda, mps and cpu.

    double: one that has float64, which mps has not and the oracles of data/functions.py need.
    """
    valid = [kind for kind in available_devices() if not (double and kind == "mps")]
    if name == "auto":
        return torch.device(valid[0])
    kind, _, index = name.partition(":")
    if kind not in valid or (index and not (kind == "cuda" and index in map(str, range(torch.cuda.device_count())))):
        raise ValueError(f"unknown device {name!r}; valid here: {', '.join(['auto', *valid])}")
    return torch.device(name)


def available_devices() -> list[str]:
    """Kinds of device on this machine, the fastest first."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, there in found.items() if there]


def progress(description: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """A wrapper of an iterable that shows a bar: a widget in JupyterLab, text on stderr where nobody is in front."""
    if has_front_end():
        from tqdm.auto import tqdm

        return partial(tqdm, desc=description)
    from tqdm import tqdm as text_bar

    return partial(text_bar, desc=description, file=sys.stderr, mininterval=0.5, ncols=70, ascii=True)


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """`table[name]`, or a ValueError that lists the valid names.

    The one place where a string selects a function: at the border, where a parameter comes from outside.
    """
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; valid: {', '.join(table)}")
    return table[name]


def has_front_end() -> bool:
    """Whether widgets would be seen: in an ipykernel that no headless runner has started."""
    shell = get_ipython()
    return not os.environ.get("DRMLIB_HEADLESS") and type(shell).__name__ == "ZMQInteractiveShell"
