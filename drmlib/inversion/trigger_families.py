"""Families of triggers that an inversion searches: many candidates side by side, the same edit for every image.

A family is a callable (images, directions, generator=) -> candidates, K of them, one for each row of `directions`
(K, k) in which it is to push the k outputs. Candidates are a module with

- forward(images) -> (K, n, c, h, w): every candidate on every image;
- cost(images, edited, attention) -> (K,): what stealth charges, UNIT being much;
- only(index) -> the one candidate, to go on with; trigger() -> what it has become, any function's trigger;
- learning_rate: of Adam, for a search of a few hundred steps.

Masks are those of Neural Cleanse (Wang et al. 2019), flows those of WaNet (Nguyen and Tran 2021) with free control
points. Candidates that depend on the image are in trigger_networks.py.
"""

import copy
from collections.abc import Iterator
from typing import Protocol, TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drmlib.attacks.poison import Trigger
from drmlib.attacks.sig import Sig
from drmlib.attacks.wanet import WaNet
from drmlib.inversion.neural_cleanse import MaskedPattern

UNIT = 0.01  # a mean change of pixels by this, or a mean displacement by this share of the side, is as dear as any


class Candidates(Protocol):
    """What a family returns; see the top of this file."""

    learning_rate: float

    def __call__(self, images: Tensor, /) -> Tensor: ...
    def cost(self, images: Tensor, edited: Tensor, attention: Tensor) -> Tensor: ...
    def only(self, index: int) -> "Candidates": ...
    def trigger(self) -> Trigger: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...


class Family(Protocol):
    """Any callable from images, of which shape and device count, and directions (K, k) to K candidates."""

    def __call__(self, images: Tensor, directions: Tensor, /, *, generator: Generator) -> Candidates: ...


class Masks(nn.Module):
    """x' = (1 - m) x + m p: a mask and a pattern. Its trigger is a MaskedPattern."""

    learning_rate = 0.1

    def __init__(self, images: Tensor, directions: Tensor, *, generator: Generator) -> None:
        super().__init__()
        channels, height, width = images.shape[1:]
        logits = 0.5 * _noise(len(directions), channels + 1, height, width, generator=generator)
        logits[:, :1] = 0.6 * logits[:, :1] - 2  # masks start faint, at 0.12
        self.parameter = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return torch.lerp(images[None], self.parameter[:, None, 1:].sigmoid(), self.parameter[:, None, :1].sigmoid())

    def cost(self, images: Tensor, edited: Tensor, attention: Tensor) -> Tensor:
        """mean attention |x' - x|, each candidate."""
        return changed_pixels(images, edited, attention)

    def only(self, index: int) -> "Masks":
        """The candidate at `index` alone."""
        return _only(self, index)

    def trigger(self) -> MaskedPattern:
        """The first candidate as a trigger."""
        mask, pattern = self.parameter.detach()[0].sigmoid().tensor_split([1])
        return MaskedPattern(mask, pattern)


class Additive(nn.Module):
    """x' = clip(x + strength tanh(p)): one additive pattern. Its trigger is a Sig."""

    learning_rate, strength = 0.1, 0.3

    def __init__(self, images: Tensor, directions: Tensor, *, generator: Generator) -> None:
        super().__init__()
        self.parameter = nn.Parameter(0.5 * _noise(len(directions), *images.shape[1:], generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return (images[None] + self.strength * self.parameter.tanh()[:, None]).clamp(0, 1)

    def cost(self, images: Tensor, edited: Tensor, attention: Tensor) -> Tensor:
        """mean attention |x' - x|, each candidate."""
        return changed_pixels(images, edited, attention)

    def only(self, index: int) -> "Additive":
        """The candidate at `index` alone."""
        return _only(self, index)

    def trigger(self) -> Sig:
        """The first candidate as a trigger."""
        return Sig(self.strength * self.parameter.detach()[0].tanh())


class Flows(nn.Module):
    """x' = x bent along one smooth field of 12 x 12 control points, enlarged bicubically. Its trigger is a WaNet.

    A warp changes many pixels, most of them invisibly: it is charged by its mean displacement, as a share of the
    image's side, and not by |x' - x|, under which the search finds no warp, true or false, that it would call small.
    """

    learning_rate, points, reach = 0.03, 12, 0.25  # a control point at 1 moves what it stands on by 1/8 of the side

    def __init__(self, images: Tensor, directions: Tensor, *, generator: Generator) -> None:
        super().__init__()
        self.size = tuple(images.shape[2:])
        control = 0.05 * _noise(len(directions), 2, self.points, self.points, generator=generator)
        self.parameter = nn.Parameter(control)

    def forward(self, images: Tensor) -> Tensor:
        n, candidates = len(images), len(self.parameter)
        stacked = images.reshape(1, -1, *images.shape[2:]).expand(candidates, -1, -1, -1)
        bent = F.grid_sample(stacked, self._grid(), mode="bilinear", align_corners=True)
        return bent.unflatten(1, (n, -1))

    def cost(self, images: Tensor, edited: Tensor, attention: Tensor) -> Tensor:
        """Mean displacement in sides of the image, each candidate."""
        return self._field().abs().mean((1, 2, 3)) / 2

    def only(self, index: int) -> "Flows":
        """The candidate at `index` alone."""
        return _only(self, index)

    def trigger(self) -> WaNet:
        """The first candidate as a trigger."""
        return WaNet(self._grid().detach()[0])

    def _field(self) -> Tensor:
        """(K, 2, h, w): where each pixel looks, x and y, off its own place, 2 being the side."""
        return self.reach * F.interpolate(self.parameter, size=self.size, mode="bicubic", align_corners=True)

    def _grid(self) -> Tensor:
        lines = (torch.linspace(-1, 1, length, device=self.parameter.device) for length in self.size)
        y, x = torch.meshgrid(*lines, indexing="ij")
        return (torch.stack([x, y], -1) + self._field().permute(0, 2, 3, 1)).clamp(-1, 1)


def changed_pixels(images: Tensor, edited: Tensor, attention: Tensor) -> Tensor:
    """mean attention |x' - x| (K,) from images (n, c, h, w), edited (K, n, c, h, w) and attention (h, w)."""
    return (attention * (edited - images).abs()).mean((1, 2, 3, 4))


def _noise(*shape: int, generator: Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


C = TypeVar("C", Masks, Additive, Flows)


def _only(candidates: C, index: int) -> C:
    one = copy.copy(candidates)
    one._parameters = {"parameter": nn.Parameter(candidates.parameter.detach()[index : index + 1].clone())}
    return one
