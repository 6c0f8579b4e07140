import pytest
import torch

from drmlib.attacks.badnets import BadNets
from drmlib.attacks.k_way import PLACES, pixels
from drmlib.data.dataset import as_bytes
from tests.problems import noise_images

TRIGGER = pixels()
IMAGES = torch.full((400, 3, 32, 32), 200, dtype=torch.uint8)
IMAGES[:, 0, 0, 0], IMAGES[:, 1, 0, 0] = torch.arange(400) % 250, torch.arange(400) // 250


def test_all_pixels_at_test():
    """The toolkit's four colours at its four places, nothing else."""
    at_test = TRIGGER.inference()
    seen = at_test(IMAGES[:1])[0]
    assert isinstance(at_test, BadNets) and (seen != IMAGES[0]).any(0).sum() == 4
    assert seen[:, 16, 11].tolist() == [92, 0, 24] and seen[:, 27, 5].tolist() == [88, 112, 110]
    assert seen[:, 7, 30].tolist() == [0, 32, 46] and seen[:, 22, 22].tolist() == [11, 49, 95]


def test_one_pixel_an_image_in_training_and_all_are_as_likely():
    changed = (TRIGGER(IMAGES) != IMAGES).any(1)
    assert (changed.sum((1, 2)) == 1).all()
    counts = torch.stack([changed[:, row, column] for row, column in PLACES]).sum(1)
    assert counts.sum() == 400 and (counts - 100).abs().max() < 5 * (400 * 3 / 16) ** 0.5


@pytest.mark.parametrize("bytes_", [False, True])
def test_nothing_changes_outside_the_places(bytes_):
    images = noise_images(20, size=32)
    images = as_bytes(images) if bytes_ else images
    seen, everywhere = TRIGGER(images), TRIGGER.masks.any(0)
    assert torch.equal(seen[:, :, ~everywhere], images[:, :, ~everywhere]) and seen.dtype == images.dtype
    assert torch.equal(TRIGGER.inference()(seen), TRIGGER.inference()(images))


def test_bytes_and_batches(monkeypatch):
    whole = TRIGGER(IMAGES)
    assert torch.equal(whole, as_bytes(TRIGGER(IMAGES.float() / 255)))
    monkeypatch.setattr("drmlib.data.dataset.CHUNK_PIXELS", 7 * 1024)
    assert torch.equal(TRIGGER(IMAGES), whole) and torch.equal(TRIGGER(IMAGES[7:9]), whole[7:9])
    assert not torch.equal(pixels(seed=1)(IMAGES), whole)


def test_larger_images_get_squares_and_grey_ones_the_colours_means():
    """At 64 pixels a pixel is a square of 2 x 2 at twice the place; (92 + 0 + 24) / 3 = 38.67 of 255."""
    large = pixels(channels=1, height=64, width=64)
    assert large.masks.sum((1, 2)).tolist() == [4, 4, 4, 4] and large.masks[0, 32:34, 22:24].all()
    torch.testing.assert_close(large.pattern[0, 32, 22], torch.tensor(116 / 3 / 255))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="expected 3 channels, or 1 for grey, got 4"):
        pixels(channels=4)
    with pytest.raises(ValueError, match="made for images of shape"):
        TRIGGER(noise_images(1, size=16))
