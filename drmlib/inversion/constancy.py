"""What makes a model's answers stand still: the output-space and feature-space terms of DRMGuard, and its attention.

Du, Liu, Jia, Lan, "Defending Deep Regression Models against Backdoor Attacks" (2024), https://arxiv.org/abs/2411.04811,
section on reverse engineering. Under a backdoor's trigger every output f_j, and the angle alpha_j of the features to
the weights of every output, stop depending on the image. An objective is a callable (spread, cost) -> loss. The form of
the feature-space term is not public; three are given.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drmlib.data.dataset import as_float
from drmlib.inversion.trigger_families import UNIT
from drmlib.metrics import feature_angles
from drmlib.models.predict import frozen, output_layer

MOMENTUM = 0.9  # of the attention over batches
ACCEPTED_RATIO = 0.1  # the RAV below which Du et al. find every attack with its true trigger


class Spread(NamedTuple):
    """Variances over a batch with the edit, and over all benign images without: of angles and of outputs, each (k,).

    angles in squared radians, outputs in squared units of the targets.
    """

    angles: Tensor
    outputs: Tensor
    benign_angles: Tensor
    benign_outputs: Tensor

    @property
    def angle_ratio(self) -> Tensor:
        """RAV_j (k,)."""
        return self.angles / self.benign_angles

    @property
    def output_ratio(self) -> Tensor:
        """V_j (k,): what is left of each output's variance."""
        return self.outputs / self.benign_outputs


class Objective(Protocol):
    """Any callable from a Spread and the cost of the edit (scalar) to a loss (scalar)."""

    def __call__(self, spread: Spread, cost: Tensor, /) -> Tensor: ...


def absolute(spread: Spread) -> Tensor:
    """mean_j var(alpha_j), in squared radians: taken as the paper's form, whose weights 800 and 100 then fit."""
    return spread.angles.mean()


def ratio(spread: Spread) -> Tensor:
    """mean_j RAV_j."""
    return spread.angle_ratio.mean()


def hinge(spread: Spread) -> Tensor:
    """mean_j max(0, RAV_j - 0.1): nothing below the ratio that the paper observes."""
    return (spread.angle_ratio - ACCEPTED_RATIO).relu().mean()


class FixedWeights(NamedTuple):
    """The paper's objective: output mean_j var(f_j) + cost + feature term(spread), for outputs in radians."""

    output: float
    feature: float
    term: Callable[[Spread], Tensor] = absolute

    def __call__(self, spread: Spread, cost: Tensor) -> Tensor:
        return self.output * spread.outputs.mean() + cost + self.feature * self.term(spread)


GAZE_WEIGHTS, HEAD_POSE_WEIGHTS = FixedWeights(20, 800), FixedWeights(10, 100)  # Du et al.'s


class LogHinge:
    """mean_j relu log(RAV_j / tau) + mean_j relu log(V_j / tau) + weight * cost / UNIT: no weight to tune.

    Logarithms pull with the same strength whatever the scale; the weight grows by 5 % at every call where all ratios
    are below `bound` and shrinks by 5 % otherwise. feature=False leaves the angles out. Make one for every search.
    tau 0.05 and bound 0.1, the RAV that the paper speaks of, stop halfway to the attacker's target.
    """

    def __init__(self, *, tau: float = 0.01, bound: float = 0.02, weight: float = 0.3, feature: bool = True) -> None:
        self.tau, self.bound, self.feature = tau, bound, feature
        self.weight = torch.tensor(weight)

    def __call__(self, spread: Spread, cost: Tensor) -> Tensor:
        ratios = [spread.output_ratio, *([spread.angle_ratio] if self.feature else [])]
        weight = self.weight.to(cost.device)
        loss = sum(
            ((r.clamp_min(1e-12).log() - math.log(self.tau)).relu().mean() for r in ratios), weight * cost / UNIT
        )
        self.weight = adapted(weight, (torch.cat(ratios).detach() < self.bound).all())
        return loss


def variances(model: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    """Variance over samples of the angle to each output weight, and of each output, both (k,), from features (n, m)."""
    layer = output_layer(model)
    return feature_angles(features, layer.weight).var(0), layer(features).var(0)


def attention_of(model: nn.Module, images: Tensor) -> Tensor:
    """How much the outputs depend on each pixel (h, w): mean |gradient| of their sum, smoothed 3 x 3, mean 1.

    images (n, c, h, w) float. Du et al. weigh regions by an attention with momentum ("momentum reverse trigger"),
    whose formula is not public; where the images do not change, momentum converges to this mean over all of them.
    """
    images = images.detach().clone().requires_grad_()
    gradient = torch.autograd.grad(model(images).sum(), images)[0].abs().mean((0, 1))
    smooth = F.avg_pool2d(gradient[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
    return smooth / smooth.mean().clamp_min(torch.finfo(smooth.dtype).tiny)


def attention(model: nn.Module, images: Tensor, *, batch_size: int = 256) -> Tensor:
    """attention_of all images (n, c, h, w), float or uint8, a batch at a time."""
    with frozen(model):
        parts = [attention_of(model, as_float(part)) * len(part) for part in images.split(batch_size)]
    return torch.stack(parts).sum(0) / len(images)


def adapted(weight: Tensor, good: Tensor) -> Tensor:
    """The weight of stealth, 5 % higher where the edit does its work and 5 % lower where it does not yet."""
    return torch.where(good, weight * 1.05, weight / 1.05).clamp(0.01, 30)
