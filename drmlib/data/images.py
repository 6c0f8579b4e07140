"""Classification image sets: CIFAR-10 and CIFAR-100, GTSRB, Fashion-MNIST, a folder of images, a packed .npz.

Krizhevsky (2009), "Learning multiple layers of features from tiny images"; Stallkamp et al. (2012), "Man vs. computer:
benchmarking machine learning algorithms for traffic sign recognition"; Xiao et al. (2017), "Fashion-MNIST: a novel
image dataset for benchmarking machine learning algorithms".

All return uint8 images in main memory; `.to(device)` is the caller's. The named sets stand in `folder`, else in the
folder that the environment variable DRMLIB_DATA names, as torchvision lays them out; nothing is fetched unless
download=True. limit takes a class-balanced part, class after class in turn; without it the order is the set's own.
Note that the official CIFAR files are pickles: torchvision reads them, once their MD5 is that of the original.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from drmlib.data import places
from drmlib.data.dataset import Dataset, Task
from drmlib.data.decode import decode, read_files
from drmlib.data.packed import packed as packed
from drmlib.data.packed import take
from drmlib.data.places import Folder
from drmlib.data.places import available as available
from drmlib.data.torchvision_compat import load_torchvision

Split = Literal["train", "test"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
GTSRB_SIGNS = tuple(
    """limit 20, limit 30, limit 50, limit 60, limit 70, limit 80, end of limit 80, limit 100, limit 120, no overtaking,
    no overtaking by lorries, priority at crossing, priority road, yield, stop, no vehicles, no lorries, no entry,
    caution, bend left, bend right, double bend, uneven road, slippery road, road narrows, road works, traffic lights,
    pedestrians, children, bicycles, ice or snow, wild animals, end of limits, turn right, turn left, ahead only,
    ahead or right, ahead or left, keep right, keep left, roundabout, end of no overtaking,
    end of no overtaking by lorries""".replace("\n   ", "").split(", ")
)


def cifar10(split: Split, *, folder: Folder | None = None, limit: int | None = None, download: bool = False) -> Dataset:
    """CIFAR-10, 32 x 32, 10 classes, 50,000 or 10,000 images; torchvision's files, else a packed cifar10_<split>.npz.

    Raises FileNotFoundError if neither is there, ValueError if what is there is damaged; so do the other named sets.
    """
    found = places.find("cifar10", split, folder=folder, download=download)
    if found.path.suffix == ".npz":
        dataset = packed(found.path, limit=limit)
        return replace(dataset, task=Task(found.title, dataset.task.outputs))
    reader = load_torchvision().datasets.CIFAR10
    return _read(partial(reader, found.root, train=split == "train", download=download), found, limit)


def cifar100(
    split: Split, *, folder: Folder | None = None, limit: int | None = None, download: bool = False
) -> Dataset:
    """CIFAR-100, 32 x 32, 100 fine classes, 50,000 or 10,000 images."""
    found = places.find("cifar100", split, folder=folder, download=download)
    reader = load_torchvision().datasets.CIFAR100
    return _read(partial(reader, found.root, train=split == "train", download=download), found, limit)


def fashion_mnist(
    split: Split, *, folder: Folder | None = None, limit: int | None = None, download: bool = False
) -> Dataset:
    """Fashion-MNIST, 28 x 28 and one channel, 10 classes, 60,000 or 10,000 images."""
    found = places.find("fashion_mnist", split, folder=folder, download=download)
    reader = load_torchvision().datasets.FashionMNIST
    return _read(partial(reader, found.root, train=split == "train", download=download), found, limit)


def gtsrb(
    split: Split, *, size: int = 32, folder: Folder | None = None, limit: int | None = None, download: bool = False
) -> Dataset:
    """GTSRB resized to size x size, 43 unequal classes, 26,640 or 12,630 images (torchvision's archives).

    Training images are 30 frames a sign; they stand nearest frame first, so that a limit spreads over the signs.
    """
    found = places.find("gtsrb", split, folder=folder, download=download)
    if download:
        load_torchvision().datasets.GTSRB(found.root, split=split, download=True)
    files, labels = _gtsrb_train(found.path) if split == "train" else _gtsrb_test(found.path)
    return _decoded(files, labels, Task("GTSRB", GTSRB_SIGNS), size, limit, found.path)


def image_folder(folder: Folder, *, size: int, limit: int | None = None) -> Dataset:
    """Images of `folder` resized to size x size; each sub-folder is a class, in the order of their names.

    Raises FileNotFoundError if there is no such folder, ValueError if a class is empty or a file does not decode.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder {root}; give one with a sub-folder of images for each class, or use {places.EMBEDDED}"
        )
    files = _class_files(root)
    labels = np.repeat(np.arange(len(files)), [len(paths) for paths in files.values()])
    return _decoded(list(chain(*files.values())), labels, Task("image folder", tuple(files)), size, limit, root)


def _read(reader: Callable[[], Any], found: places.Found, limit: int | None) -> Dataset:
    """Dataset of a torchvision set that keeps all its images in `.data` and its labels in `.targets`."""
    try:
        source = reader()
    except (RuntimeError, AssertionError, ValueError, EOFError, FileNotFoundError) as error:
        raise ValueError(
            f"{found.title} in {found.path} does not read ({type(error).__name__}: {error}); "
            f"delete that folder and fetch it again with {found.recipe}"
        ) from error
    labels = np.asarray(source.targets)
    index = _balanced(labels, limit, found.path)
    images = np.asarray(source.data)[index]
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    task = Task(found.title, tuple(source.classes))
    return Dataset(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels[index]).long(), task)


def _decoded(
    files: Sequence[Path], labels: np.ndarray, task: Task, size: int, limit: int | None, where: Path
) -> Dataset:
    index = _balanced(labels, limit, where)
    images = decode(read_files(files[i] for i in index), len(index), size=size)
    return Dataset(images, torch.from_numpy(labels[index]).long(), task)


def _balanced(labels: np.ndarray, limit: int | None, where: Path) -> np.ndarray:
    """Indices of all samples in order, or of `limit` of them: the first of each class, the second of each class, ..."""
    if limit is None:
        return np.arange(len(labels))
    take(limit, len(labels), where)
    by_class = labels.argsort(kind="stable")
    start = np.searchsorted(labels[by_class], labels[by_class])  # where the sample's class begins
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - start
    return np.lexsort((labels, rank))[:limit]


def _class_files(root: Path) -> dict[str, list[Path]]:
    """Image files of each sub-folder, both in the order of their names."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = {f.name: sorted(p for p in f.rglob("*") if p.suffix.lower() in SUFFIXES) for f in folders}
    empty = [name for name, paths in files.items() if not paths]
    if empty or not files:
        what = f"sub-folder {empty[0]} has none" if empty else "it has no sub-folders"
        raise ValueError(f"expected {root} to hold a sub-folder of images for each class, {what}")
    return files


def _gtsrb_train(place: Path) -> tuple[list[Path], np.ndarray]:
    files = _class_files(place)
    if len(files) != len(GTSRB_SIGNS):
        raise ValueError(f"expected {len(GTSRB_SIGNS)} classes in {place}, got {len(files)}; delete it and fetch again")
    # 00012_00029.ppm is frame 29 of sign 12, and the car comes nearer
    nearest = [sorted(paths, key=lambda p: p.stem.split("_")[::-1], reverse=True) for paths in files.values()]
    return list(chain(*nearest)), np.repeat(np.arange(len(files)), [len(paths) for paths in nearest])


def _gtsrb_test(place: Path) -> tuple[list[Path], np.ndarray]:
    table = place.parents[2] / "GT-final_test.csv"
    try:
        with open(table, newline="") as file:
            rows = [(place / r["Filename"], int(r["ClassId"])) for r in csv.DictReader(file, delimiter=";")]
        if not rows:
            raise ValueError("no rows")
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"expected the labels of {place} in {table}, columns Filename and ClassId separated by ';' "
            f"({type(error).__name__}: {error}); delete {place} and fetch it again"
        ) from error
    return [path for path, _ in rows], np.array([label for _, label in rows])
