"""FeatureRE, for regression: a network from images to images, and a few features that alone carry its effect.

Wang, Mei, Zhai, Ding, Ma, "Rethinking the Reverse-engineering of Trojan Triggers" (2022),
https://arxiv.org/abs/2210.15127, generalised as Du, Liu, Jia, Lan did for their comparison in "Defending Deep
Regression Models against Backdoor Attacks" (2024), https://arxiv.org/abs/2411.04811: the target class becomes a vector
y that is searched as well. Their text says no more than that.

With features a and head h, the trigger G is a U-Net and f' = m a(G(x)) + (1 - m) a(another clean image): whatever the
features outside the mask m say, h(f') shall be y. Bounds hold the change of the image, the spread of the masked
features and |m|_1; beyond a bound its term is charged, below it is free, and so is the error once enough images reach
y. The features of G(x) shall also be unlike those of clean inputs whose answer is y. Terms, factors and bounds
(feature_re_objective.py) are those of the authors' code; what it calls the mixed value is the score. They put 100
epochs of warm-up without the mask before 400 with it.

For regression: cross-entropy becomes |h(f') - y|_1 in standard deviations of the clean outputs, accuracy the share of
images within a tolerance of y, the features of the target class those of the clean images whose outputs are nearest to
y, the loop over classes one over starts of y. Ours too: the change counts variances of the clean images, as the
authors' does since they standardise images, and the features' spread counts that of clean images, since regressors
come in any scale. The network is the least bad state of the search, not the last.

Known to fail: where a linear head reads the penultimate features, no answer is constant while most features are those
of other images. A mask of 3 % then works for no model, backdoored or not; `split` moves the mask to an earlier layer.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.attacks.learned import Learned
from drmlib.data.dataset import as_float
from drmlib.inversion.feature_re_objective import BOUNDS, Bounds, Terms
from drmlib.inversion.feature_re_search import Best, Clean, Search, Split
from drmlib.inversion.free_targets import starts
from drmlib.models.predict import frozen, predict
from drmlib.models.unet import UNet


class FeatureRE(NamedTuple):
    """trigger; score: the smallest mixed value of all starts, SMALL if backdoored (the authors call classifiers
    backdoored below -0.75; -1 is the least if no similarity is negative); target (k,): its y.

    mask: over the features; terms: what the score is made of; success: share of all images that the trigger alone, with
    no features exchanged, sends within tolerance of y. Of all R starts: scores (R,) and targets (R, k), in the outputs'
    unit.
    """

    trigger: Learned
    score: float
    target: Tensor
    mask: Tensor
    terms: Terms
    success: float
    scores: Tensor
    targets: Tensor


def feature_re(
    model: nn.Module,
    images: Tensor,
    error: Callable[[Tensor, Tensor], Tensor],
    *,
    tolerance: float = 3.0,
    split: Split | None = None,
    bounds: Bounds = BOUNDS,
    restarts: int = 1,
    warm_up_steps: int = 60,
    steps: int = 180,
    window: int = 8,
    batch_size: int = 32,
    width: int = 12,
    learning_rate: float = 3e-3,
    mask_learning_rate: float = 0.1,
    target_learning_rate: float = 0.02,
    generator: Generator,
) -> FeatureRE:
    """The trigger and feature mask that hold `model` at some vector, from clean unlabelled `images` (n, c, h, w).

    Height and width divisible by 8. error: (outputs, targets) (n, k) -> (n,), such as metrics.gaze_error; `tolerance`
    in its unit. split: (images -> features, features -> outputs), model.features and model.head unless given. Means are
    taken over `window` steps, the authors' over an epoch; they use learning rates of 1e-3 and 0.1.
    """
    rng.check_device(generator, images)
    if restarts < 1 or not 1 <= window <= steps:
        raise ValueError(f"expected restarts >= 1 and 1 <= window <= steps, got {restarts}, {window} and {steps}")
    if len(images) < batch_size:
        raise ValueError(f"a batch needs {batch_size} images, got {len(images)}; lower batch_size")
    parts: Split = split or (model.features, model.head)  # type: ignore[assignment]
    rates = (learning_rate, mask_learning_rate, target_learning_rate)
    found = []
    with frozen(model):
        clean = Clean(images, parts, lambda outputs, y: error(outputs, y.expand_as(outputs)) < tolerance)
        for target in starts(clean.outputs, restarts, generator=generator):
            network = UNet(channels=images.shape[1], width=width, generator=generator)
            network.to(device=images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            search = Search(clean, network, target, rates, generator)
            for step in range(-warm_up_steps, steps):
                index = torch.randint(len(images), (batch_size,), generator=generator, device=images.device)
                (search.warm_up if step < 0 else search.step)(as_float(images[index]), bounds)
                if step >= 0 and (step + 1) % window == 0:
                    search.look(bounds)
            found.append(search.best)
    return _result(model, images, clean, [one for one in found if one])


def _result(model: nn.Module, images: Tensor, clean: Clean, found: list[Best]) -> FeatureRE:
    scores, targets = torch.stack([one.score for one in found]), torch.stack([one.target for one in found])
    score, network, target, mask, terms = found[int(scores.argmin())]
    trigger = Learned(network.eval().requires_grad_(False))
    success = clean.near(predict(model, trigger(images)), target).float().mean().item()
    return FeatureRE(trigger, score.item(), target, mask, terms, success, scores, targets)
