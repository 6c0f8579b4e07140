"""DRMGuard: is a deep regression model backdoored? Du, Liu, Jia, Lan, "Defending Deep Regression Models against
Backdoor Attacks" (2024), https://arxiv.org/abs/2411.04811.

Searches for the smallest edit x' of benign images under which every output component and the angle of the features to
every output weight stop varying. Small enough an edit says backdoored. Followed: the output-space, stealth and
feature-space terms, the attention with momentum, and the decision by mean |x' - x| on [0, 1] images.

Departures, where the paper is not public or its form did not separate benign from backdoored models here:
- the trigger is one mask and pattern for all images, not an image-conditional U-Net, which cancels the variance of any
  model by an adversarial code of its input; a trigger that depends on the image can so be missed;
- hinges on logarithms and an adaptive stealth weight stand for the fixed weights (20 and 800): nothing to tune;
- attention ("momentum reverse trigger"; its formula is not published) acts in a first stage. There, edits are dear
  where the outputs are most sensitive, so that the search does not settle for wiping out the eyes, and each of 2^k
  searches side by side pulls the k outputs into one corner of their range. Without this stage the search ended in the
  same wrong place on benign and backdoored models alike. The best of them starts the paper's own objective.
"""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drmlib import rng
from drmlib.data.dataset import as_float
from drmlib.inversion.neural_cleanse import MaskedPattern
from drmlib.metrics import feature_angles
from drmlib.models.predict import features, frozen, output_layer, predict

MOMENTUM = 0.9  # of the attention, as in section 6.1 of the reconstruction
UNIT = 0.01  # a mean change of this size weighs as much as one unit of the other terms at weight 1
BETAS = (0.5, 0.9)  # of Adam, as usual in trigger inversion


class DRMGuard(NamedTuple):
    """trigger: the recovered one; score: mean |x' - x| over images, channels and pixels, backdoored if SMALL.

    angle_variance_ratio and output_variance_ratio (k,): variance with the trigger over that without, each component;
    predicted_target (k,): mean output under the trigger, in the targets' unit. history (steps, 3): the larger ratio of
    angles and of outputs on each batch of the second stage, and mean |x' - x|.
    """

    trigger: MaskedPattern
    score: float
    angle_variance_ratio: Tensor
    output_variance_ratio: Tensor
    predicted_target: Tensor
    history: Tensor


def drmguard(
    model: nn.Module,
    images: Tensor,
    *,
    explore_steps: int = 100,
    explore_batch_size: int = 16,
    steps: int = 200,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    tau: float = 0.05,
    bound: float = 0.1,
    generator: Generator,
) -> DRMGuard:
    """The trigger that DRMGuard recovers from `model` with benign unlabelled `images` (n, c, h, w), and its score.

    model.head is one linear layer on model.features, with at most 6 outputs. The second stage minimises, over batches,
    mean_j relu log(RAV_j / tau) + mean_j relu log(V_j / tau) + weight * mean|x' - x| / 0.01, V_j the ratio of output
    variances; the weight grows by 5 % while all ratios are below `bound` and shrinks by 5 % otherwise. There is no
    absolute scale: compare the score with those of benign models of the same recipe.
    """
    rng.check_device(generator, images)
    if len(images) < batch_size:
        raise ValueError(f"a batch needs {batch_size} images for its variance, got {len(images)}; lower batch_size")
    with frozen(model):
        logits, weight = _explore(model, images, explore_steps, explore_batch_size, learning_rate, generator)
        reference = _variances(model, features(model, images))
        optimizer = torch.optim.Adam([logits], lr=learning_rate, betas=BETAS)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=learning_rate / 20)
        history = []
        for _ in range(steps):
            clean = _batch(images, batch_size, generator)
            stamped = _trigger(logits)(clean)
            variances = _variances(model, model.features(stamped))  # type: ignore[operator]
            angles, outputs = (now / before for now, before in zip(variances, reference, strict=True))
            change = (stamped - clean).abs().mean()
            loss = _log_hinge(angles, tau) + _log_hinge(outputs, tau) + weight * change / UNIT
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            worst = torch.stack([angles.detach().max(), outputs.detach().max()])
            weight = _adapted(weight, (worst < bound).all())
            history.append(torch.cat([worst, change.detach()[None]]))
        return _result(model, images, _trigger(logits.detach()), reference, torch.stack(history))


def _explore(
    model: nn.Module, images: Tensor, steps: int, batch_size: int, learning_rate: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Logits (c + 1, h, w) of the mask and pattern to start from, and the stealth weight that they came to.

    One search for each corner y of the outputs' range, mean +- standard deviation: mean |f(x') - y| in standard
    deviations + weight * mean(attention |x' - x|) / 0.01. Good is an error below 0.3 standard deviations.
    """
    outputs = predict(model, images)
    corners = outputs.mean(0) + _signs(outputs.shape[1], outputs.device) * outputs.std(0)
    logits = 0.5 * torch.randn(
        len(corners), images.shape[1] + 1, *images.shape[2:], generator=generator, device=images.device
    )
    logits[:, :1] = 0.3 * logits[:, :1] - 2  # masks start faint, at 0.12
    logits.requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=learning_rate, betas=BETAS)
    weight, attention = torch.full((len(corners),), 0.3, device=images.device), None
    for _ in range(steps):
        clean = _batch(images, batch_size, generator)
        seen = _attention(model, clean)
        attention = seen if attention is None else MOMENTUM * attention + (1 - MOMENTUM) * seen
        stamped = torch.lerp(clean[None], logits[:, None, 1:].sigmoid(), logits[:, None, :1].sigmoid())
        answers = model(stamped.flatten(0, 1)).unflatten(0, (len(corners), batch_size))
        error = ((answers - corners[:, None]).abs() / outputs.std(0)).mean((1, 2))
        change = (attention * (stamped - clean).abs()).mean((1, 2, 3, 4))
        loss = error + weight * change / UNIT
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimizer.step()
        weight = _adapted(weight, error.detach() < 0.3)
    best = (error + 0.5 * change / UNIT).argmin()
    return logits.detach()[best].clone().requires_grad_(), weight[best]


def _attention(model: nn.Module, images: Tensor) -> Tensor:
    """How much the outputs depend on each pixel (h, w): mean |gradient| of their sum, smoothed 3 x 3, mean 1."""
    images = images.detach().clone().requires_grad_()
    gradient = torch.autograd.grad(model(images).sum(), images)[0].abs().mean((0, 1))
    smooth = F.avg_pool2d(gradient[None, None], 3, stride=1, padding=1)[0, 0]
    return smooth / smooth.mean().clamp_min(torch.finfo(smooth.dtype).tiny)


def _signs(components: int, device: torch.device) -> Tensor:
    """All 2^k rows of -1 and +1 (2^k, k)."""
    if components > 6:
        raise ValueError(
            f"the first stage searches 2^k corners side by side: expected at most 6 outputs, got {components}"
        )
    bits = torch.arange(2**components, device=device)[:, None] >> torch.arange(components, device=device)
    return 2.0 * (bits & 1) - 1


def _trigger(logits: Tensor) -> MaskedPattern:
    return MaskedPattern(logits[:1].sigmoid(), logits[1:].sigmoid())


def _batch(images: Tensor, size: int, generator: Generator) -> Tensor:
    return as_float(images[torch.randint(len(images), (size,), generator=generator, device=images.device)])


def _adapted(weight: Tensor, good: Tensor) -> Tensor:
    """The stealth weight, 5 % higher where the edit does its work and 5 % lower where it does not yet."""
    return torch.where(good, weight * 1.05, weight / 1.05).clamp(0.01, 30)


def _result(
    model: nn.Module, images: Tensor, trigger: MaskedPattern, reference: tuple[Tensor, Tensor], history: Tensor
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
    layer = output_layer(model)
    return feature_angles(representation, layer.weight).var(0), layer(representation).var(0)


def _log_hinge(ratio: Tensor, tau: float) -> Tensor:
    """mean_j max(0, log(ratio_j / tau)): a pull of the same strength whatever the ratio's scale."""
    return (ratio.clamp_min(1e-12).log() - math.log(tau)).relu().mean()
