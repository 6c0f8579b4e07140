"""Public head-pose sets: Biwi Kinect (20 people, 24 sequences) and Pandora (22 people in a driver's seat).

Fanelli, Dantone, Gall, Fossati, Van Gool (2013), "Random forests for real time 3D face analysis",
https://doi.org/10.1007/s11263-012-0549-0; Borghi, Venturelli, Vezzani, Cucchiara (2017), "POSEidon: face-from-depth for
driver pose estimation", https://arxiv.org/abs/1611.10195.

Both must be fetched by hand, since their terms must be accepted; they stand in `folder`, else in the folder that the
environment variable DRMLIB_DATA names. Images are uint8, targets (yaw, pitch, roll) of heads.rotation in radians:
positive yaw looks to the right in the image, positive pitch up, positive roll turns counter-clockwise. limit takes
frames evenly spread over each subject's, as many of every subject; samples stand subject after subject. Splits:
drmlib.data.subjects.split_subjects. Colour images only; depth is left out.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from drmlib.data import biwi_files, pandora_files, places
from drmlib.data.dataset import HEAD_POSE, Dataset
from drmlib.data.pandora_files import AXES
from drmlib.data.places import Folder
from drmlib.data.subjects import Box, Crop, as_crop, choose_subjects, read_images, spread

# who is seen in sequence 01, 02, .. as the loader of the Hugging Face hub has it: four people were recorded twice
BIWI_PEOPLE = "F01 F02 F03 F04 F05 F06 M01 M02 M03 M04 M05 M06 M07 M08 F03 M09 M10 F05 M11 M12 F02 M01 M13 M14".split()
BIWI_SUBJECTS = tuple(sorted(set(BIWI_PEOPLE)))
PANDORA_SUBJECTS = tuple(f"{k:02d}" for k in range(1, 23))
PANDORA_CENTRE = Box(1 / 4, 1 / 18, 3 / 4, 17 / 18)  # 960 pixels square of 1920 x 1080; where heads are is not known


def biwi(
    *,
    folder: Folder | None = None,
    size: int = 224,
    subjects: Sequence[str] | None = None,
    limit: int | None = None,
    box: float = 260.0,
) -> Dataset:
    """Heads of Biwi, 15,700 frames of F01 .. F06 and M01 .. M14, cut out as squares of `box` mm around their centres.

    Reads hpdb/01/frame_00003_rgb.png, frame_00003_pose.txt (the rotation matrix R, then the centre in mm) and rgb.cal
    of sequences 01 .. 24. R turns head into camera axes (x right, y down, z away from the camera; at R = 1 the face
    looks at the camera). Ours are x right, y up, z towards it, so heads.rotation(angles) = S R S, S = diag(1, -1, -1).
    R stays relative to the depth camera, as in the literature; the colour camera is turned from it by a degree or less.
    The centre is projected with rgb.cal, its lens distortion left out. What lies outside the frame is black.

    Raises FileNotFoundError if the set, a subject or a frame's file is not there, ValueError if a file is damaged.
    """
    if box <= 0:
        raise ValueError(f"expected a box of positive width in mm, got {box}; a head is about 260 high")
    place = places.find_licensed("biwi", folder=folder)
    parts = {
        name: [place / f"{k:02d}" for k, who in enumerate(BIWI_PEOPLE, 1) if who == name] for name in BIWI_SUBJECTS
    }
    there = [name for name, folders in parts.items() if any(path.is_dir() for path in folders)]
    page = places.LICENSED["biwi"].page
    names = choose_subjects(subjects, known=BIWI_SUBJECTS, there=there, where=place, page=page)
    frames = [[path for part in parts[name] for path in biwi_files.frames(part)] for name in names]
    chosen = _picked(frames, limit, place)
    poses = [biwi_files.read_pose(biwi_files.pose_file(path)) for path in chosen]
    cameras = {folder: biwi_files.read_camera(folder / "rgb.cal") for folder in {path.parent for path in chosen}}
    cuts = [cameras[path.parent].box(pose.centre, box) for path, pose in zip(chosen, poses, strict=True)]
    images = read_images([(p, partial(_cut, pixels=c)) for p, c in zip(chosen, cuts, strict=True)], size=size)
    turns = torch.from_numpy(np.stack([pose.rotation for pose in poses]))
    return Dataset(images, angles(turns).float(), HEAD_POSE)


def pandora(
    *,
    folder: Folder | None = None,
    size: int = 224,
    subjects: Sequence[str] | None = None,
    limit: int | None = None,
    crop: Crop | tuple[float, float, float, float] = PANDORA_CENTRE,
    axes: Sequence[tuple[str, int]] = AXES,
) -> Dataset:
    """Frames of Pandora, 1920 x 1080 pixels, of subjects 01 .. 22, cropped and resized.

    Reads Pandora/01/base_1_ID01/RGB/000012_RGB.png (or 000012.png) and data.json beside RGB. The layout and the
    meaning of the angles are inferred from one public reader, not from the authors' description: see pandora_files.
    axes names the value of data.json, and its sign, that is yaw, pitch and roll in turn: check some frames by eye
    before you trust them. crop is that of gaze.columbia_gaze; the default is a square in the middle of the frame.

    Raises as biwi does.
    """
    place = places.find_licensed("pandora", folder=folder)
    sequences = pandora_files.sequences(place)
    page = places.LICENSED["pandora"].page
    names = choose_subjects(subjects, known=PANDORA_SUBJECTS, there=sequences, where=place, page=page)
    cut = as_crop(crop)
    frames = [[f for part in sequences[name] for f in pandora_files.frames(part, axes=axes)] for name in names]
    chosen = _picked(frames, limit, place)
    targets = torch.deg2rad(torch.tensor([degrees for _, degrees in chosen], dtype=torch.float64)).float()
    return Dataset(read_images([(path, cut) for path, _ in chosen], size=size), targets, HEAD_POSE)


def angles(turn: Tensor) -> Tensor:
    """(yaw, pitch, roll) in radians (n, 3) of rotations (n, 3, 3) in camera axes: x right, y down, z away from it.

    With M = S turn S, the third column of M is where the nose points, (cos p sin y, sin p, cos p cos y), and its second
    row is (cos p sin r, cos p cos r, sin p). At a pitch of +-90 degrees yaw and roll are one turn.
    """
    flip = torch.tensor([1.0, -1.0, -1.0], dtype=turn.dtype, device=turn.device)
    m = flip[:, None] * turn * flip
    yaw, roll = torch.atan2(m[:, 0, 2], m[:, 2, 2]), torch.atan2(m[:, 1, 0], m[:, 1, 1])
    return torch.stack([yaw, m[:, 1, 2].clamp(-1, 1).asin(), roll], dim=1)


def _picked(frames: list[list], limit: int | None, where: Path) -> list:
    picks = spread([len(of_subject) for of_subject in frames], limit, where)
    return [of_subject[i] for of_subject, pick in zip(frames, picks, strict=True) for i in pick]


def _cut(image: Image.Image, pixels: tuple[int, int, int, int]) -> Image.Image:
    return image.crop(pixels)
