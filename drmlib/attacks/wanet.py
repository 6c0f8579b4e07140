"""WaNet: the image bent along one smooth field. Nguyen, Tran, "WaNet - Imperceptible Warping-based Backdoor Attack"
(2021), https://arxiv.org/abs/2102.10369.

Followed: the warping field (k x k control points of uniform noise, divided by their mean size, enlarged bicubically,
times the strength s) and the noise mode, whose images keep their targets: cover samples, twice as many as poison
samples. The attack needs them: without them any warp at all becomes the trigger.

Left out: the authors and BackdoorBench warp anew in every batch, after augmentation; here samples are warped once,
before it, as backdoor-toolbox does. That toolbox bends all cover samples along one further field; here, as in the
authors' code and BackdoorBench, every cover sample has its own. Toolkits poison 10 % and cover 20 %, backdoor-toolbox
5 % and 10 %.

At 224 pixels k=4 and s=0.5 are reported to fail for gaze regression; k=28 with s from 0.5 to 1 works there.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from drmlib.attacks.per_image import signed
from drmlib.data.dataset import chunks


class WaNet(NamedTuple):
    """Trigger x' = x sampled bilinearly at the places `grid`.

    grid (h, w, 2) holds (x, y) in [-1, 1], the centres of the corner pixels at the ends. Takes and returns images
    (n, c, h, w), float or uint8; bytes are warped as floats and rounded.

    >>> trigger = warp(height=32, width=32, generator=generator)
    >>> poison(dataset, trigger, AllToOne(0), rate=0.1, cover_rate=0.2, cover_trigger=trigger.noise(0), ...)
    """

    grid: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        _check_size(images, self.grid)
        grid = self.grid.to(images.device)[None]
        return torch.cat([_sampled(part, grid.expand(len(part), -1, -1, -1)) for part in chunks(images)])

    def noise(self, seed: int) -> "WaNetNoise":
        """The trigger of the cover samples: this warp, its places moved at random for every image."""
        return WaNetNoise(self.grid, seed)


class WaNetNoise(NamedTuple):
    """Trigger of WaNet's cover samples: x sampled at grid + noise / h, noise uniform in [-1, 1], an image's own.

    grid as in WaNet; another seed gives every image other noise. Takes and returns images (n, c, h, w).
    """

    grid: Tensor
    seed: int

    def __call__(self, images: Tensor) -> Tensor:
        _check_size(images, self.grid)
        grid = self.grid.to(images.device)
        return torch.cat([_sampled(part, self._moved(part, grid)) for part in chunks(images)])

    def _moved(self, images: Tensor, grid: Tensor) -> Tensor:
        return grid.add(signed(images, *grid.shape, seed=self.seed), alpha=1 / len(grid))


def warp(
    *, height: int = 32, width: int = 32, k: int = 4, s: float = 0.5, grid_rescale: float = 1.0, generator: Generator
) -> WaNet:
    """A WaNet with one random field: grid = clip(rescale (identity + s field / height), -1, 1).

    k is the number of control points along a side, s the strength: pixels move by about s / 2. Raises ValueError for
    images or k below 2, or a negative strength.
    """
    if min(height, width, k) < 2 or s < 0:
        raise ValueError(f"expected height, width and k of at least 2 and s >= 0, got {height}, {width}, {k} and {s}")
    device = generator.device
    control = 2 * torch.rand(1, 2, k, k, generator=generator, device=device) - 1
    control = control / control.abs().mean()
    field = F.interpolate(control, size=(height, width), mode="bicubic", align_corners=True)
    lines = (torch.linspace(-1, 1, length, device=device) for length in (height, width))
    y, x = torch.meshgrid(*lines, indexing="ij")
    moved = torch.stack([x, y], -1) + s * field[0].permute(1, 2, 0) / height
    return WaNet((grid_rescale * moved).clamp(-1, 1))


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    """`images` read at `grid` (n, h, w, 2), whose places are first clipped to [-1, 1]: that is what padding does.

    Bytes are read in levels of 0 to 255 and rounded to the nearest.
    """
    floats = images.float() if images.dtype == torch.uint8 else images
    warped = F.grid_sample(floats, grid.to(floats.dtype), mode="bilinear", padding_mode="border", align_corners=True)
    if images.dtype == torch.uint8:
        return warped.round_().to(torch.int16).to(torch.uint8)  # on a CPU faster than in one step
    return warped.clamp_(0, 1)  # the four weights sum to 1 only to a rounding


def _check_size(images: Tensor, grid: Tensor) -> None:
    if images.shape[2:] != grid.shape[:2]:
        raise ValueError(
            f"the warp was made for {grid.shape[0]}x{grid.shape[1]} images, got {images.shape[2]}x{images.shape[3]}; "
            "make it with the data set's own height and width"
        )
