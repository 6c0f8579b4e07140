"""Head-pose sets read from files that the tests write as their releases lay them out, whole and broken."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drmlib.data import heads
from drmlib.data.biwi_files import read_camera
from drmlib.data.head_pose import BIWI_PEOPLE, BIWI_SUBJECTS, PANDORA_SUBJECTS, angles, biwi, pandora
from drmlib.data.subjects import split_subjects
from drmlib.metrics import gaze_direction, head_pose_error

FLIP = np.diag([1.0, -1.0, -1.0])
THREE = ("F01", "F02", "M14")
SEQUENCES = (1, 2, 21, 24)
CAMERA = "100 0 32\n0 100 24\n0 0 1\n\n0 0 0 0\n\n1 0 0\n0 1 0\n0 0 1\n\n-20 10 5\n\n64 48\n"
CENTRE = (120.0, -60.0, 995.0)  # with the camera's offset (100, -50, 1000): pixel (42, 19), a tenth of a pixel a mm


@pytest.fixture(autouse=True)
def no_folder_from_outside(monkeypatch):
    monkeypatch.delenv("DRMLIB_DATA", raising=False)


def random_pose(n: int, seed: int = 0) -> torch.Tensor:
    """(yaw, pitch, roll) within 80 degrees: all that heads.rotation has one name for."""
    return (2 * torch.rand(n, 3, generator=torch.Generator().manual_seed(seed)) - 1) * math.radians(80)


def pose_text(pose: torch.Tensor, centre=CENTRE) -> str:
    """The file of a head of that pose: its rotation in the camera's axes, an empty line, the centre."""
    turn = FLIP @ heads.rotation(pose.double()[None])[0].numpy() @ FLIP
    rows = [" ".join(f"{value:.6f}" for value in row) for row in turn]
    return "\n".join(rows) + " \n\n" + " ".join(map(str, centre)) + "\n"


def write_biwi(folder: Path, sequences=SEQUENCES, n: int = 3, poses: torch.Tensor | None = None) -> Path:
    """n frames a sequence, 64 x 48; red tells the sequence, green the frame, a blue pixel is at the head's centre."""
    place = folder / "hpdb"
    for k in sequences:
        (place / f"{k:02d}").mkdir(parents=True)
        (place / f"{k:02d}" / "rgb.cal").write_text(CAMERA)
        (place / f"{k:02d}.obj").touch()
        for i in range(n):
            image = Image.new("RGB", (64, 48), (10 * k, 20 * i, 0))
            image.paste((10 * k, 20 * i, 255), (41, 18, 43, 20))
            stem = place / f"{k:02d}" / f"frame_{i + 3:05d}"
            image.save(f"{stem}_rgb.png")
            Path(f"{stem}_depth.bin").touch()
            Path(f"{stem}_pose.txt").write_text(pose_text(random_pose(n)[i] if poses is None else poses[i]))
    return place


def write_pandora(folder: Path, subjects=(1, 2), n: int = 3, suffix: str = "_RGB") -> Path:
    """Two sequences a subject, 32 x 18 pixels; red tells the subject, green the frame."""
    place = folder / "Pandora"
    for k in subjects:
        for name in (f"base_1_ID{k:02d}", f"free_1_ID{k:02d}"):
            part = place / f"{k:02d}" / name
            (part / "RGB").mkdir(parents=True)
            rows = []
            for i in range(n):
                Image.new("RGB", (32, 18), (50 * k, 20 * i, 0)).save(part / "RGB" / f"{i + 7:06d}{suffix}.png")
                euler = {"pitch": 10.0 * k, "yaw": 1.0 + i, "roll": -20.0}
                rows.append({"frame_num": i + 7, "orientation": {"euler": euler, "quaternion": [1, 0, 0, 0]}})
            (part / "data.json").write_text(json.dumps(rows[::-1]))
    return place


def test_angles_is_the_inverse_of_rotation():
    """M = Ry(yaw) Rx(pitch) Rz(roll) of heads.rotation, written in camera axes, read back as the same three angles."""
    pose = random_pose(200).double()
    flip = torch.from_numpy(FLIP)
    assert torch.allclose(angles(flip @ heads.rotation(pose) @ flip), pose, atol=1e-12)
    assert (head_pose_error(angles(flip @ heads.rotation(pose) @ flip), pose) < 1e-9).all()


@pytest.mark.parametrize(
    "matrix, expected",
    [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], (0, 0, 0)),
        ([[0, 0, -1], [0, 1, 0], [1, 0, 0]], (90, 0, 0)),  # the nose, -z in the head, points along x: right
        ([[1, 0, 0], [0, 0.6, 0.8], [0, -0.8, 0.6]], (0, math.degrees(math.asin(0.8)), 0)),  # along -y, z: up
        ([[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 1]], (0, 0, math.degrees(math.asin(0.8)))),  # x to (0.6, -0.8): up
    ],
)
def test_each_angle_by_hand(matrix, expected):
    """Camera axes: x right, y down, z away. A column of the matrix is where that axis of the head points.

    Counter-clockwise roll lifts the axis that points to the right: its y, which counts downwards, gets negative.
    """
    result = torch.rad2deg(angles(torch.tensor([matrix], dtype=torch.float64)))[0]
    assert torch.allclose(result, torch.tensor(expected, dtype=torch.float64), atol=1e-9)


def test_biwi_poses_come_back_and_agree_with_the_renderer(tmp_path):
    """The nose, (0, 0, -1) in the head's own axes, goes through the file's matrix, then into axes that point up."""
    poses = random_pose(4, seed=1)
    write_biwi(tmp_path, (1,), n=4, poses=poses)
    dataset = biwi(folder=tmp_path, size=8, subjects=["F01"])
    assert dataset.targets.dtype == torch.float32 and dataset.task.outputs == ("yaw", "pitch", "roll")
    assert torch.allclose(dataset.targets, poses, atol=1e-4)
    text = (tmp_path / "hpdb" / "01" / "frame_00004_pose.txt").read_text().split()
    matrix = np.array(text[:9], dtype=float).reshape(3, 3)
    nose = torch.from_numpy(FLIP @ matrix @ np.array([0, 0, -1.0])).float()
    assert torch.allclose(gaze_direction(dataset.targets[1, [1, 0]]), nose, atol=1e-4)


def test_biwi_reads_the_example_of_a_published_frame(tmp_path):
    """Frame 501 of sequence 01: the head's centre is right of and below the camera's axis, the nose to the right, down.

    -R[:, 2] = (0.792, 0.500, -0.351) points right (x), down (y) and towards the camera (z).
    """
    write_biwi(tmp_path, (1,), n=1)
    (tmp_path / "hpdb" / "01" / "frame_00003_pose.txt").write_text(
        "0.45684 -0.404949 -0.792031 \n-0.103806 0.860022 -0.499587 \n0.883471 0.310449 0.350856 \n\n"
        "156.6 94.6106 893.541\n"
    )
    yaw, pitch, roll = torch.rad2deg(biwi(folder=tmp_path, size=8, subjects=["F01"]).targets[0]).tolist()
    assert math.isclose(yaw, math.degrees(math.atan2(0.792031, 0.350856)), abs_tol=1e-3)
    assert math.isclose(pitch, -math.degrees(math.asin(0.499587)), abs_tol=1e-3)
    assert math.isclose(roll, math.degrees(math.atan2(0.103806, 0.860022)), abs_tol=1e-3)


def test_biwi_cuts_a_square_around_the_projected_centre(tmp_path):
    """The centre projects to (42, 19): 100 x / z + 32 = 42 and 100 y / z + 24 = 19 with (100, -50, 1000) mm.

    A box of 100 mm is 10 pixels: 37 .. 47 by 14 .. 24, with the marked pixels 41 .. 43 by 18 .. 20 in its middle.
    """
    write_biwi(tmp_path, (1,), n=1)
    images = biwi(folder=tmp_path, size=10, subjects=["F01"], box=100).images
    assert images.shape == (1, 3, 10, 10) and images.dtype == torch.uint8
    marked = images[0, 2] == 255
    assert marked.nonzero().tolist() == [[4, 4], [4, 5], [5, 4], [5, 5]]
    assert (images[0, 0] == 10).all()
    beyond = biwi(folder=tmp_path, size=40, subjects=["F01"], box=400).images  # 22 .. 62 by -1 .. 39
    assert (beyond[0, :, 0] == 0).all() and (beyond[0, 0, 1:] == 10).all()


def test_biwi_subjects_are_people_not_sequences(tmp_path):
    write_biwi(tmp_path)
    dataset = biwi(folder=tmp_path, size=4, subjects=THREE)
    assert (dataset.images[:, 0, 0, 0] / 10).round().tolist() == [1] * 3 + [2] * 3 + [21] * 3 + [24] * 3
    assert len(BIWI_PEOPLE) == 24 and len(BIWI_SUBJECTS) == 20
    assert sorted(BIWI_PEOPLE) == sorted([*BIWI_SUBJECTS, "F02", "F03", "F05", "M01"]), "four people twice"
    assert [who[0] for who in BIWI_SUBJECTS].count("F") == 6, "six women and fourteen men"


def test_biwi_groups_share_no_person(tmp_path):
    write_biwi(tmp_path)
    groups = split_subjects(THREE, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    seen = [set(biwi(folder=tmp_path, size=4, subjects=group).images[:, 0, 0, 0].tolist()) for group in groups]
    assert sum(map(len, seen)) == 4 == len(set.union(*seen)), "four sequences, the two of F02 in one group"


def test_a_limit_of_biwi_is_shared_by_the_people(tmp_path):
    """6 are two of each person's 3 or 6 frames, the middles of the halves: 0 and 2, or 1 and 4."""
    write_biwi(tmp_path)
    images = biwi(folder=tmp_path, size=4, subjects=THREE, limit=6).images[:, :2, 0, 0]
    assert (images / torch.tensor([10, 20])).round().int().tolist() == [
        [1, 0],
        [1, 2],
        [2, 1],
        [21, 1],
        [24, 0],
        [24, 2],
    ]
    with pytest.raises(ValueError, match="expected limit from 1 to 12, .*, got 13"):
        biwi(folder=tmp_path, subjects=THREE, limit=13)


@pytest.mark.parametrize("load", [biwi, pandora])
def test_an_absent_set_says_where_it_looked_who_gives_it_and_what_serves_instead(load, tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        load(folder=tmp_path)
    message = str(raised.value)
    assert f"looked for {tmp_path}" in message and "get it from https://" in message and "accept the terms" in message
    assert "head_pose_faces" in message
    with pytest.raises(FileNotFoundError, match="give folder= or set DRMLIB_DATA .*get it from https://"):
        load()


def test_a_missing_person_or_sequence_is_named(tmp_path):
    write_biwi(tmp_path, (1, 2))
    with pytest.raises(FileNotFoundError, match=r"hpdb lacks F03, F04, .*M14; it has F01, F02"):
        biwi(folder=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected frame_00003_rgb.png .* in .*21, all missing"):
        biwi(folder=tmp_path, subjects=["F02"])


@pytest.mark.parametrize(
    "lost, words", [("pose.txt", "frame_00004_pose.txt missing"), ("rgb.png", "frame_00004_rgb.png missing")]
)
def test_a_frame_without_its_partner_is_named(tmp_path, lost, words):
    place = write_biwi(tmp_path)
    (place / "02" / f"frame_00004_{lost}").unlink()
    with pytest.raises(FileNotFoundError, match=f"in .*02, {words}; unpack it again from https://"):
        biwi(folder=tmp_path, subjects=THREE)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "an empty file"),
        ("1 0 0\n0 1 0\n0 0 1\n", "rows of 3, 3, 3 numbers"),
        ("1 0 0\n0 1 0\n0 0 1\n\n1 2 900 4\n", "rows of 3, 3, 3, 4"),
        ("1 0 0\n0 1 x\n0 0 1\n\n1 2 900\n", "expected numbers in"),
        ("1 0 0\n0 1 0\n0 0 1.1\n\n1 2 900\n", "expected a rotation matrix in .* off by 0.21"),
        ("1 0 0\n0 1 0\n0 0 -1\n\n1 2 900\n", "expected a rotation matrix in .* determinant -1"),
        ("1 0 0\n0 nan 0\n0 0 1\n\n1 2 900\n", "expected a rotation matrix"),
        ("1 0 0\n0 1 0\n0 0 1\n\n1 2 -900\n", "expected a head's centre in mm"),
        ("1 0 0\n0 1 0\n0 0 1\n\n0.1 0.2 0.9\n", "expected a head's centre in mm"),
        ("1 0 0\n0 1 0\n0 0 1\n\n1 nan 900\n", "expected a head's centre in mm"),
    ],
)
def test_a_pose_that_is_none_is_named(tmp_path, text, words):
    place = write_biwi(tmp_path)
    (place / "24" / "frame_00005_pose.txt").write_text(text)
    with pytest.raises(ValueError, match=words) as raised:
        biwi(folder=tmp_path, subjects=THREE)
    assert "24/frame_00005_pose.txt" in str(raised.value)


@pytest.mark.parametrize("text", ["", "100 0 32\n0 100 24\n0 0 1\n", CAMERA.replace("100 0 32", "0 0 32"), "a b c"])
def test_a_camera_that_is_none_is_named(tmp_path, text):
    place = write_biwi(tmp_path)
    (place / "02" / "rgb.cal").write_text(text)
    with pytest.raises(ValueError, match="expected .*02/rgb.cal"):
        biwi(folder=tmp_path, subjects=THREE)
    (place / "02" / "rgb.cal").unlink()
    with pytest.raises(FileNotFoundError, match="no .*02/rgb.cal, which places heads in images"):
        biwi(folder=tmp_path, subjects=THREE)


def test_the_camera_keeps_rotation_and_offset_apart(tmp_path):
    turn = "0 1 0\n-1 0 0\n0 0 1"
    (tmp_path / "rgb.cal").write_text(CAMERA.replace("1 0 0\n0 1 0\n0 0 1\n\n-20", f"{turn}\n\n-20"))
    left, top, right, bottom = read_camera(tmp_path / "rgb.cal").box(np.array([60.0, 120.0, 995.0]), 100)
    assert (left, top, right, bottom) == (37, 14, 47, 24)  # (60, 120) turned is (120, -60), which the tests above use


@pytest.mark.parametrize("box", [0.0, -1.0])
def test_a_box_without_width_raises(tmp_path, box):
    with pytest.raises(ValueError, match="expected a box of positive width in mm"):
        biwi(folder=tmp_path, box=box)


def test_a_truncated_frame_is_named(tmp_path):
    place = write_biwi(tmp_path)
    path = place / "21" / "frame_00005_rgb.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="21/frame_00005_rgb.png does not decode as an image .*unpack it again"):
        biwi(folder=tmp_path, subjects=THREE)


@pytest.mark.parametrize("suffix", ["_RGB", ""])
def test_pandora_turns_its_keys_into_yaw_pitch_and_roll(tmp_path, suffix):
    """pitch 10 k, yaw 1 + i, roll -20 under the file's names are roll, minus pitch and yaw under ours."""
    write_pandora(tmp_path, suffix=suffix)
    dataset = pandora(folder=tmp_path, size=6, subjects=("01", "02"))
    assert dataset.images.shape == (12, 3, 6, 6) and dataset.task.outputs == ("yaw", "pitch", "roll")
    degrees = torch.rad2deg(dataset.targets).round().int().tolist()
    assert degrees == [[-20, -1 - i, 10 * k] for k in (1, 2) for _ in range(2) for i in range(3)]
    assert (dataset.images[:, 1, 0, 0] / 20).round().tolist() == [0, 1, 2] * 4  # angles go with their frames
    plain = pandora(folder=tmp_path, size=6, subjects=["02"], axes=(("yaw", 1), ("pitch", 1), ("roll", -1)))
    assert torch.rad2deg(plain.targets).round().int().tolist() == [[1 + i, 20, 20] for _ in range(2) for i in range(3)]


def test_pandora_is_split_and_limited_by_subject(tmp_path):
    write_pandora(tmp_path)
    first, second = (pandora(folder=tmp_path, size=4, subjects=[name]).images[:, 0] for name in ("01", "02"))
    assert (first == 50).all() and (second == 100).all()
    assert pandora(folder=tmp_path, size=4, subjects=("01", "02"), limit=4).images[:, 0, 0, 0].tolist() == [
        50,
        50,
        100,
        100,
    ]
    assert len(PANDORA_SUBJECTS) == 22
    with pytest.raises(FileNotFoundError, match="Pandora lacks 03, .*22; it has 01, 02"):
        pandora(folder=tmp_path)


def test_pandora_without_subject_folders_takes_the_number_in_the_name(tmp_path):
    place = write_pandora(tmp_path)
    for part in list(place.glob("*/*")):
        part.rename(place / part.name)
    assert len(pandora(folder=tmp_path, size=4, subjects=["02"])) == 6
    (place / "base_1_ID01").rename(place / "somebody")
    with pytest.raises(ValueError, match="expected a sequence named as base_1_ID01.*somebody"):
        pandora(folder=tmp_path, size=4, subjects=["02"])


def test_pandora_without_sequences_says_what_it_expects(tmp_path):
    (tmp_path / "Pandora").mkdir()
    with pytest.raises(FileNotFoundError, match="expected folders such as 01/base_1_ID01 .*found no data.json"):
        pandora(folder=tmp_path)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda rows: "{", "JSONDecodeError"),
        (lambda rows: json.dumps({"frames": rows}), "TypeError"),
        (lambda rows: json.dumps([{"frame_num": 7}]), "KeyError: 'orientation'"),
        (lambda rows: json.dumps(rows).replace("-20.0", "NaN"), "nan"),
        (lambda rows: json.dumps(rows).replace("-20.0", "null"), "TypeError"),
        (lambda rows: json.dumps(rows).replace('"roll"', '"rolls"'), "KeyError: 'roll'"),
        (lambda rows: json.dumps(rows[1:]), "data.json, got none for 000009_RGB.png"),
        (lambda rows: "[]", "got none for 000007_RGB.png"),
    ],
)
def test_angles_of_pandora_that_are_none_are_named(tmp_path, change, words):
    file = write_pandora(tmp_path) / "02" / "free_1_ID02" / "data.json"
    file.write_text(change(json.loads(file.read_text())))
    with pytest.raises(ValueError, match=f"02/free_1_ID02.*{words}"):
        pandora(folder=tmp_path, subjects=("01", "02"))


def test_an_image_of_pandora_that_is_missing_is_named(tmp_path):
    place = write_pandora(tmp_path)
    (place / "01" / "base_1_ID01" / "RGB" / "000008_RGB.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"data.json has frame 8, but there is no .*RGB/000008_RGB.png"):
        pandora(folder=tmp_path, subjects=["01"])


@pytest.mark.parametrize("axes", [(("yaw", 1), ("pitch", 1)), (("yaw", 1), ("yaw", 1), ("roll", 1)), (("yaw", 2),) * 3])
def test_axes_that_name_no_three_angles_raise(tmp_path, axes):
    write_pandora(tmp_path)
    with pytest.raises(ValueError, match="expected axes= a key and a sign for yaw, pitch and roll"):
        pandora(folder=tmp_path, subjects=["01"], axes=axes)
