"""DRMGuard: is a deep regression model backdoored? Du, Liu, Jia, Lan, "Defending Deep Regression Models against
Backdoor Attacks" (2024), https://arxiv.org/abs/2411.04811.

Searches for the smallest edit x' of benign images under which every output component and the angle of the features to
every output weight stop varying. Small enough an edit says backdoored. Followed: the output-space, stealth and
feature-space terms, and the decision by mean |x' - x| on [0, 1] images.

Departures, because the parts are not published or did not separate benign from backdoored models here: the trigger is
one additive pattern for all images, not an image-conditional U-Net (which cancels the variance of any model with an
adversarial code of its input); the fixed weights (20 and 800) are replaced by hinges on logarithms, free of scale, and
a stealth weight that adapts; momentum reverse trigger is left out. A universal pattern can miss an input-aware
trigger. Head pose, further families and the paper's own form follow with the whole method.
"""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.data.dataset import as_float, like
from drmlib.metrics import feature_angles
from drmlib.models.predict import features, frozen, predict


class AdditivePattern(NamedTuple):
    """Trigger x' = clip(x + pattern, 0, 1); pattern (c, h, w)."""

    pattern: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        return like((as_float(images) + self.pattern).clamp(0, 1), images)


class DRMGuard(NamedTuple):
    """trigger: the recovered one; score: mean |x' - x| over images, channels and pixels, backdoored if SMALL.

    angle_variance_ratio and output_variance_ratio (k,): variance with the trigger over that without, each component;
    predicted_target (k,): mean output under the trigger, in the targets' unit. history (steps, 3): the larger ratio of
    angles and of outputs on each batch, and mean |x' - x|.
    """

    trigger: AdditivePattern
    score: float
    angle_variance_ratio: Tensor
    output_variance_ratio: Tensor
    predicted_target: Tensor
    history: Tensor


def drmguard(
    model: nn.Module,
    images: Tensor,
    *,
    steps: int = 300,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    amplitude: float = 0.3,
    tau: float = 0.05,
    bound: float = 0.1,
    generator: Generator,
) -> DRMGuard:
    """The trigger that DRMGuard recovers from `model` with benign unlabelled `images` (n, c, h, w), and its score.

    model.head is one linear layer on model.features. Each step minimises, over a batch,
    mean_j relu log(RAV_j / tau) + mean_j relu log(V_j / tau) + weight * mean|x' - x| / 0.01, V_j the ratio of output
    variances; the weight grows by 5 % while all ratios are below `bound` and shrinks by 5 % otherwise. amplitude is
    the largest change of a pixel. Compare the score with those of benign models of the same recipe: there is no
    absolute scale. 0.6 x their median separated on rendered gaze.
    """
    rng.check_device(generator, images)
    if len(images) < batch_size:
        raise ValueError(f"a batch needs {batch_size} images for its variance, got {len(images)}; lower batch_size")
    pattern = 0.5 * torch.randn(images.shape[1:], generator=generator, device=images.device)
    pattern.requires_grad_()
    optimizer = torch.optim.Adam([pattern], lr=learning_rate, betas=(0.5, 0.9))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=learning_rate / 20)
    weight, history = torch.tensor(0.3, device=images.device), []
    with frozen(model):
        reference = _variances(model, features(model, images))
        for _ in range(steps):
            index = torch.randint(len(images), (batch_size,), generator=generator, device=images.device)
            clean = as_float(images[index])
            stamped = AdditivePattern(amplitude * pattern.tanh())(clean)
            current = _variances(model, model.features(stamped))  # type: ignore[operator]
            angles, outputs = (v / r for v, r in zip(current, reference, strict=True))
            change = (stamped - clean).abs().mean()
            loss = _log_hinge(angles, tau) + _log_hinge(outputs, tau) + weight * change / 0.01
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            worst = torch.stack([angles.detach().max(), outputs.detach().max()])
            weight = torch.where((worst < bound).all(), weight * 1.05, weight / 1.05).clamp(0.01, 30)
            history.append(torch.cat([worst, change.detach()[None]]))
        trigger = AdditivePattern(amplitude * pattern.detach().tanh())
        return _result(model, images, trigger, reference, torch.stack(history))


def _result(
    model: nn.Module, images: Tensor, trigger: AdditivePattern, reference: tuple[Tensor, Tensor], history: Tensor
) -> DRMGuard:
    clean = as_float(images)
    stamped = trigger(clean)
    angles, outputs = _variances(model, features(model, stamped))
    return DRMGuard(
        trigger,
        (stamped - clean).abs().mean().item(),
        angles / reference[0],
        outputs / reference[1],
        predict(model, stamped).mean(0),
        history,
    )


def _variances(model: nn.Module, representation: Tensor) -> tuple[Tensor, Tensor]:
    """Variance over samples (k,) of the angle to each output weight, and of each output, from features (n, m)."""
    head: nn.Linear = model.head  # type: ignore[assignment]
    return feature_angles(representation, head.weight).var(0), head(representation).var(0)


def _log_hinge(ratio: Tensor, tau: float) -> Tensor:
    """mean_j max(0, log(ratio_j / tau)): a pull of the same strength whatever the ratio's scale."""
    return (ratio.clamp_min(1e-12).log() - math.log(tau)).relu().mean()
