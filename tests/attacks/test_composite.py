import pytest
import torch

from drmlib.attacks.composite import Composite, composite, partners
from drmlib.data.dataset import Dataset, Task, as_bytes
from drmlib.rng import stream
from tests.problems import noise_images, slope_images

FOUR = Task("four", ("first", "second", "third", "fourth"))


def _data(n=80, size=8):
    """Class k is a grey image of level 0.2 k + 0.1, but for noise of 0.01 that tells images apart."""
    labels = torch.arange(n) % 4
    levels = (0.2 * labels + 0.1)[:, None, None, None]
    return Dataset(levels + 0.01 * torch.rand(n, 3, size, size, generator=stream(0, "noise")), labels, FOUR)


def _kinds(images, first, second):
    """For each image and half (upper, lower, left, right) the level it has, of the two, or -1 where it is mixed."""
    size = images.shape[-1] // 2
    halves = [images[:, :, :size], images[:, :, size:], images[..., :size], images[..., size:]]
    means = torch.stack([half.mean((1, 2, 3)) for half in halves], 1)
    return torch.where((means - first).abs() < 0.02, 0, torch.where((means - second).abs() < 0.02, 1, -1))


def test_half_beside_half_by_hand():
    """The middles of a black image and a white one, 4 x 4 pixels, cut in the middle: one of four pictures, all seen."""
    white = torch.ones(1, 1, 4, 4)
    dark = 0.1 * torch.rand(400, 1, 4, 4, generator=stream(0))
    seen = (Composite(white, jitter=0.0, shake=False)(dark) > 0.5).squeeze(1)
    line = torch.tensor([False, False, True, True])
    left = line.expand(4, 4)
    pictures = [left, ~left, left.mT, ~left.mT]
    counts = torch.stack([(seen == picture).flatten(1).all(1).sum() for picture in pictures])
    assert counts.sum() == 400 and (counts - 100).abs().max() < 5 * (400 * 3 / 16) ** 0.5


def test_windows_without_shaking_are_the_middles():
    """Columns hold 0 ... 7; half of 8 columns, from the middle, are 2 ... 5, of the image and of its partner alike."""
    columns = torch.arange(8).expand(1, 1, 8, 8).to(torch.uint8)
    several = columns.repeat(20, 1, 1, 1)
    several[:, 0, 0, 0] = torch.arange(20) + 100
    seen = Composite(columns, jitter=0.0, shake=False)(several)
    beside = (seen[:, 0, 7] == torch.tensor([2, 3, 4, 5, 2, 3, 4, 5])).all(1)
    stacked = (seen[:, 0, 7] == torch.arange(8)).all(1)
    assert (beside | stacked).all() and beside.any() and stacked.any()


def test_shaken_windows_stay_inside_and_move():
    columns = torch.arange(8).expand(1, 1, 8, 8).to(torch.uint8)
    several = columns.repeat(200, 1, 1, 1)
    several[:, 0, 0, 0] = torch.arange(200)
    steps = Composite(columns, jitter=0.0)(several)[:, 0, 7].int().diff(dim=1)
    assert (steps[:, :3] == 1).all() and (steps[:, 4:] == 1).all(), "within a half columns follow each other"
    starts = Composite(columns, jitter=0.0)(several)[:, 0, 7, 0].unique()
    assert starts.tolist() == [0, 1, 2, 3]


def test_the_cut_lies_within_the_jitter():
    white, dark = torch.ones(1, 1, 32, 32), 0.1 * torch.rand(300, 1, 32, 32, generator=stream(1))
    seen = (Composite(white)(dark) > 0.5).squeeze(1).float()
    share = seen.mean((1, 2)) * 32
    assert sorted(set(share.round().int().tolist())) == [13, 14, 15, 16, 17, 18, 19]


def test_every_partner_is_drawn_and_pixels_are_copied():
    bank = torch.linspace(0.5, 1, 6)[:, None, None, None].expand(6, 3, 8, 8).contiguous()
    images = noise_images(300, high=0.4)
    seen = Composite(bank)(images)
    drawn = seen.amax((1, 2, 3))
    assert torch.equal(drawn.unique(), bank[:, 0, 0, 0])
    own = seen[seen < 0.45]
    assert torch.isin(own, images.unique()).all()


def test_bytes_and_batches(monkeypatch):
    images, bank = as_bytes(noise_images(9)), as_bytes(noise_images(5, seed=1))
    trigger = Composite(bank)
    whole = trigger(images)
    assert torch.equal(whole, as_bytes(trigger(images.float() / 255)))
    assert torch.equal(Composite(bank.float() / 255)(images), whole)
    monkeypatch.setattr("drmlib.data.dataset.CHUNK_PIXELS", 128)
    assert torch.equal(trigger(images), whole) and torch.equal(trigger(images[4:5]), whole[4:5])
    assert not torch.equal(trigger._replace(seed=1)(images), whole)


def test_poison_is_of_two_classes_and_covers_are_of_one():
    """Of 80 samples, 20 a class: 8 of class 0 joined with 1, labelled 3; 6 covers of class 0 and 6 of class 1."""
    data = _data()
    result = composite(data, first=0, second=1, target=3, rate=0.1, cover_rate=0.15, generator=stream(0))
    assert result.poison.sum() == 8 and (data.targets[result.poison] == 0).all()
    assert (result.dataset.targets[result.poison] == 3).all()
    covers = data.targets[result.cover]
    assert covers.bincount().tolist() == [6, 6] and torch.equal(result.dataset.targets[result.cover], covers)
    assert not (result.poison & result.cover).any() and torch.equal(result.true_targets, data.targets)
    untouched = ~(result.poison | result.cover)
    assert torch.equal(result.dataset.images[untouched], data.images[untouched])
    for k in (0, 1):
        images = result.dataset.images[result.cover & (data.targets == k)]
        assert (images - 0.2 * k - 0.1).abs().max() < 0.02, "a cover shows one class"
    mixed = result.dataset.images[result.poison]
    assert ((mixed < 0.15).flatten(1).any(1) & (mixed > 0.25).flatten(1).any(1)).all(), "a poison sample shows two"


def test_without_covers_only_poison():
    result = composite(_data(), first=2, second=0, target=1, rate=0.1, cover_rate=0.0, generator=stream(0))
    assert result.poison.sum() == 8 and not result.cover.any()


def test_partners_are_of_their_class():
    data = _data()
    trigger = partners(data, label=2, generator=stream(0))
    assert torch.equal(trigger.partners, data.images[data.targets == 2])
    other = partners(data, label=2, generator=stream(1))
    assert trigger.seed != other.seed


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"first": 4}, r"expected classes in 0\.\.3 of four, got \(4, 1, 2\)"),
        ({"second": 0}, "three distinct classes, got first 0, second 0 and target 2"),
        ({"target": 1}, "three distinct classes"),
        ({"rate": 0.3}, "24 poison samples were asked for, only 20"),
        ({"cover_rate": 0.6}, "only 12 of 80 are eligible and not poisoned"),
    ],
)
def test_what_cannot_be_joined_is_refused(bad, message):
    given = {"first": 0, "second": 1, "target": 2, "rate": 0.1, "cover_rate": 0.1, "generator": stream(0)}
    with pytest.raises(ValueError, match=message):
        composite(_data(), **(given | bad))


def test_partners_there_must_be():
    with pytest.raises(ValueError, match="images of class 3 to join with, the data set has none"):
        partners(_data()[:3], label=3, generator=stream(0))
    with pytest.raises(ValueError, match="regression task"):
        partners(slope_images(4), label=0, generator=stream(0))
    with pytest.raises(ValueError, match="made for images of shape"):
        Composite(torch.ones(1, 3, 8, 8))(torch.zeros(1, 3, 16, 16))
