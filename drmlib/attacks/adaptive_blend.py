"""Adaptive-Blend: half a blended key in training, the whole key at test. Qi, Xie, Li, Mahloujifar, Mittal, "Revisiting
the Assumption of Latent Separability for Backdoor Defenses" (2023), https://openreview.net/forum?id=_wSHsgrVali.

Followed: the key is cut into tiles, and every poison and cover sample shows its own random half of them (the paper's
asymmetric trigger); cover samples, its regularisation samples, keep their targets.

Default: backdoor-toolbox, 16 tiles, half of them masked, alpha 0.15 in training and 0.2 at test, 0.3 % poison and
0.3 % cover samples of CIFAR-10. Its key is a drawing; here it is fixed uniform noise, as in blend.py, or any image.
"""

from math import isqrt
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from drmlib.attacks.badnets import check_shape
from drmlib.attacks.blend import Blend
from drmlib.attacks.blend import noise as blend_noise
from drmlib.attacks.per_image import uniform
from drmlib.data.dataset import chunks


class AdaptiveBlend(NamedTuple):
    """Trigger of training, x' = (1 - alpha) x + alpha pattern on the tiles that an image shows, x on the others.

    pattern (c, h, w) in [0, 1]; alpha the opacity in [0, 1]; pieces, a square number, of tiles, of which the share
    mask_rate, rounded, is hidden; another seed hides others. Takes and returns images (n, c, h, w), float or uint8.

    >>> trigger = noise(generator=generator)
    >>> poisoned = poison(dataset, trigger, AllToOne(0), rate=0.003, cover_rate=0.003, generator=generator)
    >>> measure_classifier(model, test, trigger.inference(), AllToOne(0))
    """

    pattern: Tensor
    alpha: float = 0.15
    pieces: int = 16
    mask_rate: float = 0.5
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        check_shape(images, self.pattern)
        blend = Blend(self.pattern, self.alpha)
        return torch.cat([torch.where(self._shown(part), blend(part), part) for part in chunks(images)])

    def inference(self, *, alpha: float = 0.2) -> Blend:
        """The trigger at test: the whole key, more opaque than in training."""
        return Blend(self.pattern, alpha)

    def _shown(self, images: Tensor) -> Tensor:
        """Bool (n, 1, h, w); the places of a random permutation that hold its lowest numbers are the tiles shown."""
        side, (height, width) = isqrt(self.pieces), images.shape[2:]
        order = uniform(images, self.pieces, seed=self.seed).argsort(dim=1, stable=True)
        tiles = (order >= round(self.mask_rate * self.pieces)).view(-1, side, side)
        rows, columns = (torch.arange(length, device=images.device) * side // length for length in (height, width))
        return tiles[:, rows[:, None], columns][:, None]


def noise(
    *,
    alpha: float = 0.15,
    pieces: int = 16,
    mask_rate: float = 0.5,
    channels: int = 3,
    height: int = 32,
    width: int = 32,
    generator: Generator,
) -> AdaptiveBlend:
    """An AdaptiveBlend whose key is fixed uniform noise.

    Raises ValueError if pieces is no square number or has more tiles along a side than the image has pixels, or a
    fraction lies outside [0, 1].
    """
    if pieces < 1 or isqrt(pieces) ** 2 != pieces or isqrt(pieces) > min(height, width):
        raise ValueError(f"expected a square number of pieces that fit into {height}x{width} pixels, got {pieces}")
    if not 0 <= mask_rate <= 1:
        raise ValueError(f"expected a mask_rate in [0, 1], got {mask_rate}")
    key = blend_noise(alpha=alpha, channels=channels, height=height, width=width, generator=generator)
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    return AdaptiveBlend(key.pattern, alpha, pieces, mask_rate, seed)
