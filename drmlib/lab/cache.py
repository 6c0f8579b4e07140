"""A cache of trained models: a later notebook need not train what an earlier one did.

An entry is a folder named by the SHA-256 of all that determines the weights (fingerprint.py), holding
model.safetensors and entry.json. It is written beside and renamed, under a lock, so that two processes train once;
checksums notice an entry that was cut or changed, which is said and trained again. No pickle anywhere.
DRMLIB_CACHE names the folder; DRMLIB_CACHE=off trains every time.
"""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from filelock import AcquireReturnProxy, FileLock, Timeout
from torch import Generator, nn

from drmlib.data.dataset import Dataset
from drmlib.lab import entry as entries
from drmlib.lab import sources
from drmlib.lab.entry import warn
from drmlib.lab.fingerprint import fingerprint
from drmlib.training import fit as training
from drmlib.training.fit import History, Progress, Recipe

FORMAT = 2  # goes into every key: a change of layout makes old entries unreachable instead of unreadable


class Size(NamedTuple):
    """Number of entries and bytes of all files of a cache."""

    entries: int
    bytes: int


def cached_fit(
    model: nn.Module, dataset: Dataset, recipe: Recipe, *, generator: Generator, progress: Progress = iter
) -> History:
    """What `fit(model, dataset, recipe, ...)` returns and leaves behind, read from the cache if it was trained before.

    Bit-equal weights, eval mode, and `generator` moved on as training would have; History.seconds are those of the
    training that took place.
    """
    train = partial(training.fit, model, dataset, recipe, generator=generator, progress=progress)
    folder = location()
    if folder is None:
        return train()
    key, files = _key(model, dataset, recipe, generator)
    changed = sources.changed_since(psutil.Process().create_time(), files)
    if changed:
        warn(f"{changed[0].name} changed after this kernel started: training without the cache; restart the kernel")
        return train()
    # The layout in which fit leaves a model: its weights would be equal in another, its outputs to the last bit not.
    model.to(dataset.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _read_or_train(folder / key, model, generator, train)


def location() -> Path | None:
    """The cache folder: DRMLIB_CACHE, or ~/.cache/drmlib; None when it is switched off."""
    named = os.environ.get("DRMLIB_CACHE", "")
    if named.lower() == "off":
        return None
    return Path(named or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drmlib").expanduser()


def size(folder: Path) -> Size:
    """Entries and bytes of the cache in `folder`; zero if there is none."""
    ours = _ours(folder)
    files = [file for path in ours for file in ([path] if path.is_file() else path.rglob("*"))]
    return Size(sum((path / "entry.json").exists() for path in ours), sum(f.stat().st_size for f in files))


def clear(folder: Path) -> Size:
    """Removes all entries, and only what the cache itself has written; returns what was there."""
    before = size(folder)
    for path in _ours(folder):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return before


def _key(model: nn.Module, dataset: Dataset, recipe: Recipe, generator: Generator) -> tuple[str, tuple[Path, ...]]:
    surroundings = (FORMAT, str(torch.__version__), dataset.device.type, training)
    return fingerprint(surroundings, model, dataset.images, dataset.targets, recipe, generator)


def _read_or_train(entry: Path, model: nn.Module, generator: Generator, train: Callable[[], History]) -> History:
    history = entries.read(entry, model, generator)  # without the lock: a cache on a read-only disk serves too
    if history is not None:
        return history
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(entry)
    except OSError as error:
        warn(f"cannot use the cache {entry.parent} ({error.strerror or error}): training without it")
        return train()
    with lock:
        history = entries.read(entry, model, generator)  # another process may have trained it while we waited
        if history is None:
            history = train()
            entries.write(entry, model, generator, history)
    return history


def _locked(entry: Path) -> AcquireReturnProxy:
    """A lock for one entry, held when this returns; says so if another process has it."""
    lock = FileLock(entry.with_suffix(".lock"))
    try:
        return lock.acquire(timeout=1)
    except Timeout:
        warn(f"another process is training model {entry.name[:12]}: waiting for it")
        return lock.acquire(poll_interval=0.25)  # seconds: who waits for a training leaves the core to it


def _ours(folder: Path) -> list[Path]:
    """What the cache has written: <64 hex digits>, with .lock or .tmp-... behind."""
    named = folder.iterdir() if folder.is_dir() else ()
    hexadecimal = set("0123456789abcdef")
    return [p for p in named if len(p.name.partition(".")[0]) == 64 and set(p.name.partition(".")[0]) <= hexadecimal]
