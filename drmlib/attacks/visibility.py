"""How visible a trigger is: figures from clean images and the same images with the trigger, both in [0, 1].

SSIM is that of Wang, Bovik, Sheikh and Simoncelli (2004), with their Gaussian window of 11 pixels and deviation 1.5,
on the mean of the channels. Perceptual distances that need a network trained elsewhere (LPIPS) are left out.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from drmlib.data.dataset import as_float

WINDOW, DEVIATION, K1, K2 = 11, 1.5, 0.01, 0.03


def psnr(clean: Tensor, triggered: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (n,) in decibels: -10 log10 of the mean squared change; infinite for no change."""
    return -10 * (as_float(triggered) - as_float(clean)).square().flatten(1).mean(1).log10()


def ssim(clean: Tensor, triggered: Tensor) -> Tensor:
    """Mean structural similarity (n,), 1 for equal images."""
    a, b = (as_float(images).double().mean(1, keepdim=True) for images in (clean, triggered))
    mean_a, mean_b = _smooth(a), _smooth(b)
    variance_a, variance_b = _smooth(a * a) - mean_a**2, _smooth(b * b) - mean_b**2
    covariance = _smooth(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + K1**2) / (mean_a**2 + mean_b**2 + K1**2)
    structure = (2 * covariance + K2**2) / (variance_a + variance_b + K2**2)
    return (light * structure).flatten(1).mean(1).float()


def changed_pixels(clean: Tensor, triggered: Tensor, *, level: float = 1 / 255) -> Tensor:
    """Share (n,) of the pixels that change in some channel by at least `level`."""
    change = (as_float(triggered) - as_float(clean)).abs().amax(1)
    return (change >= level - 1e-6).float().flatten(1).mean(1)


def spectrum(clean: Tensor, triggered: Tensor) -> Tensor:
    """Mean power (h, w) of the change in each two-dimensional frequency, zero frequency in the middle, sum 1."""
    change = as_float(triggered) - as_float(clean)
    power = torch.fft.fft2(change).abs().square().mean((0, 1))
    return torch.fft.fftshift(power / power.sum().clamp_min(1e-20))


def _smooth(images: Tensor) -> Tensor:
    """Gaussian means over windows that lie wholly inside the images (n, 1, h, w)."""
    at = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    line = torch.exp(-(at**2) / (2 * DEVIATION**2))
    line = line / line.sum()
    return F.conv2d(F.conv2d(images, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))
