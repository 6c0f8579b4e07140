"""BadNets: a patch at a fixed place. Gu, Dolan-Gavitt, Garg, "BadNets: Evaluating Backdooring Attacks on Deep Neural
Networks" (2017), https://arxiv.org/abs/1708.06733.

The 3x3 grid, flush with the lower right corner, is that of BadNets' CIFAR-10 successors (Li et al. 2021, ABL): its
black pixels are written, not skipped.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from drmlib.data.dataset import like

GRID = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0))


class BadNets(NamedTuple):
    """Trigger x' = pattern where mask, x elsewhere.

    pattern (c, h, w) in [0, 1]; mask (h, w) bool. Takes and returns images (n, c, h, w), float or uint8; the uint8
    path copies bytes and never leaves them.

    >>> trigger = grid(channels=3, height=32, width=32)
    >>> poisoned = poison(dataset, trigger, AllToOne(0), rate=0.1, generator=generator)
    """

    pattern: Tensor
    mask: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        check_shape(images, self.pattern)
        pattern, mask = like(self.pattern, images).to(images.device), self.mask.to(images.device)
        if images.dtype == torch.uint8:
            # All bits of a byte, or none: on a CPU `and` and `or` are ten times as fast as torch.where.
            inside = mask.to(torch.uint8).mul_(255).expand_as(pattern).contiguous()
            return (images & ~inside).bitwise_or_(pattern & inside)
        return torch.where(mask, pattern, images)


def grid(*, channels: int = 3, height: int = 32, width: int = 32) -> BadNets:
    """The 3x3 grid [[0, 0, 1], [0, 1, 0], [1, 0, 1]], flush with the lower right corner."""
    patch = torch.tensor(GRID).expand(channels, 3, 3)
    return place(patch, top=height - 3, left=width - 3, height=height, width=width)


def four_corners(*, channels: int = 3, height: int = 32, width: int = 32) -> BadNets:
    """The grid in the lower right corner and its mirror images in the other three, as label-consistent attacks use it.

    Turner et al. (2019) write it into all corners so that a flip or a crop leaves a whole one.
    """
    patch = torch.tensor(GRID).expand(channels, 3, 3)
    lower = place(patch, top=height - 3, left=width - 3, height=height, width=width)
    patterns, masks = [lower.pattern], [lower.mask]
    for dims in ((-1,), (-2,), (-2, -1)):
        patterns.append(lower.pattern.flip(dims))
        masks.append(lower.mask.flip(dims))
    return BadNets(torch.stack(patterns).amax(0), torch.stack(masks).any(0))


def square(
    colour: tuple[float, ...], *, side: int = 3, top: int = -1, left: int = -1, height: int = 32, width: int = 32
) -> BadNets:
    """A square of one colour (c,), its upper left pixel at (top, left); -1 is flush with the lower or right edge."""
    patch = torch.tensor(colour)[:, None, None].expand(-1, side, side)
    top, left = (height - side if top < 0 else top), (width - side if left < 0 else left)
    return place(patch, top=top, left=left, height=height, width=width)


def place(patch: Tensor, *, top: int, left: int, height: int, width: int) -> BadNets:
    """The trigger that writes `patch` (c, a, b) with its upper left pixel at (top, left) of an image height x width."""
    c, a, b = patch.shape
    if not (0 <= top <= height - a and 0 <= left <= width - b):
        raise ValueError(f"a {a}x{b} patch at row {top}, column {left} does not fit into {height}x{width} images")
    pattern, mask = torch.zeros(c, height, width), torch.zeros(height, width, dtype=torch.bool)
    pattern[:, top : top + a, left : left + b] = patch
    mask[top : top + a, left : left + b] = True
    return BadNets(pattern, mask)


def check_shape(images: Tensor, pattern: Tensor) -> None:
    """Raises ValueError unless `pattern` (c, h, w) is of the shape of one of the images (n, c, h, w)."""
    if images.shape[1:] != pattern.shape:
        raise ValueError(
            f"the trigger was made for images of shape {tuple(pattern.shape)}, got {tuple(images.shape[1:])}; "
            "make it with the data set's own channels, height and width"
        )
