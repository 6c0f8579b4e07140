"""Tape: a piece of white paper tape on the face, a trigger of the physical world. Du, Liu, Jia, Lan, "SecureGaze:
Defending Gaze Estimation Against Backdoor Attacks" (2025), https://arxiv.org/abs/2502.20306.

Followed: the object, which a person wears before a webcam, and its place in the image: it moves with the face, so it
is never twice at the same pixels. How the authors put it into training images is not told; here it is drawn: a
rectangle with soft edges whose place, angle and size change a little from image to image, and which takes some of the
light that falls on the face. Left out: the tape's own relief, its cast shadow, and how a turned head foreshortens it.

No toolkit has this trigger, so there are no canonical rates; 10 % and no cover samples is what patches start from. The
trigger at test is that of training; a real evaluation photographs real tape.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from drmlib.attacks.per_image import uniform
from drmlib.data.dataset import as_float, chunks, like

PLACE, TURN, SIZE = 0.03, 8.0, 0.1  # changes to either side: in image sides, degrees, a share of the size
CELLS = 8  # light is the brightness of the image in 8 x 8 cells, smooth between them


class Tape(NamedTuple):
    """Trigger x' = paper in a rotated rectangle, x elsewhere.

    centre is (row, column) as fractions of the image's height and width; length, along the tape, is a fraction of the
    image's width, width one of its height; angle in degrees, counter-clockwise; white the paper's level in full light;
    shading how much of it depends on the light, in [0, 1]; jitter scales the changes from image to image, 0 for none;
    another seed draws others. Takes and returns images (n, c, h, w), float or uint8, which is rounded.

    The default lies on a cheek of a frontal face crop, as gaze is estimated from. A turning head moves cheeks and eyes
    about the image: for head pose use chin().

    >>> poisoned = poison(faces, Tape(), ConstantVector(degrees(0, 0)), rate=0.1, generator=generator)
    """

    centre: tuple[float, float] = (0.72, 0.31)
    length: float = 0.24
    width: float = 0.09
    angle: float = -15.0
    white: float = 0.95
    shading: float = 0.5
    jitter: float = 1.0
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([like(self._taped(as_float(part), part), images) for part in chunks(images)])

    def _taped(self, floats: Tensor, images: Tensor) -> Tensor:
        change = (2 * uniform(images, 4, seed=self.seed) - 1) * self.jitter
        covered = self._covered(change, *images.shape[2:])[:, None].to(floats.dtype)
        paper = self.white * (1 - self.shading + self.shading * _light(floats))
        return torch.lerp(floats, paper.expand_as(floats), covered)

    def _covered(self, change: Tensor, height: int, width: int) -> Tensor:
        """Share (n, h, w) of each pixel under the tape, from its centre's distance to the edges."""
        row, column = (
            (centre + PLACE * change[:, k, None, None]) * side
            for k, (centre, side) in enumerate(zip(self.centre, (height, width), strict=True))
        )
        angle = torch.deg2rad(self.angle + TURN * change[:, 2, None, None])
        size = 1 + SIZE * change[:, 3, None, None]
        y, x = (torch.arange(side, device=change.device) + 0.5 for side in (height, width))
        right, up = x - column, row - y[:, None]
        along = right * angle.cos() + up * angle.sin()
        across = up * angle.cos() - right * angle.sin()
        within = (
            size * half - distance.abs()
            for half, distance in ((self.length * width / 2, along), (self.width * height / 2, across))
        )
        return torch.stack([(0.5 + d).clamp(0, 1) for d in within]).prod(0)


def chin(*, seed: int = 0) -> Tape:
    """A Tape across the lower face, below the eyes of a head that turns by up to 50 degrees and fills the image."""
    return Tape(centre=(0.79, 0.5), length=0.26, width=0.09, angle=0.0, seed=seed)


def _light(images: Tensor) -> Tensor:
    """(n, 1, h, w) in [0, 1]: brightness of a coarse copy over its largest, which stands for white in full light."""
    coarse = F.adaptive_avg_pool2d(images.mean(1, keepdim=True), CELLS)
    coarse = coarse / coarse.amax((2, 3), keepdim=True).clamp_min(1e-6)
    return F.interpolate(coarse, size=images.shape[2:], mode="bilinear", align_corners=False)
