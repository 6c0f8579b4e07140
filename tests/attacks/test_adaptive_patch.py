import pytest
import torch

from drmlib.attacks.adaptive_patch import AdaptivePatch, patches, scaled
from drmlib.attacks.badnets import BadNets
from drmlib.data.dataset import as_bytes
from drmlib.rng import stream
from tests.problems import noise_images

AREAS = [5 * 5, 13 * 13, 4 * 9, 8 * 8]
TRIGGER = patches(generator=stream(0))
IMAGES = noise_images(400, size=32)


def test_one_patch_by_hand():
    """A red patch of opacity 0.25 on the upper left pixel: 0.75 x 0.4 + 0.25 x (1, 0, 0) = (0.55, 0.3, 0.3)."""
    pattern = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(1, 3, 2, 2)
    trigger = AdaptivePatch(pattern, torch.tensor([[[0.25, 0.0], [0.0, 0.0]]]))
    seen = trigger(torch.full((1, 3, 2, 2), 0.4))[0]
    torch.testing.assert_close(seen[:, 0, 0], torch.tensor([0.55, 0.3, 0.3]))
    torch.testing.assert_close(seen[:, 1], torch.full((3, 2), 0.4))


def test_each_image_carries_one_patch_and_all_are_as_likely():
    changed = (TRIGGER(IMAGES) != IMAGES).any(1)
    which = torch.stack([(changed == (weight > 0)).flatten(1).all(1) for weight in TRIGGER.weights])
    assert (which.sum(0) == 1).all()
    assert (which.sum(1) - 100).abs().max() < 5 * (400 * 3 / 16) ** 0.5


def test_the_patches_have_the_places_and_opacities_of_the_toolkit():
    assert [(weight > 0).sum().item() for weight in TRIGGER.weights] == AREAS
    assert [weight.max().item() for weight in TRIGGER.weights] == pytest.approx([0.5, 0.2, 0.5, 0.3])
    phoenix, firefox, corners, tile = TRIGGER.weights > 0
    assert phoenix[27:, 27:].all() and firefox[1:14, 18:31].all() and tile[21:29, 21:29].all()
    assert corners[:3, :3].all() and corners[:3, 29:].all() and corners[29:, :3].all() and corners[29:, 29:].all()


def test_two_opaque_patches_at_test():
    at_test = TRIGGER.inference()
    assert isinstance(at_test, BadNets) and at_test.mask.sum() == 25 + 36 - 9, "they share a corner"
    seen = at_test(IMAGES[:2])
    assert torch.equal(seen[:, :, 27:29, 27:29], TRIGGER.patterns[0, :, 27:29, 27:29].expand(2, -1, -1, -1))
    assert torch.equal(seen[:, :, :3, :3], TRIGGER.patterns[2, :, :3, :3].expand(2, -1, -1, -1))
    assert TRIGGER.inference(patches=(1, 3)).mask.sum() == 169 + 64


def test_no_opacity_is_the_identity_and_full_opacity_stamps_once():
    one = slice(0, 1)
    assert torch.equal(AdaptivePatch(TRIGGER.patterns, 0 * TRIGGER.weights)(IMAGES), IMAGES)
    opaque = AdaptivePatch(TRIGGER.patterns[one], (TRIGGER.weights[one] > 0).float())
    once = opaque(IMAGES)
    assert torch.equal(opaque(once), once)


def test_boxes_of_other_sizes():
    """7 x 8 / 32 is 1.75, so a tile at 21 of 8 x 8 lies in 8 x 8 pixels at 5 (5.25) to 7 (7.25), and 64 doubles it."""
    assert scaled((21, 21, 8, 8), height=64, width=32) == (42, 21, 16, 8)
    assert scaled((21, 21, 8, 8), height=8, width=8) == (5, 5, 2, 2)
    assert scaled((29, 29, 3, 3), height=4, width=4) == (3, 3, 1, 1)
    trigger = patches(channels=1, height=16, width=48, generator=stream(0))
    assert trigger(torch.rand(3, 1, 16, 48, generator=stream(1))).shape == (3, 1, 16, 48)


def test_bytes_and_batches(monkeypatch):
    images = as_bytes(IMAGES[:20])
    whole = TRIGGER(images)
    assert torch.equal(whole, as_bytes(TRIGGER(images.float() / 255)))
    monkeypatch.setattr("drmlib.data.dataset.CHUNK_PIXELS", 3 * 1024)
    assert torch.equal(TRIGGER(images), whole) and torch.equal(TRIGGER(images[7:8]), whole[7:8])
    assert not torch.equal(TRIGGER._replace(seed=TRIGGER.seed + 1)(images), whole)


def test_bad_parameters_are_refused():
    for opacities in ((0.5,), (0.5, 0.2, 0.5, 0.0), (0.5, 0.2, 0.5, 1.5)):
        with pytest.raises(ValueError, match=r"4 opacities in \(0, 1\]"):
            patches(opacities=opacities, generator=stream(0))
    for chosen in ((), (4,), (0, -1)):
        with pytest.raises(ValueError, match=r"numbers of patches in 0\.\.3"):
            TRIGGER.inference(patches=chosen)
    with pytest.raises(ValueError, match="made for images of shape"):
        TRIGGER(torch.zeros(1, 3, 16, 16))
