"""Families of triggers that depend on the image: one network writes every candidate's edit, told its direction.

Generators is DRMGuard's own (Du et al. 2024, layers as in SecureGaze's release): x' = U(x). UNets writes the change
instead of the image, which a search of a few hundred steps can learn. A generator that sees the image can write an
adversarial code, an edit that cancels what it sees, on any model, and then tells nothing. Two ways to take that away
and keep the dependence on the image that input-aware attacks have: ShuffledUNets are scored by the edit made for
ANOTHER image of the batch; Blurred see the image at 4 x 4 pixels, where the quantity to cancel cannot be read.
"""

import copy
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drmlib import rng
from drmlib.attacks.learned import Learned
from drmlib.inversion.trigger_families import changed_pixels
from drmlib.models.unet import UNet

STRENGTH = 0.6  # largest change of a pixel


class UNets(nn.Module):
    """x' = clip(x + STRENGTH (2 U(x, direction) - 1)), U a U-Net. Its trigger is a Learned."""

    learning_rate = 3e-3
    directions: Tensor

    def __init__(self, images: Tensor, directions: Tensor, *, width: int = 12, generator: Generator) -> None:
        super().__init__()
        self.register_buffer("directions", directions)
        channels = images.shape[1]
        self.network = UNet(channels=channels + directions.shape[1], made=channels, width=width, generator=generator)
        scale, _ = list(self.network.up.parameters())[-2:]  # of the last norm: the first edits are small
        nn.init.constant_(scale, 0.1)
        self.to(images.device)

    def forward(self, images: Tensor) -> Tensor:
        return (images[None] + self.residual(images)).clamp(0, 1)

    def residual(self, images: Tensor) -> Tensor:
        """The edits (K, n, c, h, w) before clipping."""
        return _residual(self.network, images, self.directions)

    def cost(self, images: Tensor, edited: Tensor, attention: Tensor) -> Tensor:
        """mean attention |x' - x|, each candidate."""
        return changed_pixels(images, edited, attention)

    def only(self, index: int) -> "UNets":
        """The candidate at `index` alone: the same network with its direction fixed."""
        return _only(self, index)

    def trigger(self) -> Learned:
        """The first candidate as a trigger."""
        return Learned(_First(self))


class Generators(UNets):
    """x' = U(x): the generator returns the whole image, and must first learn to return it unchanged."""

    def forward(self, images: Tensor) -> Tensor:
        return self.residual(images).div(2 * STRENGTH).add(0.5)


class ShuffledUNets(UNets):
    """UNets whose edits, while it is trained, go to the next image of the batch."""

    def residual(self, images: Tensor) -> Tensor:
        """The edits (K, n, c, h, w), shifted by one image in training mode."""
        made = super().residual(images)
        return made.roll(1, 1) if self.training else made


class Blurred(nn.Module):
    """x' = clip(x + STRENGTH (2 D(x at 4 x 4 pixels, direction) - 1)), D a decoder. Its trigger is a Learned."""

    learning_rate, seen = 3e-3, 4
    directions: Tensor

    def __init__(self, images: Tensor, directions: Tensor, *, width: int = 8, generator: Generator) -> None:
        super().__init__()
        self.register_buffer("directions", directions)
        channels = images.shape[1]
        with rng.seeded_layers(generator):
            self.network = _Decoder(channels + directions.shape[1], channels, width)
        self.to(images.device)

    def forward(self, images: Tensor) -> Tensor:
        blurred = F.adaptive_avg_pool2d(images, self.seen)
        made = F.interpolate(
            _residual(self.network, blurred, self.directions).flatten(0, 1),
            size=images.shape[2:],
            mode="bilinear",
            align_corners=False,
        )
        return (images[None] + made.unflatten(0, (-1, len(images)))).clamp(0, 1)

    def cost(self, images: Tensor, edited: Tensor, attention: Tensor) -> Tensor:
        """mean attention |x' - x|, each candidate."""
        return changed_pixels(images, edited, attention)

    def only(self, index: int) -> "Blurred":
        """The candidate at `index` alone: the same network with its direction fixed."""
        return _only(self, index)

    def trigger(self) -> Learned:
        """The first candidate as a trigger."""
        return Learned(_First(self))


class _Decoder(nn.Module):
    """From (n, inputs, 4, 4) to (n, outputs, 32, 32) in [0, 1]: three doublings, each a 3x3 convolution, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        sizes = [inputs, 8 * width, 4 * width, 2 * width, width]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True))
            for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.last = nn.Conv2d(width, outputs, 3, padding=1)
        with torch.no_grad():
            self.last.weight.mul_(0.1)  # the first edits are small

    def forward(self, seen: Tensor) -> Tensor:
        x = self.blocks[0]((seen - 0.5) * 2)
        for block in list(self.blocks)[1:]:
            x = block(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
        return self.last(x).tanh() / 2 + 0.5


class _First(nn.Module):
    """The first candidate as a network from images to images."""

    def __init__(self, candidates: nn.Module) -> None:
        super().__init__()
        self.candidates = candidates

    def forward(self, images: Tensor) -> Tensor:
        return self.candidates(images)[0]


def _residual(network: nn.Module, images: Tensor, directions: Tensor) -> Tensor:
    """(K, n, c, h, w) of edits in +- STRENGTH: the network on every image beside planes that hold every direction."""
    n, (_, _, height, width) = len(images), images.shape
    planes = directions[:, None, :, None, None].expand(-1, n, -1, height, width)
    both = torch.cat([images[None].expand(len(directions), -1, -1, -1, -1), planes], 2)
    return STRENGTH * (2 * network(both.flatten(0, 1)) - 1).unflatten(0, (-1, n))


C = TypeVar("C", UNets, Blurred)


def _only(candidates: C, index: int) -> C:
    one = copy.deepcopy(candidates)
    one.directions = candidates.directions[index : index + 1]
    return one
