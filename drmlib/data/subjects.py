"""Photographed people: which subjects, which of their frames, which part of a frame.

A model is not tested on a face that it has been trained on: gaze and head-pose sets are split by person.

    groups = split_subjects(BIWI_SUBJECTS, 14, 3, 3, generator=generator)
    train, defender, test = (biwi(subjects=group) for group in groups)
"""

import math
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from drmlib.data.decode import BROKEN
from drmlib.data.packed import take

CHUNK, WORKERS = 256, 4  # frames resized before they are copied into the result; full-size frames held at a time


class Crop(Protocol):
    """What cuts the wanted part out of an RGB image: a Box, a face detector, any function."""

    def __call__(self, image: Image.Image, /) -> Image.Image: ...


class Box(NamedTuple):
    """A part of an image, in fractions of its width and height from the upper left corner; a Crop."""

    left: float
    top: float
    right: float
    bottom: float

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        edges = (self.left * width, self.top * height, self.right * width, self.bottom * height)
        return image.crop(tuple(round(edge) for edge in edges))  # type: ignore[arg-type]

    def least_image(self, size: int) -> tuple[int, int]:
        """Width and height that an image must have for this part of it to be size x size."""
        return math.ceil(size / (self.right - self.left)), math.ceil(size / (self.bottom - self.top))


def split_subjects(names: Sequence[str], *counts: int, generator: Generator) -> tuple[tuple[str, ...], ...]:
    """Disjoint random groups of the given numbers of subjects, in one draw; who is left over is in none."""
    if not counts or min(counts) < 1 or sum(counts) > len(names):
        raise ValueError(f"expected counts of at least 1 that sum to at most {len(names)} subjects, got {counts}")
    order = torch.randperm(len(names), generator=generator, device=generator.device)
    return tuple(tuple(sorted(names[i] for i in part.tolist())) for part in order[: sum(counts)].split(list(counts)))


def choose_subjects(
    asked: Sequence[str] | None, *, known: Sequence[str], there: Collection[str], where: Path, page: str
) -> tuple[str, ...]:
    """The subjects asked for, all known ones if None. Raises if one is unknown, named twice or not `there`."""
    names = tuple(known if asked is None else asked)
    unknown = [name for name in names if name not in known]
    if isinstance(asked, str) or not names or unknown or len(set(names)) < len(names):
        raise ValueError(
            f"expected subjects= a sequence of different names out of {known[0]} .. {known[-1]}, got {asked!r}"
        )
    missing = [name for name in names if name not in there]
    if missing:
        found = ", ".join(name for name in known if name in there) or "no subject"
        raise FileNotFoundError(
            f"{where} lacks {', '.join(missing)}; it has {found}. Unpack the whole set from {page}, or name in "
            "subjects= those that are there"
        )
    return names


def spread(counts: Sequence[int], limit: int | None, where: object) -> list[np.ndarray]:
    """Indices of each subject's frames: all of its counts[k], or evenly spread ones, `limit` shared among all.

    Subjects have as equal a part of the limit as their counts allow. Raises ValueError as packed.take does.
    """
    take(limit, sum(counts), where)
    if limit is None:
        return [np.arange(count) for count in counts]
    rank = np.concatenate([np.arange(count) for count in counts])
    owner = np.repeat(np.arange(len(counts)), counts)
    shares = np.bincount(owner[np.lexsort((owner, rank))[:limit]], minlength=len(counts))
    # the middle of each of `share` equal stretches: no two alike, since share <= count
    return [(2 * np.arange(s) + 1) * count // max(2 * s, 1) for s, count in zip(shares, counts, strict=True)]


def as_crop(crop: Crop | tuple[float, float, float, float]) -> Crop:
    """A Crop of a Box, of four plain fractions, or the callable itself. Raises ValueError if a box is empty."""
    if not isinstance(crop, tuple):
        return crop
    box = Box(*crop) if len(crop) == 4 else Box(0, 0, 0, 0)
    if not (0 <= box.left < box.right <= 1 and 0 <= box.top < box.bottom <= 1):
        raise ValueError(f"expected crop= (left, top, right, bottom) as rising fractions from 0 to 1, got {crop}")
    return box


def read_images(frames: Sequence[tuple[Path, Crop]], *, size: int) -> Tensor:
    """RGB images uint8 (n, 3, size, size), each cropped and resized as it is read; holds a few full-size frames.

    Raises ValueError naming the file that does not decode.
    """
    images = torch.empty(len(frames), 3, size, size, dtype=torch.uint8)
    with ThreadPoolExecutor(WORKERS) as pool:
        for start in range(0, len(frames), CHUNK):
            arrays = list(pool.map(partial(_read_image, size=size), frames[start : start + CHUNK]))
            images[start : start + len(arrays)] = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    return images


def resized(image: Image.Image, size: int) -> np.ndarray:
    """uint8 (size, size, 3); Pillow averages where it shrinks."""
    same = image.size == (size, size)
    return np.asarray(image if same else image.resize((size, size), Image.Resampling.BILINEAR))


def _read_image(frame: tuple[Path, Crop], size: int) -> np.ndarray:
    path, crop = frame
    try:
        with Image.open(path) as image:
            if isinstance(crop, Box):  # a JPEG decodes at 1/2, 1/4 or 1/8, where that is still large enough
                image.draft("RGB", crop.least_image(size))
            rgb = image.convert("RGB")
    except BROKEN as error:
        raise ValueError(
            f"{path} does not decode as an image ({type(error).__name__}: {error}); unpack it again"
        ) from error
    return resized(crop(rgb), size)
