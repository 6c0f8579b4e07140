"""Where the public image sets stand: in the folder given, else in the one that the variable DRMLIB_DATA names."""

import os
from os import PathLike
from pathlib import Path
from typing import NamedTuple

Folder = str | PathLike[str]

EMBEDDED = "an embedded set that needs no files: dataset=signs"


class Place(NamedTuple):
    """Where a set stands in the folder: what torchvision makes for each split, and perhaps a packed file."""

    title: str
    train: str
    test: str
    packed: str = ""

    def candidates(self, split: str, root: Path) -> list[Path]:
        """Paths at which the split may stand, the better one first."""
        unpacked = root / (self.train if split == "train" else self.test)
        return [unpacked, root / self.packed.format(split)] if self.packed else [unpacked]


class Found(NamedTuple):
    """The folder of all sets, the path in it where this one stands, its title and the shell line that fetches it."""

    root: Path
    path: Path
    title: str
    recipe: str


PLACES = {
    "cifar10": Place("CIFAR-10", "cifar-10-batches-py", "cifar-10-batches-py", "cifar10_{}.npz"),
    "cifar100": Place("CIFAR-100", "cifar-100-python", "cifar-100-python"),
    "fashion_mnist": Place("Fashion-MNIST", "FashionMNIST/raw", "FashionMNIST/raw"),
    "gtsrb": Place("GTSRB", "gtsrb/GTSRB/Training", "gtsrb/GTSRB/Final_Test/Images"),
}


def available(*, folder: Folder | None = None) -> dict[str, str]:
    """For each named set the paths at which it was found, or "absent"; all absent where no folder is named."""
    named = _named(folder)
    found: dict[str, str] = {}
    for name, place in PLACES.items():
        candidates = [p for s in ("train", "test") for p in place.candidates(s, Path(named))] if named else []
        found[name] = ", ".join(dict.fromkeys(str(p) for p in candidates if p.exists())) or "absent"
    return found


def find(name: str, split: str, *, folder: Folder | None, download: bool) -> Found:
    """Where a set stands, or will stand once it is fetched. Raises FileNotFoundError saying how to get it."""
    if split not in ("train", "test"):
        raise ValueError(f"expected split 'train' or 'test', got {split!r}")
    title, named = PLACES[name].title, _named(folder)
    if not named:
        raise FileNotFoundError(
            f"no folder to look for {title} in: give folder= or set DRMLIB_DATA (to fetch it: {_recipe(name, split)}), "
            f"or use {EMBEDDED}"
        )
    candidates = PLACES[name].candidates(split, Path(named))
    there = candidates[:1] if download else [path for path in candidates if path.exists()]
    if not there:
        raise FileNotFoundError(
            f"no {title} ({split}): looked for {' and '.join(map(str, candidates))}. "
            f"Fetch it with {_recipe(name, split, named)}, or use {EMBEDDED}"
        )
    return Found(Path(named), there[0], title, _recipe(name, split, named))


def _named(folder: Folder | None) -> str:
    return os.fspath(folder) if folder is not None else os.environ.get("DRMLIB_DATA", "")


def _recipe(name: str, split: str, folder: str = "data") -> str:
    call = f"{name}({split!r}, folder={folder!r}, download=True)"
    return f'python -c "from drmlib.data.images import {name}; {call}"'
