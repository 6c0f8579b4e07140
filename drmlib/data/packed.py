"""Packed files: many encoded images in one .npz, so that a data set is one file to copy and to check.

Arrays: `jpeg` uint8, the encoded files back to back (any format that Pillow reads); `offset` integer (n + 1,), image i
is `jpeg[offset[i]:offset[i + 1]]`; `label` integer (n,); `classes` text (k,), the names in label order. Written with
numpy.savez or savez_compressed; nothing in it is pickled.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from os import PathLike
from pathlib import Path
from tokenize import TokenError
from typing import IO, NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch

from drmlib.data.dataset import Dataset, Task
from drmlib.data.decode import Encoded, decode

ARRAYS = ("jpeg", "offset", "label", "classes")
REMEDY = "copy or fetch the file again"
UNREADABLE = (BadZipFile, zlib.error, TokenError, OSError, EOFError, ValueError, KeyError, RuntimeError, MemoryError)


class _Index(NamedTuple):
    """All but the images themselves, as it stands in the file."""

    offset: np.ndarray
    label: np.ndarray
    classes: np.ndarray
    bytes: int


def packed(path: str | PathLike[str], *, size: int | None = None, limit: int | None = None) -> Dataset:
    """Dataset of the first `limit` images (all, if None) of the packed file `path`; uint8, resized if size is given.

    Raises FileNotFoundError if there is no such file, ValueError if it is truncated, inconsistent or does not decode.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no packed file {path}; give the path of an .npz with arrays {', '.join(ARRAYS)}")
    index = _read_index(path)
    _check_index(index, path)
    n = take(limit, len(index.label), path)
    images = decode(_files(path, index.offset[: n + 1].tolist()), n, size=size)
    labels = torch.from_numpy(index.label[:n].astype(np.int64))
    return Dataset(images, labels, Task("packed images", tuple(index.classes.tolist())))


def take(limit: int | None, n: int, where: object) -> int:
    """How many of n samples a limit leaves; n for None. Raises ValueError if there are not as many, or none asked."""
    if limit is not None and not 1 <= limit <= n:
        raise ValueError(f"expected limit from 1 to {n}, the number of images in {where}, got {limit}")
    return n if limit is None else limit


@contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    """Whatever numpy and zipfile raise inside, over damaged bytes, becomes one ValueError."""
    try:
        yield
    except UNREADABLE as error:
        raise ValueError(
            f"{path} does not read as a packed file, it may be truncated ({type(error).__name__}: {error}); {REMEDY}"
        ) from error


def _read_index(path: Path) -> _Index:
    with _damage_explained(path):
        with ZipFile(path) as archive:
            missing = [name for name in ARRAYS if f"{name}.npy" not in archive.namelist()]
            if missing:
                raise ValueError(f"no array {' nor '.join(missing)}; it has {', '.join(archive.namelist()) or 'none'}")
            with archive.open("jpeg.npy") as stream:
                count = _read_header(stream)
        with np.load(path, allow_pickle=False) as arrays:
            return _Index(arrays["offset"], arrays["label"], arrays["classes"], count)


def _read_header(stream: IO[bytes]) -> int:
    """Number of bytes in the array that `stream` is about to give; leaves it at the first."""
    is_first = np.lib.format.read_magic(stream) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype != np.uint8 or len(shape) != 1:
        raise ValueError(f"expected jpeg to be uint8 of one axis, got {dtype} {shape}")
    return shape[0]


def _check_index(index: _Index, path: Path) -> None:
    offset, label, classes, count = index
    for name, array, kinds in (("offset", offset, "iu"), ("label", label, "iu"), ("classes", classes, "U")):
        if array.ndim != 1 or array.dtype.kind not in kinds:
            wanted = "text" if kinds == "U" else "integers"
            raise ValueError(f"{path}: expected {name} to be {wanted} of one axis, got {array.dtype} {array.shape}")
    if len(label) == 0 or len(offset) != len(label) + 1:
        raise ValueError(f"{path}: expected one offset more than labels, got {len(offset)} and {len(label)}; {REMEDY}")
    offset = offset.astype(np.int64)
    falls = np.flatnonzero(np.diff(offset) <= 0)
    if len(falls) or offset[0] < 0:
        i = int(falls[0]) if len(falls) else 0
        raise ValueError(f"{path}: offsets do not increase at image {i}: {offset[i]}, {offset[i + 1]}; {REMEDY}")
    if offset[-1] > count:
        i = int(np.flatnonzero(offset[1:] > count)[0])
        raise ValueError(f"{path}: image {i} ends at byte {offset[i + 1]}, jpeg has {count} bytes; {REMEDY}")
    wrong = np.flatnonzero((label < 0) | (label >= len(classes)))
    if len(wrong):
        raise ValueError(f"{path}: image {wrong[0]} has label {label[wrong[0]]}, classes has {len(classes)}; {REMEDY}")


def _files(path: Path, offset: list[int]) -> Iterator[Encoded]:
    """Each image's place and bytes, read as it is asked for: the encoded set never lies in memory as a whole."""
    with _damage_explained(path), ZipFile(path) as archive, archive.open("jpeg.npy") as stream:
        _read_header(stream)
        stream.read(offset[0])
        for i, (start, end) in enumerate(pairwise(offset)):
            data = stream.read(end - start)
            if len(data) < end - start:
                raise EOFError(f"jpeg ends within image {i}")
            yield f"{path}: image {i}", data
