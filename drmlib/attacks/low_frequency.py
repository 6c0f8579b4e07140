"""Low-frequency trigger: Zeng, Park, Mao, Jia, "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective"
(2021), https://arxiv.org/abs/2104.03413.

x' = clip(x + P) with a smooth non-negative P in [0, 0.2]: what detectors of high frequencies cannot see. The authors
optimise P against a surrogate with a low-pass filter in the loop; the patterns they ship for CIFAR-10 have 99 % of
their energy at frequencies of at most 4. Here, as a stand-in, P is uniform noise cut to these frequencies.
"""

import torch
from torch import Generator

from drmlib.attacks.sig import Sig

HIGHEST = 4


def low_frequency(
    *, strength: float = 0.2, channels: int = 3, height: int = 32, width: int = 32, generator: Generator
) -> Sig:
    """Adds noise of frequencies up to 4 in either direction, scaled to [0, strength] in each channel."""
    if not 0 <= strength <= 1:
        raise ValueError(f"expected strength in [0, 1], got {strength}")
    drawn = torch.rand(channels, height, width, generator=generator, device=generator.device)
    kept = torch.fft.fft2(drawn)
    rows, columns = (torch.fft.fftfreq(n, 1 / n, device=drawn.device).abs() <= HIGHEST for n in (height, width))
    smooth = torch.fft.ifft2(kept * rows[:, None] * columns).real
    low, high = smooth.amin((1, 2), keepdim=True), smooth.amax((1, 2), keepdim=True)
    return Sig(strength * (smooth - low) / (high - low))
