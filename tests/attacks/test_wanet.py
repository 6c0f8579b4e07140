import pytest
import torch

from drmlib.attacks.per_image import uniform
from drmlib.attacks.poison import poison
from drmlib.attacks.targets import AllToOne
from drmlib.attacks.wanet import WaNet, WaNetNoise, warp
from drmlib.data.dataset import as_bytes
from drmlib.rng import stream
from tests.problems import colour_images, noise_images

TRIGGER = warp(height=8, width=8, s=2.0, generator=stream(0))
STILL = warp(height=8, width=8, s=0.0, generator=stream(0))


def test_half_a_pixel_to_the_right_by_hand():
    """In a row 0, 30, 90 pixels lie at x = -1, 0, 1; read at -0.5, 0.5 and 1 they give 15, 60 and 90."""
    grid = torch.tensor([[[-0.5, -1.0], [0.5, -1.0], [1.0, -1.0]], [[-0.5, 1.0], [0.5, 1.0], [1.0, 1.0]]])
    rows = torch.tensor([[[[0, 30, 90], [90, 30, 0]]]], dtype=torch.uint8)
    assert WaNet(grid)(rows).tolist() == [[[[15, 60, 90], [60, 15, 0]]]]


def test_without_strength_it_is_the_identity():
    images = noise_images(5)
    assert (STILL(images) - images).abs().max() < 1e-5
    assert torch.equal(STILL(as_bytes(images)), as_bytes(images))


@pytest.mark.parametrize("trigger", [TRIGGER, TRIGGER.noise(0)])
def test_a_constant_image_stays_as_it_is(trigger):
    for level in (0.0, 0.3, 1.0):
        torch.testing.assert_close(trigger(torch.full((2, 3, 8, 8), level)), torch.full((2, 3, 8, 8), level))
    assert (trigger(torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)) == 77).all()


def test_the_control_points_have_mean_size_one():
    """31 pixels and 4 control points: every tenth pixel is one; rescaled by 0.5, no place is clipped.

    So field = (grid / 0.5 - identity) * height / s there, whose mean size the attack sets to 1.
    """
    grid = warp(height=31, width=31, k=4, s=0.5, grid_rescale=0.5, generator=stream(1)).grid
    line = torch.linspace(-1, 1, 31)
    identity = torch.stack([line.expand(31, 31), line[:, None].expand(31, 31)], -1)
    field = (grid / 0.5 - identity) * 31 / 0.5
    assert field[::10, ::10].abs().mean() == pytest.approx(1, abs=1e-3)


def test_white_stays_within_the_range():
    """The four weights of a place sum to 1 but for a rounding, which must not lead above white."""
    trigger = warp(generator=stream(0))
    assert max(given(torch.ones(4, 3, 32, 32)).max() for given in (trigger, trigger.noise(0))) <= 1


def test_one_warp_for_all_images_and_a_noisy_one_for_each_cover():
    """On a ramp along x an image shows its own grid: the same for all, unless there is noise."""
    ramp = torch.linspace(0.2, 0.8, 8).expand(4, 3, 8, 8) + 0.01 * torch.arange(4)[:, None, None, None]
    plain = TRIGGER(ramp) - ramp
    assert (plain - plain[:1]).abs().max() < 1e-5
    noisy = TRIGGER.noise(0)(ramp) - ramp
    assert (noisy[:1] - noisy[1:]).abs().amax((1, 2, 3)).min() > 1e-3


def test_the_noise_of_a_cover_is_at_most_one_over_its_height():
    """On a ramp from 0 to 1 over 7 steps, x / 2 + 1 / 2 is read: noise of 1/8 at most moves the result by 1/16."""
    ramp = torch.linspace(0, 1, 8).expand(50, 1, 8, 8).clone()
    ramp[:, 0, 0, 0] = torch.arange(50) / 255  # no two alike: their noise would be, too
    moved = (STILL.noise(3)(ramp) - ramp)[:, :, 2:, 1:-1]
    assert 0.05 < moved.abs().max() <= 1 / 16 + 1e-5
    assert moved.abs().mean() == pytest.approx(1 / 32, rel=0.1) and abs(moved.mean()) < 0.005


def test_bytes_are_floats_rounded_and_batches_do_not_matter(monkeypatch):
    images = as_bytes(noise_images(9))
    for trigger in (TRIGGER, TRIGGER.noise(0)):
        whole = trigger(images)
        assert torch.equal(whole, as_bytes(trigger(images.float() / 255)))
        monkeypatch.setattr("drmlib.data.dataset.CHUNK_PIXELS", 128)
        assert torch.equal(trigger(images), whole) and torch.equal(trigger(images[3:5]), whole[3:5])
        monkeypatch.undo()


def test_covers_get_the_noisy_warp_and_keep_their_label():
    data = colour_images(40)
    noise = TRIGGER.noise(0)
    result = poison(
        data, TRIGGER, AllToOne(2), rate=0.1, cover_rate=0.2, cover_trigger=noise, generator=stream(0, "poison")
    )
    assert torch.equal(result.dataset.images[result.poison], TRIGGER(data.images[result.poison]))
    assert torch.equal(result.dataset.images[result.cover], noise(data.images[result.cover]))
    assert torch.equal(result.dataset.targets[result.cover], data.targets[result.cover])


def test_another_seed_gives_another_warp():
    grids = [warp(generator=stream(seed)).grid for seed in (0, 0, 1)]
    assert torch.equal(grids[0], grids[1]) and not torch.equal(grids[0], grids[2])
    image = noise_images(1)
    assert not torch.equal(TRIGGER.noise(0)(image), TRIGGER.noise(1)(image))
    assert uniform(image, 8, 8, 2, seed=0).shape[1:] == TRIGGER.grid.shape


def test_one_channel_and_sides_of_different_length():
    images = torch.rand(2, 1, 6, 10, generator=stream(0))
    trigger = warp(height=6, width=10, generator=stream(0))
    assert trigger(images).shape == images.shape == trigger.noise(0)(images).shape


@pytest.mark.parametrize("bad", [{"k": 1}, {"s": -0.1}, {"height": 1}])
def test_a_warp_that_cannot_be_is_refused(bad):
    with pytest.raises(ValueError, match="at least 2"):
        warp(**bad, generator=stream(0))


def test_images_of_another_size_are_refused():
    for trigger in (TRIGGER, WaNetNoise(TRIGGER.grid, 0)):
        with pytest.raises(ValueError, match="made for 8x8 images, got 32x32"):
            trigger(torch.zeros(1, 3, 32, 32))
