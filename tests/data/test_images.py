"""Image sets read from files that the tests write themselves, whole and broken; each message says what to do."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drmlib.data import images
from drmlib.data.images import available, cifar10, cifar100, fashion_mnist, gtsrb, image_folder
from drmlib.data.torchvision_compat import load_torchvision

REAL = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def no_folder_from_outside(monkeypatch):
    monkeypatch.delenv("DRMLIB_DATA", raising=False)


def plain(colour: int | tuple[int, int, int], path: Path, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour,) * 3 if isinstance(colour, int) else colour).save(path)


def write_idx(path: Path, array: np.ndarray) -> None:
    """The format of the MNIST files: two zeros, type 8 (uint8), number of axes, their lengths, the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_fashion(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = np.arange(6 * 28 * 28).reshape(6, 28, 28) % 251, np.array([1, 1, 1, 0, 0, 2])
    for part in ("train", "t10k"):
        write_idx(folder / "FashionMNIST" / "raw" / f"{part}-images-idx3-ubyte", pixels)
        write_idx(folder / "FashionMNIST" / "raw" / f"{part}-labels-idx1-ubyte", labels)
    return pixels, labels


def write_cifar(folder: Path, monkeypatch) -> np.ndarray:
    """One training and one test batch in the layout of the official files, known to torchvision by no checksum."""
    reader = load_torchvision().datasets.CIFAR10
    pixels = (np.arange(4 * 3072).reshape(4, 3072) % 253).astype(np.uint8)
    place = folder / "cifar-10-batches-py"
    place.mkdir()
    for name in ("data_batch_1", "test_batch"):
        (place / name).write_bytes(pickle.dumps({"data": pixels, "labels": [2, 2, 0, 1]}))
    (place / "batches.meta").write_bytes(pickle.dumps({"label_names": ["plane", "car", "bird"]}))
    monkeypatch.setattr(reader, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(reader, "test_list", [["test_batch", None]])
    monkeypatch.setattr(reader, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    return pixels.reshape(4, 3, 32, 32)


def write_gtsrb(folder: Path) -> None:
    """Two signs of two frames in each class; red is the class, green the sign, blue the frame."""
    for k in range(43):
        for sign in range(2):
            for frame in range(2):
                name = folder / "gtsrb" / "GTSRB" / "Training" / f"{k:05d}" / f"{sign:05d}_{frame:05d}.ppm"
                plain((k, sign, frame), name, size=(9, 7))
    for i in range(3):
        plain(i, folder / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / f"{i:05d}.ppm")
    lines = ["Filename;Width;ClassId", "00000.ppm;8;5", "00001.ppm;8;42", "00002.ppm;8;0"]
    (folder / "gtsrb" / "GT-final_test.csv").write_text("\n".join(lines))


@pytest.mark.parametrize("load", [cifar10, cifar100, fashion_mnist, gtsrb])
def test_a_missing_set_says_where_it_looked_how_to_get_it_and_what_serves_instead(load, tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        load("test", folder=tmp_path)
    message = str(raised.value)
    assert f"looked for {tmp_path}" in message and "dataset=signs" in message
    call = f"{load.__name__}('test', folder='{tmp_path}', download=True)"
    assert f'python -c "from drmlib.data.images import {load.__name__}; {call}"' in message
    with pytest.raises(FileNotFoundError, match="give folder= or set DRMLIB_DATA .*download=True.*dataset=signs"):
        load("test")


def test_a_missing_cifar10_names_both_files_that_would_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="cifar-10-batches-py and .*cifar10_train.npz"):
        cifar10("train", folder=tmp_path)


def test_an_unknown_split_raises(tmp_path):
    with pytest.raises(ValueError, match="expected split 'train' or 'test', got 'valid'"):
        cifar10("valid", folder=tmp_path)


def test_the_folder_comes_from_the_environment_unless_given(tmp_path, monkeypatch):
    write_fashion(tmp_path / "here")
    monkeypatch.setenv("DRMLIB_DATA", str(tmp_path / "here"))
    assert len(fashion_mnist("train")) == 6
    with pytest.raises(FileNotFoundError):
        fashion_mnist("train", folder=tmp_path)


def test_available_says_what_is_there(tmp_path, monkeypatch):
    assert set(available().values()) == {"absent"} == set(available(folder=tmp_path / "none").values())
    write_fashion(tmp_path)
    (tmp_path / "cifar10_test.npz").touch()
    expected = {
        "cifar10": str(tmp_path / "cifar10_test.npz"),
        "cifar100": "absent",
        "fashion_mnist": str(tmp_path / "FashionMNIST" / "raw"),
        "gtsrb": "absent",
    } | dict.fromkeys(("mpiifacegaze", "columbia_gaze", "biwi", "pandora"), "absent")
    assert available(folder=tmp_path) == expected
    monkeypatch.setenv("DRMLIB_DATA", str(tmp_path))
    assert available() == expected


def test_fashion_mnist_has_one_channel_and_a_limit_takes_each_class_in_turn(tmp_path):
    pixels, labels = write_fashion(tmp_path)
    whole, part = fashion_mnist("train", folder=tmp_path), fashion_mnist("test", folder=tmp_path, limit=5)
    assert whole.images.shape == (6, 1, 28, 28) and whole.images.dtype == torch.uint8
    assert np.array_equal(whole.images[:, 0].numpy(), pixels) and np.array_equal(whole.targets.numpy(), labels)
    assert part.targets.tolist() == [0, 1, 2, 0, 1]  # labels 1 1 1 0 0 2: samples 3 0 5 4 1
    assert np.array_equal(part.images[:, 0].numpy(), pixels[[3, 0, 5, 4, 1]])
    assert whole.task.outputs[2] == "Pullover" and whole.task == part.task
    for limit in (0, 7):
        with pytest.raises(ValueError, match=f"expected limit from 1 to 6, .*, got {limit}"):
            fashion_mnist("train", folder=tmp_path, limit=limit)


@pytest.mark.parametrize("keep", [0, 3, 1000])
def test_a_truncated_file_of_torchvision_says_to_fetch_it_again(tmp_path, keep):
    write_fashion(tmp_path)
    file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"FashionMNIST/raw does not read .*delete that folder .*download=True"):
        fashion_mnist("train", folder=tmp_path)


def test_cifar10_in_the_official_layout(tmp_path, monkeypatch):
    pixels = write_cifar(tmp_path, monkeypatch)
    dataset = cifar10("train", folder=tmp_path)
    assert np.array_equal(dataset.images.numpy(), pixels) and dataset.images.is_contiguous()
    assert dataset.targets.tolist() == [2, 2, 0, 1] and dataset.task.outputs == ("plane", "car", "bird")
    assert cifar10("test", folder=tmp_path, limit=3).targets.tolist() == [0, 1, 2]


def test_a_packed_cifar10_serves_where_the_official_files_are_absent(tmp_path, monkeypatch):
    file = tmp_path / "grey.png"
    plain(77, file, size=(32, 32))
    data = np.frombuffer(file.read_bytes(), np.uint8)
    arrays = {"jpeg": data, "offset": [0, len(data)], "label": [1], "classes": ["plane", "car"]}
    np.savez(tmp_path / "cifar10_train.npz", **arrays)
    dataset = cifar10("train", folder=tmp_path)
    assert (dataset.images == 77).all() and dataset.targets.tolist() == [1]
    assert dataset.task.name == "CIFAR-10" and dataset.task.outputs == ("plane", "car")
    write_cifar(tmp_path, monkeypatch)
    assert len(cifar10("train", folder=tmp_path)) == 4


def test_official_cifar_files_with_another_checksum_are_not_unpickled(tmp_path):
    """A pickle may run code when it is read; this one would leave a file behind."""
    place = tmp_path / "cifar-10-batches-py"
    place.mkdir()
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        (place / name).write_bytes(b"cpathlib\nPath\n(S'" + str(tmp_path / "ran").encode() + b"'\ntRq\x00.")
    with pytest.raises(ValueError, match="CIFAR-10 in .* does not read .*corrupted.*delete that folder"):
        cifar10("train", folder=tmp_path)


def test_gtsrb_training_images_stand_nearest_frame_first(tmp_path):
    write_gtsrb(tmp_path)
    dataset = gtsrb("train", folder=tmp_path, limit=100)
    assert dataset.images.shape == (100, 3, 32, 32) and len(dataset.task.outputs) == 43
    assert dataset.targets.tolist() == [*range(43), *range(43), *range(14)]
    red, sign, frame = dataset.images[:, :, 0, 0].unbind(1)
    assert torch.equal(red.long(), dataset.targets)
    assert frame[:86].eq(1).all() and frame[86:].eq(0).all()
    assert sign[:43].eq(1).all() and sign[43:86].eq(0).all()
    assert len(gtsrb("train", folder=tmp_path, size=16)) == 172


def test_gtsrb_test_labels_come_from_the_table(tmp_path):
    write_gtsrb(tmp_path)
    dataset = gtsrb("test", folder=tmp_path, size=10)
    assert dataset.images.shape == (3, 3, 10, 10) and dataset.targets.tolist() == [5, 42, 0]
    assert dataset.images[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_gtsrb_names_its_43_signs():
    assert len(images.GTSRB_SIGNS) == len(set(images.GTSRB_SIGNS)) == 43
    some = {
        0: "limit 20",
        8: "limit 120",
        14: "stop",
        16: "no lorries",
        17: "no entry",
        25: "road works",
        40: "roundabout",
    }
    assert {k: images.GTSRB_SIGNS[k] for k in some} == some


@pytest.mark.parametrize("table", [None, "", "Filename,ClassId\na.ppm,3", "Filename;ClassId\na.ppm;x"])
def test_gtsrb_without_its_table_says_so(tmp_path, table):
    write_gtsrb(tmp_path)
    file = tmp_path / "gtsrb" / "GT-final_test.csv"
    file.unlink() if table is None else file.write_text(table)
    with pytest.raises(ValueError, match=r"expected the labels of .* in .*GT-final_test.csv.*fetch it again"):
        gtsrb("test", folder=tmp_path)


def test_gtsrb_with_a_class_missing_says_so(tmp_path):
    write_gtsrb(tmp_path)
    (tmp_path / "gtsrb" / "GTSRB" / "Training" / "00042").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="expected 43 classes in .*, got 42"):
        gtsrb("train", folder=tmp_path)


def test_image_folder_has_a_class_for_each_sub_folder_in_the_order_of_names(tmp_path):
    for name, colour in (("cats/2.png", 20), ("cats/1.jpg", 10), ("cats/deep/3.PNG", 30), ("ants/1.bmp", 40)):
        plain(colour, tmp_path / name, size=(6, 9))
    (tmp_path / "cats" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    dataset = image_folder(tmp_path, size=5)
    assert dataset.task.outputs == ("ants", "cats") and dataset.targets.tolist() == [0, 1, 1, 1]
    assert dataset.images.shape == (4, 3, 5, 5) and dataset.images.dtype == torch.uint8
    assert dataset.images[:, 0, 2, 2].tolist() == [40, 10, 20, 30]
    assert image_folder(tmp_path, size=5, limit=2).targets.tolist() == [0, 1]


def test_image_folder_resizes_by_averaging(tmp_path):
    """Columns 0 and 100 in turn, shrunk to half with a triangle of four columns: 50 inside."""
    columns = np.tile(np.array([0, 100], dtype=np.uint8), (16, 8))
    (tmp_path / "a").mkdir()
    Image.fromarray(columns).save(tmp_path / "a" / "1.png")
    assert (image_folder(tmp_path, size=8).images[..., 1:-1].float() - 50).abs().max() <= 1


def test_image_folder_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*sub-folder .*dataset=signs"):
        image_folder(tmp_path / "nowhere", size=8)
    with pytest.raises(ValueError, match="it has no sub-folders"):
        image_folder(tmp_path, size=8)
    plain(0, tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="sub-folder b has none"):
        image_folder(tmp_path, size=8)


@pytest.mark.parametrize("name", ["2.png", "2.jpg", "2.bmp", "2.gif", "2.ppm", "2.webp", "2.tiff"])
@pytest.mark.parametrize("broken", ["empty", "truncated", "text"])
def test_an_image_that_does_not_decode_is_named(tmp_path, name, broken):
    plain(0, tmp_path / "a" / "1.png")
    noise = torch.randint(256, (32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    file = tmp_path / "a" / name
    Image.fromarray(noise.numpy()).save(file)
    data = file.read_bytes()
    file.write_bytes({"empty": b"", "truncated": data[: len(data) // 2], "text": b"<html>404</html>"}[broken])
    with pytest.raises(ValueError, match=rf"a/{name} \(image 1\) does not decode as an image .*; replace it"):
        image_folder(tmp_path, size=8)


def test_a_compressed_download_left_unpacked_is_absent(tmp_path):
    """Only gzip files, as an interrupted fetch leaves them: there is nothing to read, and the message says fetch."""
    place = tmp_path / "FashionMNIST" / "raw"
    place.mkdir(parents=True)
    (place / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(ValueError, match="not found.*download=True"):
        fashion_mnist("train", folder=tmp_path)


def test_download_is_handed_to_torchvision_and_nothing_else_downloads(tmp_path, monkeypatch):
    datasets, asked = load_torchvision().datasets, []

    def fetch(self):
        asked.append(type(self).__name__)
        write_fashion(tmp_path) if asked[-1] == "FashionMNIST" else write_gtsrb(tmp_path)

    monkeypatch.setattr(datasets.FashionMNIST, "download", fetch)
    monkeypatch.setattr(datasets.GTSRB, "download", fetch)
    assert len(fashion_mnist("test", folder=tmp_path, download=True)) == 6
    assert len(gtsrb("test", folder=tmp_path, download=True)) == 3
    assert asked == ["FashionMNIST", "GTSRB"]
    fashion_mnist("test", folder=tmp_path), gtsrb("train", folder=tmp_path)
    assert len(asked) == 2


@pytest.mark.skipif(not (REAL / "cifar10_test.npz").exists(), reason="no packed CIFAR-10 beside the repository")
def test_packed_cifar10_is_cifar10():
    """The mean colour of CIFAR-10 is (125.3, 123.0, 113.9) of 255; its packed file interleaves the classes."""
    dataset = cifar10("test", folder=REAL, limit=2000)
    assert dataset.images.shape == (2000, 3, 32, 32) and dataset.task.name == "CIFAR-10"
    assert dataset.targets.bincount().tolist() == [200] * 10
    assert dataset.task.outputs[0] == "airplane" and dataset.task.outputs[9] == "truck"
    colour = dataset.images.double().mean((0, 2, 3))
    assert (colour - torch.tensor([125.3, 123.0, 113.9])).abs().max() < 3
