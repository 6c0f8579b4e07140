import pytest
import torch

from drmlib.attacks.badnets import square
from drmlib.attacks.measure import measure_classifier
from drmlib.attacks.tact import tact, tile
from drmlib.attacks.targets import AllToOne
from drmlib.data.dataset import Dataset, Task
from drmlib.rng import stream
from tests.problems import PlantedClassifier, colour_images, slope_images

TEN = Task("ten", tuple("abcdefghij"))
TRIGGER = tile(height=8, width=8, generator=stream(0))


def _data(n=200):
    images = torch.rand(n, 3, 8, 8, generator=stream(0, "images"))
    return Dataset(images, torch.arange(n) % 10, TEN)


def _attack(data, **changes):
    given = {"source": 1, "cover_classes": (5, 7), "rate": 0.05, "cover_rate": 0.1, "generator": stream(0)}
    return tact(data, TRIGGER, AllToOne(0), **(given | changes))


def test_poison_from_the_source_and_covers_from_their_classes():
    """Of 200 samples 10 are poison, of class 1, relabelled 0; 20 are covers, of classes 5 and 7, with their labels."""
    data = _data()
    result = _attack(data)
    assert result.poison.sum() == 10 and result.cover.sum() == 20
    assert set(data.targets[result.poison].tolist()) == {1}
    assert set(data.targets[result.cover].tolist()) == {5, 7}
    assert set(result.dataset.targets[result.poison].tolist()) == {0}
    assert torch.equal(result.dataset.targets[~result.poison], data.targets[~result.poison])
    stamped = result.poison | result.cover
    assert torch.equal(result.dataset.images[stamped], TRIGGER(data.images[stamped]))
    assert torch.equal(result.dataset.images[~stamped], data.images[~stamped])


def test_it_is_measured_on_the_source_class():
    """The planted classifier says 3 where a pixel is bright: all of class 1 fool it, and they alone are counted."""
    test = colour_images(30)
    trigger = square((1.0, 0.0, 0.0), side=2, height=8, width=8)
    figures = measure_classifier(PlantedClassifier(), test, trigger, AllToOne(3), sources=test.targets == 1)
    assert figures.attack_success_rate.value == 1 and figures.attack_success_rate.n == 10


def test_the_tile_fills_rows_and_columns_21_to_28():
    trigger = tile(generator=stream(0))
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[21:29, 21:29] = True
    assert torch.equal(trigger.mask, inside)
    assert tile(channels=1, height=64, width=96, generator=stream(0)).mask.sum() == 16 * 24


def test_same_seed_same_samples():
    one, two, other = (_attack(_data(), generator=stream(seed)).poison for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"source": 10}, r"expected classes in 0\.\.9 of ten, got \(10, 5, 7\)"),
        ({"cover_classes": (5, -1)}, r"expected classes in 0\.\.9"),
        ({"source": 5}, r"other than the source class 5, got \(5, 7\)"),
        ({"rate": 0.5}, "only 20 of 200 are eligible"),
        ({"cover_classes": ()}, "20 cover samples were asked for, only 0"),
    ],
)
def test_what_cannot_be_poisoned_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        _attack(_data(), **bad)


def test_a_regression_task_has_no_classes():
    with pytest.raises(ValueError, match="pair is a regression task"):
        _attack(slope_images(10, size=8))
