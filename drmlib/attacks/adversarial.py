"""Adversarial inputs: PGD, Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to
Adversarial Attacks" (2018), https://arxiv.org/abs/1706.06083.

Clean-label poisons use it to weaken what an image shows of its class. Defaults are those of the label-consistent
attack in BackdoorBench and BackdoorBox: no random start, 100 steps of 1.5/255 within 8/255.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drmlib.data.dataset import as_float
from drmlib.models.predict import frozen


def pgd(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    epsilon: float = 8 / 255,
    step: float = 1.5 / 255,
    steps: int = 100,
    batch_size: int = 256,
) -> Tensor:
    """Float images (n, c, h, w) within `epsilon` of `images` (maximum norm) and in [0, 1] that raise the loss.

    loss: (outputs, targets) -> scalar. Each of the `steps` moves every pixel by `step` along the sign of the gradient
    of loss(model(images), targets), so an image's result does not depend on the size of its batch.
    """
    if epsilon < 0 or steps < 0:
        raise ValueError(f"expected epsilon and steps of at least 0, got {epsilon} and {steps}")
    pairs = zip(as_float(images).split(batch_size), targets.split(batch_size), strict=True)
    with frozen(model), torch.enable_grad():
        return torch.cat([_ascend(model, clean, truth, loss, epsilon, step, steps) for clean, truth in pairs])


def _ascend(
    model: nn.Module,
    clean: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    epsilon: float,
    step: float,
    steps: int,
) -> Tensor:
    low, high = (clean - epsilon).clamp(0, 1), (clean + epsilon).clamp(0, 1)
    images = clean.clone()
    for _ in range(steps):
        images.requires_grad_(True)
        (slope,) = torch.autograd.grad(loss(model(images), targets), images)
        images = torch.minimum(torch.maximum(images.detach() + step * slope.sign(), low), high)
    return images
