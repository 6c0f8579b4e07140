"""Gaze sets read from files that the tests write as their releases lay them out, whole and broken."""

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from drmlib.data.gaze import COLUMBIA_FACE, COLUMBIA_SUBJECTS, MPIIFACEGAZE_SUBJECTS, columbia_gaze, mpiifacegaze
from drmlib.data.images import available
from drmlib.data.subjects import Box, read_images, split_subjects, spread
from drmlib.metrics import gaze_direction

TWO = ("p00", "p01")
THREE = ("0001", "0002", "0003")


@pytest.fixture(autouse=True)
def no_folder_from_outside(monkeypatch):
    monkeypatch.delenv("DRMLIB_DATA", raising=False)


def faces(n: int, subject: int) -> np.ndarray:
    """n images (h, w, 3) RGB, 12 x 12: red tells the subject, green the number; a bright patch is in the upper left."""
    images = np.full((n, 12, 12, 3), (40 * subject + 10, 0, 90), np.uint8)
    images[..., 1] = 20 * np.arange(n)[:, None, None]
    images[:, :3, :6] = (250, 240, 0)
    return images


def mpii_label(direction: tuple[float, float, float]) -> tuple[float, float]:
    """theta and phi of a gaze in camera axes, x right, y down, z away from the camera (Zhang et al. 2018)."""
    x, y, z = np.array(direction) / np.linalg.norm(direction)
    return math.asin(-y), math.atan2(-x, -z)


def write_mat(folder: Path, subject: int, n: int = 4, label: np.ndarray | None = None) -> tuple[Path, np.ndarray]:
    """p0k.mat as the release stores it: the three steps of its page; HDF5 keeps MATLAB's axes in reverse."""
    path = folder / "MPIIFaceGaze_normalizad" / f"p{subject:02d}.mat"
    path.parent.mkdir(exist_ok=True)
    stored = [np.rot90(image[:, :, ::-1][:, ::-1]) for image in faces(n, subject)]  # channels, flip, 90 degrees
    if label is None:
        label = np.arange(16 * n).reshape(n, 16) / 1000 + subject / 10
    with h5py.File(path, "w") as file:
        file["Data/data"] = np.stack(stored, axis=-1).astype(np.float64).T  # (w, h, 3, n) in MATLAB
        file["Data/label"] = label.astype(np.float64)
    return path, label


def write_h5(folder: Path, subjects=(0, 1), n: int = 3) -> Path:
    path = folder / "MPIIFaceGaze.h5"
    with h5py.File(path, "w") as file:
        for k in subjects:
            for i, image in enumerate(faces(n, k)):
                file[f"p{k:02d}/image/{i:04}"] = image[:, :, ::-1]
                file[f"p{k:02d}/pose/{i:04}"] = np.zeros(2)
                file[f"p{k:02d}/gaze/{i:04}"] = np.array([0.1 * k, 0.01 * i])
    return path


def write_columbia(folder: Path, subjects=THREE, directions=((0, 0), (10, 15), (-10, -5), (0, 5))) -> Path:
    """Photographs of 54 x 36 pixels; red tells the subject, the frame's outer half is white."""
    place = folder / "Columbia Gaze Data Set"
    for name in subjects:
        (place / name).mkdir(parents=True)
        (place / name / "Thumbs.db").touch()
        for v, h in directions:
            image = Image.new("RGB", (54, 36), "white")
            image.paste((50 * int(name), 0, 0), (14, 8, 40, 34))
            image.save(place / name / f"{name}_2m_-15P_{v}V_{h}H.jpg", quality=95)
    return place


def test_mpiifacegaze_is_upright_rgb_bytes_with_pitch_and_yaw(tmp_path):
    _, first = write_mat(tmp_path, 0)
    _, second = write_mat(tmp_path, 1)
    dataset = mpiifacegaze(folder=tmp_path, size=12, subjects=TWO)
    expected = np.concatenate([faces(4, 0), faces(4, 1)]).transpose(0, 3, 1, 2)
    assert dataset.images.dtype == torch.uint8 and np.array_equal(dataset.images.numpy(), expected)
    assert dataset.task.name == "gaze" and dataset.task.outputs == ("pitch", "yaw")
    labels = np.concatenate([first, second])
    assert torch.allclose(dataset.targets, torch.tensor(np.stack([labels[:, 0], -labels[:, 1]], 1)).float())
    assert dataset.targets.dtype == torch.float32
    assert mpiifacegaze(folder=tmp_path, size=5, subjects=["p01"]).images.shape == (4, 3, 5, 5)


@pytest.mark.parametrize("direction", [(0.3, -0.2, -0.9), (-0.3, 0.2, -0.9), (0.0, 0.0, -1.0), (0.5, 0.4, -0.6)])
def test_mpiifacegaze_looks_where_the_label_looks(tmp_path, direction):
    """The gaze is a vector in camera axes (x right, y down, z away); ours is the same with y and z turned round.

    (0.3, -0.2, -0.9) looks to the right in the image (x > 0), up (y < 0) and towards the camera (z < 0): pitch and yaw
    are both positive, whatever the label's own signs.
    """
    write_mat(tmp_path, 0, n=1, label=np.array([[*mpii_label(direction), *[0] * 14]]))
    target = mpiifacegaze(folder=tmp_path, size=4, subjects=["p00"]).targets
    expected = torch.nn.functional.normalize(torch.tensor(direction) * torch.tensor([1, -1, -1]), dim=0)
    assert torch.allclose(gaze_direction(target)[0], expected, atol=1e-6)
    if direction[0] > 0 and direction[1] < 0:
        assert (target > 0).all()


def test_mpiifacegaze_as_one_h5_file(tmp_path):
    write_h5(tmp_path)
    dataset = mpiifacegaze(folder=tmp_path, size=12, subjects=TWO)
    assert np.array_equal(dataset.images.numpy(), np.concatenate([faces(3, 0), faces(3, 1)]).transpose(0, 3, 1, 2))
    assert torch.allclose(dataset.targets[3:], torch.tensor([[0.1, 0.0], [0.1, -0.01], [0.1, -0.02]]))
    with pytest.raises(FileNotFoundError, match=r"MPIIFaceGaze.h5 lacks p02; it has p00, p01"):
        mpiifacegaze(folder=tmp_path, subjects=("p01", "p02"))


def test_a_limit_is_shared_by_the_subjects_and_spread_over_their_frames(tmp_path):
    """5 of p00's 2 faces and p01's 8: two and three; the middles of the thirds of 0 .. 7 are 1, 4 and 6."""
    write_mat(tmp_path, 0, n=2)
    write_mat(tmp_path, 1, n=8)
    images = mpiifacegaze(folder=tmp_path, size=12, subjects=TWO, limit=5).images
    assert images[:, 0, -1, -1].tolist() == [10, 10, 50, 50, 50]
    assert (images[:, 1, -1, -1] / 20).tolist() == [0, 1, 1, 4, 6]
    assert len(mpiifacegaze(folder=tmp_path, size=12, subjects=TWO, limit=1)) == 1
    for limit in (0, 11):
        with pytest.raises(ValueError, match=f"expected limit from 1 to 10, .*, got {limit}"):
            mpiifacegaze(folder=tmp_path, subjects=TWO, limit=limit)


def test_spread_takes_no_frame_twice_and_all_when_the_limit_is_all():
    for counts in ([1, 5, 9], [7], [3, 3, 3]):
        for limit in range(1, sum(counts) + 1):
            picks = spread(counts, limit, "here")
            assert sum(map(len, picks)) == limit
            assert all(len(set(p)) == len(p) and set(p) <= set(range(c)) for p, c in zip(picks, counts, strict=True))
            shares = [len(p) for p, c in zip(picks, counts, strict=True) if len(p) < c]
            assert not shares or max(shares) - min(shares) <= 1
    assert [p.tolist() for p in spread([2, 3], None, "here")] == [[0, 1], [0, 1, 2]]


def test_subjects_are_split_into_disjoint_groups(tmp_path):
    write_columbia(tmp_path)
    generator = torch.Generator().manual_seed(0)
    groups = split_subjects(THREE, 1, 1, 1, generator=generator)
    assert sorted(sum(groups, ())) == sorted(THREE)
    reds = [columbia_gaze(folder=tmp_path, size=8, subjects=group).images[:, 0, 4, 4].unique() for group in groups]
    assert len(torch.cat(reds).unique()) == 3
    big = split_subjects(COLUMBIA_SUBJECTS, 40, 8, 8, generator=generator)
    assert len(set(sum(big, ()))) == 56 and [len(group) for group in big] == [40, 8, 8]
    assert len(split_subjects(MPIIFACEGAZE_SUBJECTS, 2, generator=generator)[0]) == 2
    for counts in ((2, 2), (0, 1), ()):
        with pytest.raises(ValueError, match="expected counts of at least 1 that sum to at most 3 subjects"):
            split_subjects(THREE, *counts, generator=generator)


def test_same_seed_same_groups():
    first, second = (
        split_subjects(COLUMBIA_SUBJECTS, 3, 3, generator=torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("load", [mpiifacegaze, columbia_gaze])
def test_an_absent_set_says_where_it_looked_who_gives_it_and_what_serves_instead(load, tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        load(folder=tmp_path)
    message = str(raised.value)
    assert f"looked for {tmp_path}" in message and "get it from https://" in message and "accept the terms" in message
    assert "non-commercial" in message and "gaze_faces" in message
    with pytest.raises(FileNotFoundError, match="give folder= or set DRMLIB_DATA .*get it from https://"):
        load()


def test_the_folder_comes_from_the_environment_and_available_lists_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DRMLIB_DATA", str(tmp_path))
    place = write_columbia(tmp_path)
    file = write_h5(tmp_path)
    assert len(columbia_gaze(size=8, subjects=THREE)) == 12
    found = available()
    assert found["columbia_gaze"] == str(place) and found["mpiifacegaze"] == str(file) and found["biwi"] == "absent"


def test_a_missing_subject_is_named_and_so_are_those_that_are_there(tmp_path):
    write_mat(tmp_path, 0)
    write_mat(tmp_path, 2)
    with pytest.raises(FileNotFoundError, match=r"lacks p01, p03, .*p14; it has p00, p02. Unpack .*subjects="):
        mpiifacegaze(folder=tmp_path)
    write_columbia(tmp_path, THREE[:2])
    with pytest.raises(FileNotFoundError, match=r"Columbia Gaze Data Set lacks 0003; it has 0001, 0002"):
        columbia_gaze(folder=tmp_path, subjects=THREE)


@pytest.mark.parametrize("subjects", ["p00", (), ("p00", "p00"), ("p15",), ("0001",)])
def test_subjects_that_are_none_raise(tmp_path, subjects):
    write_mat(tmp_path, 0)
    with pytest.raises(ValueError, match=r"sequence of different names out of p00 .. p14, got"):
        mpiifacegaze(folder=tmp_path, subjects=subjects)


@pytest.mark.parametrize(
    "data, label, words",
    [
        (None, (4, 16), "Data/data|data"),
        ((4, 3, 8, 8), None, "label"),
        ((4, 3, 8, 8), (3, 16), r"\(4, 3, 8, 8\) and \(3, 16\)"),
        ((8, 8, 3, 4), (4, 16), r"expected Data/data \(n, 3, h, w\)"),
        ((4, 3, 8), (4, 16), r"\(4, 3, 8\)"),
        ((4, 3, 8, 8), (4, 1), r"\(4, 1\)"),
        ((0, 3, 8, 8), (0, 16), "expected gaze angles"),
    ],
)
def test_a_mat_file_of_another_shape_is_named(tmp_path, data, label, words):
    path, _ = write_mat(tmp_path, 0)
    with h5py.File(path, "w") as file:
        file.create_group("Data")
        for name, shape in (("data", data), ("label", label)):
            if shape is not None:
                file[f"Data/{name}"] = np.full(shape, 0.5)
    with pytest.raises(ValueError, match=f"p00.mat.*({words})"):
        mpiifacegaze(folder=tmp_path, subjects=["p00"])


@pytest.mark.parametrize("value", [math.nan, math.inf, 20.0])
def test_a_label_that_is_no_angle_in_radians_is_named(tmp_path, value):
    write_mat(tmp_path, 0, n=3, label=np.array([[0.1] * 16, [value] * 16, [0.1] * 16]))
    with pytest.raises(ValueError, match="p00.mat: expected gaze angles in radians"):
        mpiifacegaze(folder=tmp_path, subjects=["p00"])


@pytest.mark.parametrize("level", [256.0, -1.0, 0.9, math.nan])
def test_images_of_another_range_are_named(tmp_path, level):
    path, _ = write_mat(tmp_path, 0)
    with h5py.File(path, "r+") as file:
        file["Data/data"][2] = level
    with pytest.raises(ValueError, match="p00.mat, face 2: expected an image .* of levels from 0 to 255"):
        mpiifacegaze(folder=tmp_path, subjects=["p00"])


@pytest.mark.parametrize("broken", ["empty", "truncated", "text"])
def test_a_file_that_is_no_hdf5_is_named(tmp_path, broken):
    path, _ = write_mat(tmp_path, 0)
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": data[: len(data) // 2], "text": b"<html>404</html>"}[broken])
    with pytest.raises(ValueError, match=r"p00.mat does not read .* unpack it again from https://"):
        mpiifacegaze(folder=tmp_path, subjects=["p00"])


@pytest.mark.parametrize("lost, words", [("image/0001", "image/0001 is missing"), ("gaze/0001", "the gaze of some")])
def test_an_h5_file_with_a_partner_missing_says_so(tmp_path, lost, words):
    path = write_h5(tmp_path)
    with h5py.File(path, "r+") as file:
        del file[f"p01/{lost}"]
    with pytest.raises(ValueError, match=words):
        mpiifacegaze(folder=tmp_path, subjects=TWO)


def test_columbia_angles_come_from_the_name_in_radians(tmp_path):
    write_columbia(tmp_path)
    dataset = columbia_gaze(folder=tmp_path, size=8, subjects=THREE)
    assert dataset.images.shape == (12, 3, 8, 8) and dataset.images.dtype == torch.uint8
    degrees = torch.rad2deg(dataset.targets).round().int().tolist()
    assert degrees == [[-10, -5], [0, 0], [0, 5], [10, 15]] * 3  # in the order of the names: "-10V" < "0V" < "10V"
    assert dataset.task.outputs == ("pitch", "yaw")


def test_columbia_looks_up_at_positive_v_and_right_in_the_image_at_positive_h(tmp_path):
    """10V 15H: x = cos 10 sin 15 > 0 is right in the image, y = sin 10 > 0 up, in metrics.gaze_direction's axes."""
    write_columbia(tmp_path, THREE[:1], directions=((10, 15),))
    target = columbia_gaze(folder=tmp_path, size=8, subjects=THREE[:1]).targets
    up, right = math.radians(10), math.radians(15)
    expected = torch.tensor([math.cos(up) * math.sin(right), math.sin(up), math.cos(up) * math.cos(right)])
    assert torch.allclose(gaze_direction(target)[0], expected, atol=1e-6)


def test_the_face_of_columbia_is_cut_out_and_the_limit_spreads(tmp_path):
    write_columbia(tmp_path)
    images = columbia_gaze(folder=tmp_path, size=8, subjects=THREE, limit=6).images
    assert len(images) == 6 and images[:, 1].max() < 40, "the white frame is outside the box"
    assert (images[:, 0, 4, 4] / 50).round().tolist() == [1, 1, 2, 2, 3, 3]
    whole = columbia_gaze(folder=tmp_path, size=8, subjects=THREE[:1], crop=(0, 0, 1, 1)).images
    assert (whole[:, :, 0, 0] > 240).all()
    corner = columbia_gaze(folder=tmp_path, size=8, subjects=THREE[:1], crop=lambda image: image.crop((0, 0, 5, 5)))
    assert (corner.images > 240).all()
    width, height = (COLUMBIA_FACE.right - COLUMBIA_FACE.left) * 5184, (COLUMBIA_FACE.bottom - COLUMBIA_FACE.top) * 3456
    assert abs(width - height) < 5, "the face keeps its proportions"


@pytest.mark.parametrize("crop", [(0.5, 0, 0.5, 1), (0, 0, 1, 1.2), (-0.1, 0, 1, 1), (0, 0, 1), (0, 1, 1, 0)])
def test_a_crop_that_is_no_box_raises(tmp_path, crop):
    write_columbia(tmp_path)
    with pytest.raises(ValueError, match=r"expected crop= \(left, top, right, bottom\)"):
        columbia_gaze(folder=tmp_path, subjects=THREE, crop=crop)


def test_a_reduced_jpeg_shows_what_the_whole_one_shows(tmp_path):
    """Decoded at 1/8 a smooth image agrees within a few levels with the crop of all its pixels."""
    x, y = np.meshgrid(np.linspace(0, 255, 640), np.linspace(0, 255, 480))
    Image.fromarray(np.stack([x, y, 255 - x], 2).astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    box = Box(0.25, 0.2, 0.75, 0.8)
    frames = [(tmp_path / "a.jpg", box), (tmp_path / "a.jpg", lambda image: box(image))]
    reduced, whole = read_images(frames, size=32).float()
    assert (reduced - whole).abs().max() <= 4


@pytest.mark.parametrize(
    "name", ["0001_2m_0P_0V.jpg", "0001_2m_0P_aV_0H.jpg", "portrait.jpg", "0002_2m_0P_0V_0H.jpg", "0001_0P_0V_0H.jpg"]
)
def test_a_photograph_whose_name_gives_no_angles_is_named(tmp_path, name):
    place = write_columbia(tmp_path)
    Image.new("RGB", (8, 8)).save(place / "0001" / name)
    with pytest.raises(ValueError, match=rf"expected a name like 0001_2m_-15P_10V_-5H.jpg.*{name}"):
        columbia_gaze(folder=tmp_path, subjects=THREE)


def test_hidden_files_of_other_systems_are_passed_over(tmp_path):
    place = write_columbia(tmp_path)
    (place / "0001" / "._0001_2m_0P_0V_0H.jpg").write_bytes(b"\0")
    assert len(columbia_gaze(folder=tmp_path, size=4, subjects=THREE)) == 12


def test_a_subject_without_photographs_is_named(tmp_path):
    place = write_columbia(tmp_path)
    for path in (place / "0002").glob("*.jpg"):
        path.unlink()
    with pytest.raises(ValueError, match="expected photographs 0002_2m_0P_0V_0H.jpg and so on in .*0002, got none"):
        columbia_gaze(folder=tmp_path, subjects=THREE)


def test_a_truncated_photograph_is_named(tmp_path):
    place = write_columbia(tmp_path)
    path = place / "0002" / "0002_2m_-15P_0V_5H.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"0002_2m_-15P_0V_5H.jpg does not decode as an image .*unpack it again"):
        columbia_gaze(folder=tmp_path, subjects=THREE)
