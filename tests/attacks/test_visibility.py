import math

import pytest
import torch

from drmlib.attacks.badnets import grid
from drmlib.attacks.visibility import changed_pixels, psnr, spectrum, ssim
from drmlib.data.dataset import as_bytes
from drmlib.rng import stream

IMAGES = torch.rand(3, 3, 32, 32, generator=stream(0, "images"))


def test_psnr_of_a_constant_change_by_hand():
    """A change of 0.1 everywhere has a mean square of 0.01: 20 dB. One pixel in 1024 changed by 1: 10 log10 1024."""
    grey = torch.full((1, 3, 32, 32), 0.5)
    assert psnr(grey, grey + 0.1).item() == pytest.approx(20, abs=1e-4)
    one = torch.zeros(1, 1, 32, 32)
    dot = one.clone()
    dot[0, 0, 3, 4] = 1
    assert psnr(one, dot).item() == pytest.approx(10 * math.log10(1024), abs=1e-4)
    assert psnr(grey, grey).item() == math.inf


def test_ssim_of_flat_images_by_hand():
    """With no variance only the light term is left: (2 x 0.5 x 0.6 + c) / (0.25 + 0.36 + c) with c = 0.0001."""
    grey = torch.full((2, 3, 32, 32), 0.5)
    assert ssim(grey, grey + 0.1)[0].item() == pytest.approx(0.6001 / 0.6101, abs=1e-5)


def test_ssim_is_one_for_equal_images_symmetric_and_falls_with_noise():
    torch.testing.assert_close(ssim(IMAGES, IMAGES), torch.ones(3))
    noise = torch.rand(3, 3, 32, 32, generator=stream(1))
    little, much = (torch.lerp(IMAGES, noise, a) for a in (0.1, 0.5))
    torch.testing.assert_close(ssim(IMAGES, much), ssim(much, IMAGES))
    assert (ssim(IMAGES, much) < ssim(IMAGES, little)).all() and (ssim(IMAGES, little) < 1).all()


def test_nine_pixels_of_the_grid_change():
    """On grey every one of the nine; the shares are those of 1024."""
    grey = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
    assert changed_pixels(grey, grid()(grey)).item() == pytest.approx(9 / 1024)
    assert changed_pixels(IMAGES, IMAGES).max() == 0
    step = as_bytes(IMAGES).clamp(max=254)
    assert changed_pixels(step, step + 1).min() == 1, "one level is a change"


def test_the_spectrum_of_a_wave_is_two_points():
    """cos(2 pi 5 j / 32) has all its power at the column frequencies 5 and -5."""
    wave = 0.1 * torch.cos(2 * math.pi * 5 * torch.arange(32) / 32).expand(1, 3, 32, 32)
    power = spectrum(torch.full_like(wave, 0.5), 0.5 + wave)
    assert power[16, 16 + 5].item() == pytest.approx(0.5, abs=1e-4)
    assert power[16, 16 - 5].item() == pytest.approx(0.5, abs=1e-4)
