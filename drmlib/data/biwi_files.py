"""The files of Biwi Kinect Head Pose: hpdb/01 .. 24, each with its camera in rgb.cal and two files a frame.

frame_00003_rgb.png is the colour image, frame_00003_pose.txt the rotation matrix and, after an empty line, the head's
centre in mm. rgb.cal holds the camera matrix, the lens distortion, the rotation and the offset from the depth camera.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from drmlib.data import places

NOT_ORTHOGONAL = 5e-3  # a quarter of a degree; the files have six digits
NEAREST = 200.0  # mm; the sensor sees nothing nearer, and a centre in metres would ask for a huge box


class Camera(NamedTuple):
    """The colour camera of a sequence: pixels = matrix (rotation x + offset) for x in mm in the depth camera's axes."""

    matrix: np.ndarray
    rotation: np.ndarray
    offset: np.ndarray

    def box(self, centre: np.ndarray, width: float) -> tuple[int, int, int, int]:
        """Pixels (left, top, right, bottom) of the square of `width` mm around a point, parallel to the image."""
        x, y, z = self.rotation @ centre + self.offset
        (fx, _, cx), (_, fy, cy), _ = self.matrix
        u, v, half_u, half_v = fx * x / z + cx, fy * y / z + cy, fx * width / 2 / z, fy * width / 2 / z
        return round(u - half_u), round(v - half_v), round(u + half_u), round(v + half_v)


class Pose(NamedTuple):
    """Where a head is: rotation (3, 3) from head to camera axes (x right, y down, z away), centre (3,) in mm."""

    rotation: np.ndarray
    centre: np.ndarray


def frames(folder: Path) -> list[Path]:
    """The colour images of a sequence in order. Raises FileNotFoundError if one has no pose, or a pose no image."""
    images = sorted(folder.glob("frame_*_rgb.*"))
    poses = {pose_file(path) for path in images}
    lost = sorted(path.name for path in poses if not path.is_file())
    lost += sorted(p.name.replace("pose.txt", "rgb.png") for p in folder.glob("frame_*_pose.txt") if p not in poses)
    if lost or not images:
        raise FileNotFoundError(
            f"expected frame_00003_rgb.png with frame_00003_pose.txt and so on in {folder}, "
            f"{lost[0] if lost else 'all'} missing; unpack it again from {places.LICENSED['biwi'].page}"
        )
    return images


def pose_file(image: Path) -> Path:
    """The pose that belongs to a colour image."""
    return image.with_name(image.name.rsplit("_", 1)[0] + "_pose.txt")


def read_pose(path: Path) -> Pose:
    """Raises ValueError if the file holds no rotation, or a centre that is not in mm before the camera."""
    rows = _rows(path)
    if [len(row) for row in rows] != [3, 3, 3, 3]:
        raise ValueError(f"expected {path} to hold three rows of a matrix and one of a centre, got {_shape(rows)}")
    pose = Pose(np.array(rows[:3]), np.array(rows[3]))
    off = np.abs(pose.rotation @ pose.rotation.T - np.eye(3)).max()
    handed = np.dot(np.cross(pose.rotation[0], pose.rotation[1]), pose.rotation[2])
    if not (off <= NOT_ORTHOGONAL and handed > 0):  # fails for nan too
        raise ValueError(
            f"expected a rotation matrix in {path}, got one with R R' off by {off:.3g} and determinant {handed:.3g}; "
            "unpack it again"
        )
    if not (np.isfinite(pose.centre).all() and pose.centre[2] >= NEAREST):
        raise ValueError(f"expected a head's centre in mm, {NEAREST} or more away, in {path}, got {pose.centre}")
    return pose


def read_camera(path: Path) -> Camera:
    """Raises FileNotFoundError without rgb.cal, ValueError if it holds anything else than a camera."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}, which places heads in images; unpack it from {places.LICENSED['biwi'].page}"
        )
    rows = _rows(path)
    shape = [len(row) for row in rows]
    if shape[:3] != [3, 3, 3] or shape[4:8] != [3, 3, 3, 3] or not (rows[0][0] > 0 and rows[1][1] > 0):
        raise ValueError(
            f"expected {path} to hold a camera matrix of three rows, a row of distortion, a rotation of three rows and "
            f"an offset, got {_shape(rows)}; unpack it again"
        )
    return Camera(np.array(rows[:3]), np.array(rows[4:7]), np.array(rows[7]))


def _rows(path: Path) -> list[list[float]]:
    """Numbers of each line that is not empty."""
    try:
        return [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except ValueError as error:  # an undecodable byte, too
        raise ValueError(f"expected numbers in {path} ({error}); unpack it again") from error


def _shape(rows: list[list[float]]) -> str:
    return f"rows of {', '.join(str(len(row)) for row in rows)} numbers" if rows else "an empty file"
