"""The model cache: what is in the key, what comes back, and what happens to damaged entries and unusable folders."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import time
import warnings

import pytest
import torch
from torch import nn

from drmlib import rng
from drmlib.data.dataset import Dataset, Task
from drmlib.lab import cache, entry
from drmlib.training import fit as training
from drmlib.training.fit import MultiStep, Recipe

TASK = Task("two classes", ("a", "b"))
RECIPE = Recipe(nn.functional.cross_entropy, epochs=2, batch_size=8)


def dataset():
    images = torch.rand(32, 1, 4, 4, generator=rng.stream(0, "images"))
    return Dataset(images, (images.mean((1, 2, 3)) > 0.5).long(), TASK)


def model(seed=0, stride=1):
    with rng.seeded_layers(rng.stream(seed, "layers")):
        return nn.Sequential(
            nn.Conv2d(1, 3, 3, stride, 1), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
        )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DRMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache.sources, "changed_since", lambda start, files: [])  # files may be edited while tests run
    return tmp_path / "cache"


@pytest.fixture
def trainings(monkeypatch):
    """A list that grows by one with each training that takes place."""
    calls, fit = [], training.fit
    monkeypatch.setattr(training, "fit", lambda *args, **rest: calls.append(1) or fit(*args, **rest))
    return calls


def run(net=None, data=None, recipe=RECIPE, generator=None):
    net, generator = net or model(), generator or rng.stream(0, "fit")
    history = cache.cached_fit(net, data or dataset(), recipe, generator=generator)
    return net, history, generator


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_second_call_brings_everything_back_without_training(folder, trainings):
    (cold, history, after), (warm, again, after_again) = run(), run()
    assert len(trainings) == 1
    assert same(cold, warm) and not same(cold, model())
    assert again == history and isinstance(again, training.History)
    assert torch.equal(after.get_state(), after_again.get_state())
    assert not warm.training and not cold.training
    assert torch.equal(cold(dataset().images), warm(dataset().images))
    assert [p.stride() for p in cold.parameters()] == [p.stride() for p in warm.parameters()]


def test_cached_equals_plain_fit(folder):
    cached, history, _ = run()
    plain = model()
    direct = training.fit(plain, dataset(), RECIPE, generator=rng.stream(0, "fit"))
    assert same(cached, plain) and history.loss == direct.loss


def one_bit():
    data = dataset()
    data.images.view(torch.int32)[3, 0, 1, 2] ^= 1
    return data


def relabelled():
    data = dataset()
    data.targets[5] = 1 - data.targets[5]
    return data


def frozen():
    net = model()
    net[4].bias.requires_grad_(False)
    return net


@pytest.mark.parametrize(
    "change",
    [
        {"data": one_bit},
        {"data": relabelled},
        {"data": lambda: dataset()[:31]},
        {"net": lambda: model(seed=1)},
        {"net": lambda: model(stride=2)},
        {"net": frozen},
        {"recipe": lambda: dataclasses.replace(RECIPE, learning_rate=2.9e-3)},
        {"recipe": lambda: dataclasses.replace(RECIPE, schedule=MultiStep())},
        {"recipe": lambda: dataclasses.replace(RECIPE, schedule=MultiStep((0.4,)))},
        {"recipe": lambda: dataclasses.replace(RECIPE, frozen_norms=True)},
        {"recipe": lambda: dataclasses.replace(RECIPE, autocast=torch.bfloat16)},
        {"recipe": lambda: Recipe(nn.functional.multi_margin_loss, epochs=2, batch_size=8)},
        {"generator": lambda: rng.stream(1, "fit")},
    ],
)
def test_each_ingredient_is_in_the_key(folder, trainings, change):
    keys = []
    for over in ({}, {k: make() for k, make in change.items()}):
        parts = {"net": model(), "data": dataset(), "recipe": RECIPE, "generator": rng.stream(0, "fit"), **over}
        keys.append(cache._key(parts["net"], parts["data"], parts["recipe"], parts["generator"])[0])
    assert keys[0] != keys[1]


def test_key_does_not_depend_on_the_mode_or_the_layout_of_the_model(folder):
    plain, evaluated = model(), model().eval().to(memory_format=torch.channels_last)
    keys = [cache._key(net, dataset(), RECIPE, rng.stream(0, "fit")) for net in (plain, evaluated)]
    assert keys[0] == keys[1]


def cut(path):
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-1])


def flip(path):
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)


def other_loss(path):
    stored = json.loads((path / "entry.json").read_text())
    stored["record"]["history"]["loss"][0] += 1
    (path / "entry.json").write_text(json.dumps(stored))


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flip,
        other_loss,
        lambda path: (path / "model.safetensors").unlink(),
        lambda path: (path / "entry.json").unlink(),
        lambda path: (path / "entry.json").write_text("{"),
        lambda path: (path / "entry.json").write_bytes(b"\xff\xfe\x00"),
        lambda path: (path / "entry.json").write_text("[]"),
    ],
)
def test_damaged_entry_is_noticed_said_and_trained_again(folder, trainings, damage):
    cold, _, _ = run()
    (stored,) = (path for path in folder.iterdir() if path.is_dir())
    damage(stored)
    with pytest.warns(UserWarning, match=f"{stored.name} is damaged .* trained again") as warned:
        again, _, _ = run()
    assert len(trainings) == 2 and same(cold, again) and len(warned) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()
    assert len(trainings) == 2


def test_an_entry_of_another_model_is_damaged_and_leaves_the_model_alone(folder):
    run()
    (stored,) = (path for path in folder.iterdir() if path.is_dir())
    net = nn.Linear(2, 2)
    before = net.weight.clone()
    with pytest.warns(UserWarning, match="not those of the model"):
        assert entry.read(stored, net, rng.stream(0)) is None
    assert torch.equal(net.weight, before)


def count_and_fit(log, results):
    plain = training.fit

    def fit(*args, **rest):
        with open(log, "a") as file:
            file.write("trained\n")
        time.sleep(0.5)
        return plain(*args, **rest)

    training.fit = fit
    cache.sources.changed_since = lambda start, files: []
    net, _, _ = run()
    results.put(net[4].weight.tolist())


@pytest.mark.slow
def test_two_processes_train_once(folder, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    workers = [spawn.Process(target=count_and_fit, args=(tmp_path / "log", results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    weights = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert (tmp_path / "log").read_text() == "trained\n"
    assert weights[0] == weights[1] == run()[0][4].weight.tolist()


def test_off_trains_every_time_and_writes_nothing(tmp_path, monkeypatch, trainings):
    monkeypatch.setenv("DRMLIB_CACHE", "off")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    run(), run()
    assert len(trainings) == 2 and not list(tmp_path.iterdir()) and cache.location() is None


def test_location(monkeypatch, tmp_path):
    monkeypatch.delenv("DRMLIB_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.location() == tmp_path / ".cache" / "drmlib"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache.location() == tmp_path / "x" / "drmlib"
    monkeypatch.setenv("DRMLIB_CACHE", "~/mine")
    assert cache.location() == tmp_path / "mine"


def test_unwritable_folder_costs_a_warning_not_the_model(tmp_path, monkeypatch, folder):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("DRMLIB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot use the cache"):
        net, history, _ = run()
    assert not same(net, model()) and len(history.loss) == 2


def test_full_disk_costs_a_warning_not_the_model(folder, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(entry.Path, "write_bytes", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        net, _, _ = run()
    assert not same(net, model())
    assert not [path for path in folder.iterdir() if path.is_dir()]


def test_a_failed_training_leaves_no_entry_and_no_lock_behind(folder, monkeypatch):
    diverging = dataclasses.replace(RECIPE, learning_rate=float("inf"))
    for _ in range(2):
        with pytest.raises(FloatingPointError):
            run(recipe=diverging)
    assert cache.size(folder).entries == 0


def test_size_and_clear_touch_only_entries(folder):
    assert cache.size(folder) == (0, 0)
    run()
    (folder / "thesis.tex").write_text("precious")
    (folder / "photos").mkdir()
    before = cache.size(folder)
    assert before.entries == 1 and before.bytes > 5000
    assert cache.clear(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == ["photos", "thesis.tex"]
    assert cache.size(folder) == (0, 0)


def test_code_changed_after_the_process_started_is_not_trusted(folder, monkeypatch, tmp_path, trainings):
    newer = tmp_path / "newer.py"
    newer.write_text("")
    os.utime(newer, (time.time() + 60,) * 2)
    monkeypatch.undo()
    monkeypatch.setenv("DRMLIB_CACHE", str(folder))
    assert cache.sources.changed_since(time.time(), (newer,)) == [newer]
    monkeypatch.setattr(cache.sources, "changed_since", lambda start, files: [newer])
    with pytest.warns(UserWarning, match="newer.py changed after this kernel started"):
        run()
    assert not folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
