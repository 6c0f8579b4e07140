"""Refool: another scene mirrored in a pane of glass. Liu, Ma, Bailey, Lu, "Reflection Backdoor: A Natural Backdoor
Attack on Deep Neural Networks" (2020), https://arxiv.org/abs/2007.02343.

Followed: the two kinds of reflection, in light rather than in pixel values (gamma 2.2). Ghost: glass has two surfaces,
so the reflection is seen twice, a few pixels apart. Focal: it is out of focus, weaker towards the image's edges.

Default: BackdoorBench, which fixes the share of the image itself, alpha, at 0.4, draws it ghostly with probability
0.49, and poisons 10 % all-to-one; backdoor-toolbox and BackdoorBox draw alpha from U(0.55, 0.95), and the paper is
clean-label. No cover samples; the trigger at test is that of training. Simplified: the reflections are the data set's
own images, not photographs chosen for their effect; the blur is one of a few that are computed once, and replicates
edges; the authors enlarge images to 560 pixels first, here, as in BackdoorBench, lengths are pixels of the image.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from drmlib import rng
from drmlib.attacks.badnets import check_shape
from drmlib.attacks.per_image import uniform
from drmlib.data.dataset import as_float, chunks, like
from drmlib.data.raster import blur

GAMMA = 2.2
WEIGHTS = (0.15, 0.85)  # of the ghost's first copy
EXCESS = (1.08, 1.18)  # how much of what overexposes the image is taken from a blurred reflection


class Refool(NamedTuple):
    """Trigger x' = alpha x + reflection, in light; which reflection and how it is seen is an image's own.

    sharp (m, c, h, w) and blurred (levels, m, c, h, w) hold m reflections in light, that is, images to the power GAMMA;
    ghost_rate the probability of a ghost; offsets the least and the largest distance of its copies, in pixels; another
    seed draws others. Takes and returns images (n, c, h, w), float or uint8, which is rounded.

    >>> trigger = reflections(dataset.images, generator=generator)
    >>> poisoned = poison(dataset, trigger, AllToOne(0), rate=0.1, generator=generator)
    """

    sharp: Tensor
    blurred: Tensor
    alpha: float
    ghost_rate: float
    offsets: tuple[int, int]
    seed: int

    def __call__(self, images: Tensor) -> Tensor:
        check_shape(images, self.sharp[0])
        there = self._replace(sharp=self.sharp.to(images.device), blurred=self.blurred.to(images.device))
        return torch.cat([like(there._mirrored(part), images) for part in chunks(images)])

    def _mirrored(self, images: Tensor) -> Tensor:
        draw = uniform(images, 7, seed=self.seed)
        light = as_float(images).float().pow(GAMMA)
        which = _pick(draw[:, 0], len(self.sharp))
        ghost = (1 - self.alpha) * _doubled(self.sharp[which], draw[:, 1:4], self.offsets)
        focal = self.blurred[_pick(draw[:, 4], len(self.blurred)), which]
        focal = (1 - self.alpha / 2) * _dimmed(focal, light, draw[:, 5])
        is_ghost = (draw[:, 6] < self.ghost_rate)[:, None, None, None]
        return (self.alpha * light + torch.where(is_ghost, ghost, focal)).clamp_(0, 1).pow(1 / GAMMA)


def reflections(
    images: Tensor,
    *,
    count: int = 16,
    alpha: float = 0.4,
    ghost_rate: float = 0.49,
    offsets: tuple[int, int] = (3, 8),
    sigmas: tuple[float, float] = (1.0, 5.0),
    levels: int = 8,
    generator: Generator,
) -> Refool:
    """A Refool whose reflections are `count` random ones of `images` (n, c, h, w), each kept at `levels` blurs.

    offsets and sigmas, the blurs' standard deviation, are least and largest, in pixels; memory is that of
    count x (levels + 1) float images. Raises ValueError for fewer images than count, or values out of range.
    """
    rng.check_device(generator, images)
    if not (0 <= alpha <= 1 and 0 <= ghost_rate <= 1):
        raise ValueError(f"expected alpha and ghost_rate in [0, 1], got {alpha} and {ghost_rate}")
    if not 0 <= offsets[0] <= offsets[1] < min(images.shape[2:]):
        raise ValueError(f"expected rising offsets below the images' {min(images.shape[2:])} pixels, got {offsets}")
    if not (0 < sigmas[0] <= sigmas[1] and levels >= 1):
        raise ValueError(f"expected rising positive sigmas and at least one level, got {sigmas} and {levels}")
    if not 1 <= count <= len(images):
        raise ValueError(f"expected a count of reflections from 1 to the {len(images)} images, got {count}")
    chosen = torch.randperm(len(images), generator=generator, device=images.device)[:count]
    sharp = as_float(images[chosen]).float().pow(GAMMA)
    spread = torch.linspace(*sigmas, levels, device=images.device)
    blurred = torch.stack([blur(sharp, sigma.expand(count)) for sigma in spread])
    seed = int(torch.randint(2**31, (), generator=generator, device=images.device))
    return Refool(sharp, blurred, alpha, ghost_rate, offsets, seed)


def _doubled(light: Tensor, draw: Tensor, offsets: tuple[int, int]) -> Tensor:
    """Two copies of `light`, apart by a drawn number of rows and columns, cropped to where both are, and stretched."""
    low, high = offsets
    size = torch.tensor(light.shape[:1:-1], device=light.device)  # width, height
    apart = (low + _pick(draw[:, :2], high - low + 1)) / size  # (n, 2) in image sides
    weight = (WEIGHTS[0] + (WEIGHTS[1] - WEIGHTS[0]) * draw[:, 2])[:, None, None, None]
    places = _base(light)[None] * (1 - apart)[:, None, None]
    first, second = (
        F.grid_sample(light, places + shift[:, None, None], padding_mode="border", align_corners=False)
        for shift in (apart, -apart)
    )
    return weight * first + (1 - weight) * second


def _dimmed(reflection: Tensor, light: Tensor, draw: Tensor) -> Tensor:
    """`reflection` less what overexposes `light` in the mean, a channel at a time, under a window that falls off."""
    both = reflection + light
    over = both > 1
    mean = (both * over).sum((2, 3), keepdim=True) / over.sum((2, 3), keepdim=True).clamp_min(1)
    taken = (mean - 1).clamp_min(0) * (EXCESS[0] + (EXCESS[1] - EXCESS[0]) * draw[:, None, None, None])
    window = torch.exp(-(3 * _base(light)).square().sum(-1) / 4)  # the root of a normal density out to 3 deviations
    return (reflection - taken).clamp_(0, 1) * window


def _base(images: Tensor) -> Tensor:
    """(h, w, 2): x and y of the pixel centres, the image spanning [-1, 1]."""
    y, x = ((torch.arange(k, device=images.device) * 2 + 1) / k - 1 for k in images.shape[2:])
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def _pick(draw: Tensor, among: int) -> Tensor:
    return (draw * among).long().clamp_(max=among - 1)
