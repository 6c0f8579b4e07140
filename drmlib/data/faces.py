"""The embedded data of two regression tasks, gaze (pitch, yaw) and head pose (yaw, pitch, roll): rendered heads with
eyes, drawn anew for every generator. heads.py is the renderer and says how the axes point.
"""

import torch
from torch import Generator, Tensor

from drmlib.data import raster
from drmlib.data.appearance import random_appearance
from drmlib.data.dataset import GAZE, HEAD_POSE, Dataset, Task, as_bytes
from drmlib.data.heads import render

GAZE_RANGE = (20.0, 25.0)  # degrees to either side: pitch, yaw
HEAD_POSE_RANGE = (50.0, 35.0, 25.0)  # degrees to either side: yaw, pitch, roll
FRAMES = 10  # images of each person, unless told
GAZE_ZOOM = 1.3  # gaze data sets crop to the face (Zhang et al. 2017), head pose ones show the whole head


def gaze_faces(n: int, *, persons: int | None = None, generator: Generator, size: int = 32) -> Dataset:
    """Near-frontal heads (4 degrees of jitter), gaze uniform within GAZE_RANGE; uint8 images (n, 3, size, size).

    targets (n, 2) are (pitch, yaw) of the line of sight towards the camera's axes, in radians. persons: how many people
    are seen, FRAMES images of each unless told; appearance.person_of says who is on which image. Sets drawn from
    different generators show different people.
    """
    _check_count(n)
    gaze = _uniform_angles(n, GAZE_RANGE, generator)
    head = torch.deg2rad(4.0 * torch.randn(n, 3, generator=generator, device=generator.device))
    return _faces(gaze, head, gaze, GAZE, size, persons, generator, zoom=GAZE_ZOOM)


def head_pose_faces(n: int, *, persons: int | None = None, generator: Generator, size: int = 32) -> Dataset:
    """Heads whose pose is uniform within HEAD_POSE_RANGE, the eyes within 12 degrees of the nose; uint8 images.

    targets (n, 3) are (yaw, pitch, roll) in radians. persons as in gaze_faces.
    """
    _check_count(n)
    head = _uniform_angles(n, HEAD_POSE_RANGE, generator)
    gaze = head[:, [1, 0]] + _uniform_angles(n, (12.0, 12.0), generator)
    return _faces(gaze, head, head, HEAD_POSE, size, persons, generator)


def _faces(
    gaze: Tensor,
    head: Tensor,
    targets: Tensor,
    task: Task,
    size: int,
    persons: int | None,
    generator: Generator,
    *,
    zoom: float = 1.0,
) -> Dataset:
    people = max(1, len(gaze) // FRAMES) if persons is None else persons
    look = random_appearance(len(gaze), persons=people, generator=generator)
    look = look._replace(scale=zoom * look.scale)
    parts = raster.chunks(len(gaze), size)  # as bytes at once: a set of floats would be four times the result
    drawn = [as_bytes(render(gaze[p], head[p], look.at(p), generator=generator, size=size)) for p in parts]
    return Dataset(torch.cat(drawn), targets, task)


def _uniform_angles(n: int, half_range: tuple[float, ...], generator: Generator) -> Tensor:
    """(n, k) angles in radians, uniform within +- half_range in degrees."""
    span = torch.deg2rad(torch.tensor(half_range, device=generator.device))
    return (2 * torch.rand(n, len(half_range), generator=generator, device=generator.device) - 1) * span


def _check_count(n: int) -> None:
    if n < 1:
        raise ValueError(f"expected at least one face to render, got n={n}")
