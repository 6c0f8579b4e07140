"""The files of Pandora: sequences of one person each, with colour frames in RGB and angles in data.json.

The layout is that of the one public reader that could be found, not of the authors' description:
01/base_1_ID01/RGB/000012_RGB.png (000012.png will do), and data.json beside RGB, a list of frames with `frame_num` and
`orientation.euler`, degrees under the keys pitch, yaw and roll. The subject is the number after ID in the sequence's
name, else the name of the folder around it.

That reader found the keys misnamed: what stands under "roll" is a turn to the side, under "yaw" a nod and under
"pitch" a tilt. Its signs, carried over from the way in which it reads AFLW2000, give AXES. Angles are taken as they
stand, though the order in which they are to be composed may differ from ours: alike for one angle at a time.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drmlib.data import places

AXES = (("roll", 1), ("yaw", -1), ("pitch", 1))  # key and sign of our yaw, pitch and roll

Frame = tuple[Path, tuple[float, float, float]]  # image; yaw, pitch and roll in degrees


def sequences(place: Path) -> dict[str, list[Path]]:
    """Sequence folders of each subject, in the order of their names."""
    found: dict[str, list[Path]] = {}
    for folder in sorted(path.parent for depth in ("*/data.json", "*/*/data.json") for path in place.glob(depth)):
        found.setdefault(_subject(folder), []).append(folder)
    if not found:
        raise FileNotFoundError(
            f"expected folders such as 01/base_1_ID01 with data.json and RGB in {place}, found no data.json; unpack "
            f"the set from {places.LICENSED['pandora'].page}"
        )
    return found


def frames(folder: Path, *, axes: Sequence[tuple[str, int]] = AXES) -> list[Frame]:
    """Frames of a sequence in order. Raises if an image has no angles, a frame no image, or an angle is no number."""
    if (
        len(axes) != 3
        or {key for key, _ in axes} != {"pitch", "yaw", "roll"}
        or any(abs(sign) != 1 for _, sign in axes)
    ):
        raise ValueError(f"expected axes= a key and a sign for yaw, pitch and roll in turn, as {AXES}, got {axes}")
    images = {path.name: path for path in (folder / "RGB").glob("*.png")}
    result: list[Frame] = []
    for number, euler in sorted(_read_rows(folder / "data.json")):
        names = [name for name in (f"{number:06d}_RGB.png", f"{number:06d}.png") if name in images]
        if not names:
            raise FileNotFoundError(
                f"{folder / 'data.json'} has frame {number}, but there is no {folder / 'RGB'}/{number:06d}_RGB.png; "
                f"unpack the sequence again from {places.LICENSED['pandora'].page}"
            )
        yaw, pitch, roll = (sign * euler[key] for key, sign in axes)
        result.append((images.pop(names[0]), (yaw, pitch, roll)))
    if images or not result:
        what = f"none for {min(images)}" if images else "no frame"
        raise ValueError(f"expected angles for each image of {folder / 'RGB'} in {folder / 'data.json'}, got {what}")
    return result


def _subject(folder: Path) -> str:
    match = re.search(r"ID(\d+)$", folder.name) or re.fullmatch(r"(\d+)", folder.parent.name)
    if match is None:
        raise ValueError(
            f"expected a sequence named as base_1_ID01, or one in a folder that is named as its subject, got {folder}"
        )
    return f"{int(match[1]):02d}"


def _read_rows(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Frame number, and degrees by key, of each entry."""
    try:
        rows: list[Any] = json.loads(path.read_text())
        return [(int(row["frame_num"]), _checked(row["orientation"]["euler"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"expected {path} to be a list of frames with frame_num and finite orientation.euler.pitch, .yaw and .roll "
            f"in degrees ({type(error).__name__}: {error}); unpack it again"
        ) from error


def _checked(euler: Any) -> dict[str, float]:
    degrees = {key: float(euler[key]) for key in ("pitch", "yaw", "roll")}
    if not all(math.isfinite(value) and abs(value) <= 360 for value in degrees.values()):
        raise ValueError(f"got {degrees}")
    return degrees
