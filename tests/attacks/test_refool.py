import pytest
import torch

from drmlib.attacks.refool import GAMMA, Refool, reflections
from drmlib.data.dataset import as_bytes
from drmlib.rng import stream
from tests.problems import noise_images

SIDE = 16
BANK = noise_images(6, size=SIDE, high=1.0, seed=1)
IMAGES = noise_images(8, size=SIDE, high=1.0)


def _trigger(**changes):
    return reflections(BANK, **({"count": 4, "levels": 3, "generator": stream(0)} | changes))


def test_a_ghost_of_an_even_scene_by_hand():
    """Both copies of an even reflection of level b are b, so x' = (0.4 a^2.2 + 0.6 b^2.2)^(1 / 2.2)."""
    trigger = reflections(torch.full((1, 3, SIDE, SIDE), 0.5), count=1, ghost_rate=1.0, generator=stream(0))
    expected = (0.4 * 0.8**2.2 + 0.6 * 0.5**2.2) ** (1 / 2.2)
    seen = trigger(torch.full((2, 3, SIDE, SIDE), 0.8))
    torch.testing.assert_close(seen, torch.full_like(seen, expected))


def test_a_blurred_reflection_of_an_even_scene_by_hand():
    """a^2.2 + b^2.2 = 0.25 + 0.25 < 1 overexposes nothing, so x' is (0.4 a^2.2 + 0.8 window b^2.2)^(1 / 2.2).

    The window is exp(-9 (x^2 + y^2) / 4), x and y in [-1, 1]: at the centre of the four middle pixels of 16, 1/16 off,
    exp(-9 / 512).
    """
    level = 0.25 ** (1 / 2.2)
    trigger = reflections(torch.full((1, 3, SIDE, SIDE), level), count=1, ghost_rate=0.0, generator=stream(0))
    seen = trigger(torch.full((1, 3, SIDE, SIDE), level))[0, 0].pow(GAMMA)
    middle = 0.4 * 0.25 + 0.8 * torch.exp(torch.tensor(-9 / 512)) * 0.25
    torch.testing.assert_close(seen[7:9, 7:9], middle.expand(2, 2))
    assert seen[0, 0] == pytest.approx(0.4 * 0.25, abs=0.01), "the reflection has faded at the corner"


def test_an_overexposed_image_takes_from_the_reflection():
    """0.9 + 0.6 is 0.5 too much: at least 1.08 x 0.5 goes, at most 1.18 x 0.5, of the reflection's 0.6."""
    bank, image = (torch.full((1, 1, SIDE, SIDE), light ** (1 / 2.2)) for light in (0.6, 0.9))
    trigger = reflections(bank, count=1, ghost_rate=0.0, generator=stream(0))
    left = (trigger(image).pow(GAMMA) - 0.36)[0, 0, 7, 7] / 0.8 / torch.exp(torch.tensor(-9 / 512))
    assert 0.6 - 0.59 - 1e-4 <= left <= 0.6 - 0.54 + 1e-4


def test_the_two_copies_of_a_ghost_are_apart_by_the_offset():
    """A single bright pixel is seen twice: copies 4 pixels apart, stretched by 16 / 12, are 5.3 pixels apart."""
    bank = torch.zeros(1, 1, SIDE, SIDE)
    bank[0, 0, 8, 8] = 1
    trigger = reflections(bank, count=1, ghost_rate=1.0, alpha=0.0, offsets=(4, 4), generator=stream(0))
    light = trigger(torch.zeros(1, 1, SIDE, SIDE)).pow(GAMMA)[0, 0].sum(1)
    peaks = [light[:8].argmax().item(), 8 + light[8:].argmax().item()]
    assert peaks[1] - peaks[0] in (5, 6) and light[peaks[0] + 2] == 0


def test_the_image_alone_is_left_when_it_has_all_the_weight():
    trigger = _trigger(alpha=1.0, ghost_rate=1.0)
    torch.testing.assert_close(trigger(IMAGES), IMAGES, rtol=0, atol=1e-5)
    assert torch.equal(trigger(as_bytes(IMAGES)), as_bytes(IMAGES))


def test_reflections_are_as_likely_and_ghosts_have_their_rate():
    """Bank images are even and of levels 0.1 ... 0.6, so a black image's ghost tells which was drawn."""
    bank = torch.linspace(0.1, 0.6, 6)[:, None, None, None].expand(6, 1, SIDE, SIDE).contiguous()
    dark = torch.zeros(300, 1, SIDE, SIDE)
    dark[:, 0, 0, 0], dark[:, 0, 0, 1] = torch.arange(300) % 20 / 255, torch.arange(300) // 20 / 255
    trigger = reflections(bank, count=6, ghost_rate=1.0, alpha=0.0, generator=stream(0))
    seen = trigger(dark)[:, 0, 8, 8].mul(10).round().long().bincount(minlength=7)[1:]
    assert seen.sum() == 300 and (seen - 50).abs().max() < 5 * (300 * 5 / 36) ** 0.5
    half = reflections(bank, count=6, ghost_rate=0.49, alpha=0.0, generator=stream(0))(dark)
    is_ghost = half[:, 0].flatten(1).std(1) < 1e-4
    assert abs(is_ghost.float().mean() - 0.49) < 5 * (0.25 / 300) ** 0.5


def test_blurs_grow_with_the_level():
    trigger = _trigger()
    spread = trigger.blurred.flatten(2).std(2).mean(1)
    assert trigger.blurred.shape == (3, 4, 3, SIDE, SIDE) and (spread.diff() < 0).all()
    assert trigger.sharp.flatten(1).std(1).mean() > spread[0]


def test_bytes_and_batches(monkeypatch):
    trigger, images = _trigger(), as_bytes(IMAGES)
    whole = trigger(images)
    assert torch.equal(whole, as_bytes(trigger(images.float() / 255)))
    monkeypatch.setattr("drmlib.data.dataset.CHUNK_PIXELS", 3 * SIDE**2)
    assert torch.equal(trigger(images), whole) and torch.equal(trigger(images[2:3]), whole[2:3])
    assert not torch.equal(trigger._replace(seed=trigger.seed + 1)(images), whole)


def test_the_reflections_are_images_of_the_set_in_light():
    trigger = reflections(as_bytes(BANK), count=3, generator=stream(2))
    known = (as_bytes(BANK).float() / 255).pow(GAMMA)
    assert all((known == one).flatten(1).all(1).any() for one in trigger.sharp)
    assert isinstance(trigger, Refool) and len(trigger.blurred) == 8


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"count": 7}, "from 1 to the 6 images, got 7"),
        ({"alpha": 1.2}, r"in \[0, 1\], got 1.2"),
        ({"ghost_rate": -0.1}, "got 0.4 and -0.1"),
        ({"offsets": (3, 16)}, "below the images' 16 pixels"),
        ({"sigmas": (5.0, 1.0)}, "rising positive sigmas"),
        ({"levels": 0}, "at least one level"),
    ],
)
def test_bad_parameters_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        _trigger(**bad)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="made for images of shape"):
        _trigger()(torch.zeros(1, 3, 8, 8))
