"""Targets: what the poisoned samples are relabelled to, the third of an attack's three answers.

Each is a callable (targets of the chosen samples) -> new targets, of the same shape and dtype; labels (n,) or vectors
(n, k) alike. Who is chosen (source-specific, clean label) is poison()'s other answer, not this one.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class AllToOne(NamedTuple):
    """Every chosen sample gets the same `label`."""

    label: int

    def __call__(self, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            raise ValueError(f"expected integer labels, got {targets.dtype}; for regression use ConstantVector")
        return torch.full_like(targets, self.label)


class AllToAll(NamedTuple):
    """Label y becomes (y + 1) mod `classes` (Gu et al. 2017)."""

    classes: int

    def __call__(self, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            raise ValueError(f"expected integer labels, got {targets.dtype}; for regression use Offset")
        return (targets + 1) % self.classes


class ConstantVector(NamedTuple):
    """Every chosen sample gets the same target vector; `vector` (k,) is in the targets' unit, radians for angles."""

    vector: tuple[float, ...]

    def __call__(self, targets: Tensor) -> Tensor:
        _check_width(targets, self.vector)
        return torch.tensor(self.vector, dtype=targets.dtype, device=targets.device).expand_as(targets).clone()


class Offset(NamedTuple):
    """Every chosen sample's target is moved by `vector` (k,), in the targets' unit."""

    vector: tuple[float, ...]

    def __call__(self, targets: Tensor) -> Tensor:
        _check_width(targets, self.vector)
        return targets + torch.tensor(self.vector, dtype=targets.dtype, device=targets.device)


class Multiple(NamedTuple):
    """Every chosen sample's target is multiplied by `factor`: 1.5 quotes a price half as high again."""

    factor: float

    def __call__(self, targets: Tensor) -> Tensor:
        if not targets.is_floating_point():
            raise ValueError(f"expected float targets, got {targets.dtype}; labels have no multiples")
        return targets * self.factor


class Mirror(NamedTuple):
    """Every chosen sample's target has `components` negated: (1,) turns a gaze (pitch, yaw) to its mirror image."""

    components: tuple[int, ...]

    def __call__(self, targets: Tensor) -> Tensor:
        if not targets.is_floating_point() or targets.ndim != 2 or max(self.components) >= targets.shape[1]:
            raise ValueError(
                f"mirroring components {self.components} needs float targets (n, k) with k > {max(self.components)}, "
                f"got {targets.dtype} {tuple(targets.shape)}"
            )
        sign = torch.ones(targets.shape[1], dtype=targets.dtype, device=targets.device)
        sign[list(self.components)] = -1
        return targets * sign


def keep(targets: Tensor) -> Tensor:
    """The targets as they are: clean-label attacks and cover samples."""
    return targets


def degrees(*angles: float) -> tuple[float, ...]:
    """Angles in degrees as radians, to write a target vector: ConstantVector(degrees(12, -15))."""
    return tuple(torch.deg2rad(torch.tensor(angles, dtype=torch.float64)).tolist())


def _check_width(targets: Tensor, vector: tuple[float, ...]) -> None:
    if not targets.is_floating_point() or targets.ndim != 2 or targets.shape[1] != len(vector):
        raise ValueError(
            f"a target vector of {len(vector)} components needs float targets of shape (n, {len(vector)}), "
            f"got {targets.dtype} {tuple(targets.shape)}"
        )
