"""Encoded images (JPEG, PNG, PPM, ...) to one uint8 tensor, a chunk at a time.

Pillow alone decodes, so that the same file gives the same pixels wherever torchvision's own decoder happens to load.
"""

import io
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CHUNK = 512  # images decoded before they are copied into the result
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)

Encoded = tuple[str, bytes]  # where it stands, for messages; and the file's bytes


def decode(files: Iterable[Encoded], n: int, *, size: int | None = None) -> Tensor:
    """RGB images uint8 (n, 3, h, w) of n encoded `files`; size resizes each to size x size, whatever its proportions.

    Holds the result and one chunk. Raises ValueError naming the file that does not decode, or, without size, whose
    height and width are not those of the first.
    """
    images = torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    done = 0
    with ThreadPoolExecutor() as pool:
        for chunk in _chunks(iter(files)):
            arrays = list(pool.map(partial(_decode_one, size=size), chunk))
            if done == 0:
                images = torch.empty(n, 3, *arrays[0].shape[:2], dtype=torch.uint8)
            _check_shapes(arrays, chunk, images)
            images[done : done + len(arrays)] = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
            done += len(arrays)
    if done != n:
        raise ValueError(f"expected {n} encoded images, got {done}")
    return images


def read_files(paths: Iterable[str | PathLike[str]]) -> Iterator[Encoded]:
    """Path and bytes of each file, one after the other."""
    for index, path in enumerate(paths):
        yield f"{path} (image {index})", Path(path).read_bytes()


def _chunks(files: Iterator[Encoded]) -> Iterator[list[Encoded]]:
    while chunk := list(islice(files, CHUNK)):
        yield chunk


def _decode_one(file: Encoded, size: int | None) -> np.ndarray:
    where, data = file
    try:
        with Image.open(io.BytesIO(data)) as image:
            rgb = image.convert("RGB")
            if size is not None and rgb.size != (size, size):
                rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)  # Pillow averages where it shrinks
            return np.asarray(rgb)
    except BROKEN as error:
        raise ValueError(
            f"{where} does not decode as an image ({type(error).__name__}: {error}); replace it, or leave it out"
        ) from error


def _check_shapes(arrays: list[np.ndarray], chunk: list[Encoded], images: Tensor) -> None:
    height, width = images.shape[2:]
    for array, (where, _) in zip(arrays, chunk, strict=True):
        if array.shape[:2] != (height, width):
            raise ValueError(
                f"expected images of {height} x {width} as the first, {where} is {array.shape[0]} x {array.shape[1]}; "
                "give size= to resize them all"
            )
