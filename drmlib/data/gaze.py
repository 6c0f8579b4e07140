"""Public gaze sets: MPIIFaceGaze (15 people at their laptops) and Columbia Gaze (56 people, a grid of targets).

Zhang, Sugano, Fritz, Bulling (2017), "It's written all over your face: full-face appearance-based gaze estimation",
https://arxiv.org/abs/1611.08860; Smith, Yin, Feiner, Nayar (2013), "Gaze locking: passive eye contact detection for
human-object interaction", https://doi.org/10.1145/2501988.2501994.

Both must be fetched by hand, since their terms must be accepted; they stand in `folder`, else in the folder that the
environment variable DRMLIB_DATA names. Images are uint8, targets (pitch, yaw) of metrics.gaze_direction in radians:
positive pitch looks up, positive yaw to the right in the image. limit takes frames evenly spread over each subject's,
as many of every subject; samples stand subject after subject. Splits: drmlib.data.subjects.split_subjects.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from drmlib.data import places
from drmlib.data.dataset import GAZE, Dataset
from drmlib.data.mpii_files import open_person, people, upright
from drmlib.data.places import Folder
from drmlib.data.subjects import Box, Crop, as_crop, choose_subjects, read_images, spread

MPIIFACEGAZE_SUBJECTS = tuple(f"p{k:02d}" for k in range(15))
COLUMBIA_SUBJECTS = tuple(f"{k:04d}" for k in range(1, 57))
# 2,400 pixels square. The eyes stand near (2245, 1624) and (2891, 1624) of 5184 x 3456, where public preprocessing
# cuts fixed eye boxes: ten pixels a millimetre, and the middle of the face 36 mm below the eyes.
COLUMBIA_FACE = Box(0.264, 0.229, 0.727, 0.924)

_COLUMBIA_NAME = re.compile(r"(\d{4})_\d+m_(-?\d+)P_(-?\d+)V_(-?\d+)H\.jpe?g", re.IGNORECASE)


def mpiifacegaze(
    *, folder: Folder | None = None, size: int = 224, subjects: Sequence[str] | None = None, limit: int | None = None
) -> Dataset:
    """Faces of the normalised MPIIFaceGaze, 3,000 of each of p00 .. p14, resized from 448 to `size`.

    Reads MPIIFaceGaze_normalizad/p00.mat .. (the release), else MPIIFaceGaze.h5 (pytorch_mpiigaze); see mpii_files.
    A label's first two values are theta = asin(-y) and phi = atan2(-x, -z) of the gaze in camera axes (x right, y
    down, z away from the camera): phi is positive to the left in the image. So (pitch, yaw) is (theta, -phi).

    Raises FileNotFoundError if the set or a subject is not there, ValueError if a file is damaged.
    """
    place = places.find_licensed("mpiifacegaze", folder=folder)
    page = places.LICENSED["mpiifacegaze"].page
    names = choose_subjects(subjects, known=MPIIFACEGAZE_SUBJECTS, there=people(place), where=place, page=page)
    gazes = []
    for name in names:
        with open_person(place, name) as person:
            gazes.append(person.gaze)
    picks = spread([len(gaze) for gaze in gazes], limit, place)
    images = torch.empty(sum(map(len, picks)), 3, size, size, dtype=torch.uint8)
    done = 0
    for name, pick in zip(names, picks, strict=True):
        with open_person(place, name) as person:
            for i in pick:
                images[done] = upright(person.image(i), f"{person.where}, face {i}", size)
                done += 1
    theta, phi = np.concatenate([gaze[pick] for gaze, pick in zip(gazes, picks, strict=True)]).T
    return Dataset(images, torch.from_numpy(np.stack([theta, -phi], axis=1)).float(), GAZE)


def columbia_gaze(
    *,
    folder: Folder | None = None,
    size: int = 224,
    subjects: Sequence[str] | None = None,
    limit: int | None = None,
    crop: Crop | tuple[float, float, float, float] = COLUMBIA_FACE,
) -> Dataset:
    """Photographs of Columbia Gaze, 105 of each of 0001 .. 0056: five head poses by 21 gaze directions.

    The angles stand in the name, in degrees: 0001_2m_-15P_10V_-5H.jpg is subject 0001 at two metres, head turned by
    P, gaze V up and H to the side. At 0V 0H all five heads look into the camera, so V and H are relative to the
    camera, as ours are. The page does not define the signs, and public readers differ. Taken here: positive H is to
    the right in the image (the subject's left), positive V up, so (pitch, yaw) is (V, H). A reader for cross-data-set
    work says so, and so do published counts of an iris tracker over the whole set: at H = 10 and 15 it moved right
    520 times and left 28 times, and it was found high in 69, 61 and 50 % of the photographs at V = 10, 0 and -10.

    crop cuts the face out of the upper body: fractions (left, top, right, bottom), or a callable that takes and
    returns a PIL image, as a face detector would (there is none here). The default is one square for all: faces are
    near its middle, not aligned. Raises as mpiifacegaze does, and ValueError for a name without angles.
    """
    place = places.find_licensed("columbia_gaze", folder=folder)
    there = [path.name for path in place.iterdir() if path.is_dir()]
    page = places.LICENSED["columbia_gaze"].page
    names = choose_subjects(subjects, known=COLUMBIA_SUBJECTS, there=there, where=place, page=page)
    files = [_photographs(place / name) for name in names]
    picks = spread([len(paths) for paths in files], limit, place)
    chosen = [paths[i] for paths, pick in zip(files, picks, strict=True) for i in pick]
    cut = as_crop(crop)
    targets = torch.deg2rad(torch.tensor([_columbia_angles(path) for path in chosen], dtype=torch.float32))
    return Dataset(read_images([(path, cut) for path in chosen], size=size), targets, GAZE)


def _photographs(folder: Path) -> list[Path]:
    """The subject's photographs in the order of their names, each name checked."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg") and p.name[0] != ".")
    if not paths:
        raise ValueError(f"expected photographs {folder.name}_2m_0P_0V_0H.jpg and so on in {folder}, got none")
    for path in paths:
        _columbia_angles(path)
    return paths


def _columbia_angles(path: Path) -> tuple[int, int]:
    """V and H in degrees."""
    match = _COLUMBIA_NAME.fullmatch(path.name)
    if match is None or match[1] != path.parent.name:
        raise ValueError(
            f"expected a name like {path.parent.name}_2m_-15P_10V_-5H.jpg, which gives the angles, got {path}; move it "
            "elsewhere if it is not of the set"
        )
    return int(match[3]), int(match[4])
