"""Packed files: what is written comes back; damaged in every way, the message names file, image and remedy."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from drmlib.data import decode as decoding
from drmlib.data.packed import packed

COLOURS = (10, 60, 110, 160, 210)


def encoded(colour: int, *, size: tuple[int, int] = (8, 8), kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour, 0, 255 - colour)).save(buffer, kind)
    return buffer.getvalue()


def parts(**changes) -> dict[str, np.ndarray]:
    """The arrays of a packed file of five plain images of classes 0, 1, 2, 0, 1, with some replaced."""
    files = [encoded(colour) for colour in COLOURS]
    return {
        "jpeg": np.frombuffer(b"".join(files), np.uint8),
        "offset": np.cumsum([0, *map(len, files)]),
        "label": np.array([0, 1, 2, 0, 1], dtype=np.uint8),
        "classes": np.array(["ant", "bee", "cat"]),
    } | changes


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.npz"


def message(path) -> str:
    with pytest.raises(ValueError) as raised:
        packed(path)
    assert str(path) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_is_written_comes_back(path, save):
    save(path, **parts())
    dataset = packed(path)
    assert dataset.images.dtype == torch.uint8 and dataset.images.shape == (5, 3, 8, 8)
    expected = torch.tensor([[colour, 0, 255 - colour] for colour in COLOURS])[:, :, None, None]
    assert (dataset.images.int() - expected).abs().max() <= 3  # what JPEG does to a plain colour
    assert dataset.targets.tolist() == [0, 1, 2, 0, 1] and dataset.task.outputs == ("ant", "bee", "cat")


def test_limit_takes_the_first_and_size_resizes(path):
    np.savez(path, **parts())
    whole, part = packed(path), packed(path, limit=3)
    assert torch.equal(part.images, whole.images[:3]) and torch.equal(part.targets, whole.targets[:3])
    assert packed(path, size=20).images.shape == (5, 3, 20, 20)
    for limit in (0, -1, 6):
        with pytest.raises(ValueError, match=f"limit from 1 to 5, the number of images in .*some.npz, got {limit}"):
            packed(path, limit=limit)


def test_the_chunk_does_not_show(path, monkeypatch):
    np.savez(path, **parts())
    whole = packed(path)
    monkeypatch.setattr(decoding, "CHUNK", 2)
    assert torch.equal(packed(path).images, whole.images)


def test_any_encoding_and_bytes_before_the_first_image_will_do(path):
    files = [
        encoded(colour, kind=kind) for colour, kind in zip(COLOURS, ("PNG", "BMP", "PPM", "PNG", "PNG"), strict=True)
    ]
    jpeg, offset = np.frombuffer(b"xyz" + b"".join(files), np.uint8), 3 + np.cumsum([0, *map(len, files)])
    np.savez(path, **parts(jpeg=jpeg, offset=offset))
    assert packed(path).images[:, 0, 4, 4].tolist() == list(COLOURS)


def test_a_missing_file_raises(path):
    with pytest.raises(FileNotFoundError, match="no packed file .*some.npz.*jpeg, offset, label, classes"):
        packed(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.99])
def test_a_truncated_file_says_so(path, save, share):
    save(path, **parts())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "may be truncated" in message(path) and "copy or fetch the file again" in message(path)


def test_bytes_damaged_on_the_way_are_noticed(path):
    np.savez(path, **parts())
    data = path.read_bytes()
    at = data.index(encoded(COLOURS[0])) + 200
    path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    assert "some.npz" in message(path)


@pytest.mark.parametrize("content", [b"not an archive", b"\x80\x04N.", b"PK\x03\x04"])
def test_what_is_no_archive_says_so(path, content):
    path.write_bytes(content)
    assert "does not read as a packed file" in message(path)


@pytest.mark.parametrize("name", ["jpeg", "offset", "label", "classes"])
def test_a_missing_array_is_named(path, name):
    arrays = parts()
    del arrays[name]
    np.savez(path, **arrays)
    assert f"no array {name}; it has" in message(path)


def test_pickled_arrays_are_not_read(path):
    np.savez(path, **parts(classes=np.array(["ant", "bee", "cat"], dtype=object)))
    assert "allow_pickle=False" in message(path)


OFFSET = parts()["offset"].tolist()


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"offset": np.array([0, 5, 5, 8, 9, 10])}, "offsets do not increase at image 1: 5, 5"),
        ({"offset": np.array([0, 9, 4, 10, 11, 12])}, "offsets do not increase at image 1: 9, 4"),
        ({"offset": np.array([0, 9, 4, 10, 11, 12], dtype=np.uint64)}, "offsets do not increase at image 1: 9, 4"),
        ({"offset": np.array([-1, 9, 14, 20, 21, 22])}, "offsets do not increase at image 0: -1, 9"),
        ({"offset": np.array([*OFFSET[:4], 10**6, 10**7])}, "image 3 ends at byte 1000000, jpeg has"),
        ({"offset": np.array(OFFSET[:-1])}, "expected one offset more than labels, got 5 and 5"),
        ({"label": np.array([0, 1])}, "expected one offset more than labels, got 6 and 2"),
        ({"label": np.zeros(0, dtype=int), "offset": np.zeros(1, dtype=int)}, "got 1 and 0"),
        ({"label": np.array([0, 1, 3, 0, 1])}, "image 2 has label 3, classes has 3"),
        ({"label": np.array([0, 1, 2, -1, 1])}, "image 3 has label -1"),
        ({"label": np.array([0.0, 1, 2, 0, 1])}, "expected label to be integers of one axis, got float64 (5,)"),
        ({"offset": np.array([OFFSET])}, "expected offset to be integers of one axis, got int64 (1, 6)"),
        ({"classes": np.array([1, 2, 3])}, "expected classes to be text of one axis, got int64 (3,)"),
        ({"jpeg": np.zeros(5000)}, "expected jpeg to be uint8 of one axis, got float64 (5000,)"),
    ],
)
def test_arrays_that_do_not_fit_are_named(path, changes, expected):
    np.savez(path, **parts(**changes))
    assert expected in message(path)


@pytest.mark.parametrize("broken", [b"no image at all", encoded(9)[:300], encoded(9)[:-200], b"\xff\xd8\xff\xe0"])
def test_the_image_that_does_not_decode_is_named(path, broken):
    files = [encoded(1), encoded(2), broken, encoded(3), encoded(4)]
    np.savez(path, **parts(jpeg=np.frombuffer(b"".join(files), np.uint8), offset=np.cumsum([0, *map(len, files)])))
    assert "some.npz: image 2 does not decode as an image" in message(path)


def test_an_image_of_another_size_is_named(path):
    files = [encoded(1), encoded(2), encoded(3), encoded(4, size=(8, 6)), encoded(5)]
    np.savez(path, **parts(jpeg=np.frombuffer(b"".join(files), np.uint8), offset=np.cumsum([0, *map(len, files)])))
    assert "images of 8 x 8 as the first" in message(path) and "image 3 is 6 x 8; give size=" in message(path)
    assert packed(path, size=8).images.shape == (5, 3, 8, 8)


def test_an_array_shorter_than_its_header_says_is_named(path):
    """jpeg.npy written anew with half its bytes, so that the archive itself is sound."""
    np.savez(path, **parts())
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["jpeg.npy"] = members["jpeg.npy"][: len(members["jpeg.npy"]) // 2]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert "jpeg ends within image 2" in message(path)
