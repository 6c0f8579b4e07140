"""Where the public sets stand: in the folder given, else in the one that the variable DRMLIB_DATA names."""

import os
from os import PathLike
from pathlib import Path
from typing import NamedTuple

Folder = str | PathLike[str]

EMBEDDED = "an embedded set that needs no files: dataset=signs"
EMBEDDED_FACES = "the embedded ones that need no files: gaze_faces and head_pose_faces of drmlib.data.faces"


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


class Licensed(NamedTuple):
    """A set that a person fetches, after accepting its terms: where it stands, the page that gives it, the terms."""

    title: str
    paths: tuple[str, ...]
    page: str
    terms: str


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

LICENSED = {
    "mpiifacegaze": Licensed(
        "MPIIFaceGaze (normalised)",
        ("MPIIFaceGaze_normalizad", "MPIIFaceGaze_normalized", "MPIIFaceGaze.h5"),
        "https://perceptualui.org/research/datasets/MPIIFaceGaze",
        "CC BY-NC-SA 4.0, for non-commercial scientific use",
    ),
    "columbia_gaze": Licensed(
        "Columbia Gaze",
        ("Columbia Gaze Data Set", "columbia_gaze_data_set/Columbia Gaze Data Set", "columbia_gaze_data_set"),
        "https://www.cs.columbia.edu/CAVE/databases/columbia_gaze/",
        "for non-commercial use",
    ),
    "biwi": Licensed(
        "Biwi Kinect Head Pose",
        ("hpdb", "kinect_head_pose_db/hpdb"),
        "https://data.vision.ee.ethz.ch/cvl/gfanelli/head_pose/head_forest.html#db",
        "for non-commercial use such as university research and education",
    ),
    "pandora": Licensed(
        "Pandora",
        ("Pandora", "pandora"),
        "https://aimagelab.ing.unimore.it/pandora/",
        "on request to its authors, for scientific use",
    ),
}


def available(*, folder: Folder | None = None) -> dict[str, str]:
    """For each named set the paths at which it was found, or "absent"; all absent where no folder is named."""
    named = _named(folder)
    found: dict[str, str] = {}
    for name, place in PLACES.items():
        candidates = [p for s in ("train", "test") for p in place.candidates(s, Path(named))] if named else []
        found[name] = _existing(candidates)
    for name, licensed in LICENSED.items():
        found[name] = _existing([Path(named) / path for path in licensed.paths] if named else [])
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


def find_licensed(name: str, *, folder: Folder | None) -> Path:
    """Where a set that nobody may fetch for you stands. Raises FileNotFoundError saying who gives it, on what terms."""
    licensed, named = LICENSED[name], _named(folder)
    source = f"get it from {licensed.page} ({licensed.terms}: accept the terms there) and unpack it"
    if not named:
        raise FileNotFoundError(
            f"no folder to look for {licensed.title} in: give folder= or set DRMLIB_DATA to the folder that holds "
            f"{licensed.paths[0]}; {source}, or use {EMBEDDED_FACES}"
        )
    candidates = [Path(named) / path for path in licensed.paths]
    there = [path for path in candidates if path.exists()]
    if not there:
        raise FileNotFoundError(
            f"no {licensed.title}: looked for {' and '.join(map(str, candidates))}; {source} as {candidates[0]}, "
            f"or use {EMBEDDED_FACES}"
        )
    return there[0]


def _existing(candidates: list[Path]) -> str:
    return ", ".join(dict.fromkeys(str(path) for path in candidates if path.exists())) or "absent"


def _named(folder: Folder | None) -> str:
    return os.fspath(folder) if folder is not None else os.environ.get("DRMLIB_DATA", "")


def _recipe(name: str, split: str, folder: str = "data") -> str:
    call = f"{name}({split!r}, folder={folder!r}, download=True)"
    return f'python -c "from drmlib.data.images import {name}; {call}"'
