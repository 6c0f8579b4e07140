"""The files of the normalised MPIIFaceGaze, one subject after the other, one face at a time.

The release is a folder of p00.mat .. p14.mat in MATLAB 7.3, which is HDF5: Data/data (n, 3, 448, 448), levels 0 .. 255
as floats, and Data/label (n, 16). The other form is one MPIIFaceGaze.h5 as the project pytorch_mpiigaze writes it:
p00/image/0000 (448, 448, 3) bytes and p00/gaze/0000 (2,).

The release's page gives the steps by which each image was stored: RGB to BGR, a horizontal flip, a quarter turn. The
last two make a transposition, which HDF5 undoes in showing MATLAB's axes in reverse: only the channels are turned
round here. pytorch_mpiigaze keeps them as they were.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from drmlib.data import places
from drmlib.data.subjects import resized

CACHE = 1 << 27  # bytes of a file's decompressed chunks, which may hold more than one face


class Person(NamedTuple):
    """One subject's faces: image(i) as it stands in the file, blue first; gaze (n, 2) are theta and phi."""

    where: str
    gaze: np.ndarray
    image: Callable[[int], np.ndarray]


def people(place: Path) -> set[str]:
    """Names of the subjects that the folder, or the one file, holds."""
    if place.is_dir():
        return {path.stem for path in place.glob("*.mat")}
    with _opened(place) as file:
        return set(file)


@contextmanager
def open_person(place: Path, name: str) -> Iterator[Person]:
    """The subject's faces, read as they are asked for; whatever HDF5 raises becomes a ValueError naming the file."""
    path = place / f"{name}.mat" if place.is_dir() else place
    with _opened(path) as file:
        person = _of_mat(file, str(path)) if place.is_dir() else _of_h5(file[name], f"{path}: {name}")
        if person.gaze.shape[0] == 0 or not (np.abs(person.gaze) <= np.pi / 2).all():  # fails for nan too
            raise ValueError(f"{person.where}: expected gaze angles in radians within +-pi/2, none of them nan")
        yield person


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py  # one set needs it

    try:
        with h5py.File(path, "r", rdcc_nbytes=CACHE) as file:
            yield file
    except (OSError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        page = places.LICENSED["mpiifacegaze"].page
        raise ValueError(
            f"{path} does not read as MPIIFaceGaze in HDF5 ({type(error).__name__}: {error}); "
            f"unpack it again from {page}"
        ) from error


def _of_mat(file: Any, where: str) -> Person:
    data, label = file["Data/data"], file["Data/label"]
    if data.ndim != 4 or data.shape[1] != 3 or label.ndim != 2 or label.shape[1] < 2 or len(data) != len(label):
        raise ValueError(
            f"{where}: expected Data/data (n, 3, h, w) and Data/label (n, 16) as HDF5 shows them, got {data.shape} and "
            f"{label.shape}; take the file of the normalised release"
        )
    return Person(where, label[:, :2].astype(np.float64), lambda i: data[i].transpose(1, 2, 0))


def _of_h5(group: Any, where: str) -> Person:
    keys = sorted(group["gaze"])
    missing = [key for key in keys if key not in group["image"]]
    if missing or len(keys) != len(group["image"]):
        lost = f"{where}/image/{missing[0]}" if missing else f"the gaze of some of {where}/image"
        raise ValueError(f"expected an image for each gaze, {lost} is missing; make the file again")
    gaze = np.array([group["gaze"][key][()] for key in keys], dtype=np.float64).reshape(-1, 2)
    return Person(where, gaze, lambda i: group["image"][keys[i]][()])


def upright(bgr: np.ndarray, where: str, size: int) -> Tensor:
    """(3, size, size) RGB bytes of an image (h, w, 3) of levels 0 .. 255, which the release keeps as floats."""
    if bgr.ndim != 3 or bgr.shape[2] != 3 or not (bgr.min() >= 0 and 1 < bgr.max() <= 255):
        raise ValueError(
            f"{where}: expected an image (h, w, 3) of levels from 0 to 255, got {bgr.shape}, {bgr.min()} to {bgr.max()}"
        )
    rgb = np.ascontiguousarray(np.rint(bgr[:, :, ::-1]).astype(np.uint8))
    return torch.from_numpy(resized(Image.fromarray(rgb), size).copy()).permute(2, 0, 1)
