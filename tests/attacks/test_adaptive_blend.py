import pytest
import torch

from drmlib.attacks.adaptive_blend import AdaptiveBlend, noise
from drmlib.attacks.blend import Blend
from drmlib.data.dataset import as_bytes
from drmlib.rng import stream
from tests.problems import noise_images

WHITE = AdaptiveBlend(torch.ones(3, 8, 8), alpha=0.25)


def _tiles(changed, side=4):
    """(n, side, side): how many pixels of each tile are changed."""
    n, _, h, w = changed.shape
    return changed.any(1).view(n, side, h // side, side, w // side).sum((2, 4))


def test_half_of_the_tiles_by_hand():
    """On tiles that are shown 0.75 x 0.4 + 0.25 x 1 = 0.55, elsewhere 0.4; of 16 tiles of 2 x 2 pixels, 8."""
    seen = WHITE(torch.full((1, 3, 8, 8), 0.4))
    levels, counts = seen.unique(return_counts=True)
    assert levels.tolist() == pytest.approx([0.4, 0.55]) and counts.tolist() == [96, 96]


@pytest.mark.parametrize("bytes_", [False, True])
def test_exactly_eight_of_sixteen_tiles_in_training_and_all_at_test(bytes_):
    images = as_bytes(noise_images(200)) if bytes_ else noise_images(200)
    tiles = _tiles(WHITE(images) != images)
    assert set(tiles.unique().tolist()) == {0, 4} and ((tiles > 0).sum((1, 2)) == 8).all()
    assert (_tiles(WHITE.inference()(images) != images) == 4).all()
    share = (tiles > 0).float().mean(0)
    assert (share - 0.5).abs().max() < 5 * (0.25 / 200) ** 0.5, "every tile is as likely as another"


def test_the_trigger_at_test_is_a_more_opaque_blend_of_the_same_key():
    trigger = noise(height=8, width=8, generator=stream(0))
    assert trigger.alpha == 0.15
    at_test = trigger.inference()
    assert isinstance(at_test, Blend) and at_test.alpha == 0.2 and torch.equal(at_test.pattern, trigger.pattern)


def test_masking_nothing_is_blend_and_no_opacity_or_masking_all_is_the_identity():
    images, key = noise_images(5), noise_images(1, seed=1)[0]
    assert torch.equal(AdaptiveBlend(key, mask_rate=0.0)(images), Blend(key, 0.15)(images))
    assert torch.equal(AdaptiveBlend(key, mask_rate=1.0)(images), images)
    assert torch.equal(AdaptiveBlend(key, alpha=0.0)(images), images)


def test_other_sizes_and_numbers_of_tiles():
    """A key of 9 tiles hides round(4.5) = 4 of them; 10 columns make tiles of 4, 3 and 3."""
    trigger = AdaptiveBlend(torch.ones(1, 7, 10), pieces=9)
    changed = (trigger(torch.zeros(50, 1, 7, 10)) > 0)[:, 0]
    assert changed[:, :, :4].flatten(1).any() and (changed[:, :, 0] == changed[:, :, 3]).all()
    corners = changed[:, [0, 3, 5]][:, :, [0, 4, 7]]
    assert (corners.sum((1, 2)) == 5).all()


def test_bytes_and_batches(monkeypatch):
    images = as_bytes(noise_images(9, high=1.0))
    trigger = noise(height=8, width=8, generator=stream(0))
    whole = trigger(images)
    assert (whole.float() - 255 * trigger(images.float() / 255)).abs().max() <= 1.01
    monkeypatch.setattr("drmlib.data.dataset.CHUNK_PIXELS", 128)
    assert torch.equal(trigger(images), whole) and torch.equal(trigger(images[5:6]), whole[5:6])
    assert not torch.equal(trigger._replace(seed=trigger.seed + 1)(images), whole)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"pieces": 15}, "square number of pieces"),
        ({"pieces": 81, "height": 8}, "fit into 8x32 pixels"),
        ({"mask_rate": 1.1}, "mask_rate"),
        ({"alpha": -0.1}, "alpha"),
    ],
)
def test_bad_parameters_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        noise(**bad, generator=stream(0))


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="made for images of shape"):
        WHITE(torch.zeros(1, 3, 32, 32))
