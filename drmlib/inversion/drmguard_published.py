"""DRMGuard as it is published, as far as it is public: Du, Liu, Jia, Lan (2024), "Defending Deep Regression Models
against Backdoor Attacks", https://arxiv.org/abs/2411.04811; the generator's layers as in their SecureGaze release.

min over G of 20 mean_j var f_j(G(x)) + mean attention |G(x) - x| + 800 mean_j var alpha_j(G(x)), gaze in radians; a
model is called backdoored if mean |G(x) - x| < 0.03 in the end. Inferred, since the text does not say: the attention
("momentum reverse trigger", here the momentum of smoothed gradients at the edited images, as a weight of stealth or,
damp=True, as a brake on the edit), the form of the feature-space term (constancy.absolute, ratio, hinge), optimizer,
steps and warm-up.

On rendered faces this form does not separate: see drmguard.py, which does, and notebook 11. Any family of triggers may
stand for the generator.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.attacks.poison import Trigger
from drmlib.data.dataset import as_float, chunks, like
from drmlib.inversion.constancy import GAZE_WEIGHTS, MOMENTUM, Objective, Spread, attention_of, variances
from drmlib.inversion.drmguard_stages import BETAS, judged
from drmlib.inversion.trigger_families import Candidates, Family
from drmlib.inversion.trigger_networks import Generators
from drmlib.models.predict import features, frozen

EPSILON = 0.03  # section on the decision; the paper does not say where it comes from


class Damped(NamedTuple):
    """Trigger x' = x + keep (G(x) - x): the edit of `trigger` where keep (h, w) in [0, 1] lets it through."""

    trigger: Trigger
    keep: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        parts = [as_float(part) for part in chunks(images)]
        edited = [part + self.keep.to(part.device) * (self.trigger(part) - part) for part in parts]
        return like(torch.cat(edited), images)


class DRMGuardPublished(NamedTuple):
    """trigger; score: mean |x' - x| over images, channels and pixels, backdoored if below EPSILON.

    angle_variance_ratio and output_variance_ratio (k,): variance with the trigger over that without; predicted_target
    (k,): mean output under it, in the targets' unit; history (steps, 3): the larger ratio of angles and of outputs on
    each batch, and the cost.
    """

    trigger: Trigger
    score: float
    angle_variance_ratio: Tensor
    output_variance_ratio: Tensor
    predicted_target: Tensor
    history: Tensor

    @property
    def flagged(self) -> bool:
        """Whether the paper's rule calls the model backdoored."""
        return self.score < EPSILON


def drmguard_published(
    model: nn.Module,
    images: Tensor,
    *,
    family: Family = Generators,
    objective: Objective = GAZE_WEIGHTS,
    attend: bool = True,
    damp: bool = False,
    warm_up_steps: int = 200,
    steps: int = 600,
    batch_size: int = 64,
    generator: Generator,
) -> DRMGuardPublished:
    """The trigger that the published search finds with benign unlabelled `images` (n, c, h, w), and its size.

    objective: the paper's weights for gaze unless given. The warm-up minimises |x' - x| alone, until the generator
    returns its input. attend=False leaves the attention out; damp=True brakes edits by it.
    """
    rng.check_device(generator, images)
    if len(images) < batch_size:
        raise ValueError(f"a batch needs {batch_size} images for its variance, got {len(images)}; lower batch_size")
    candidate = family(images, torch.zeros(1, 0, device=images.device), generator=generator)
    _warm_up(candidate, images, warm_up_steps, batch_size, generator)
    optimizer = torch.optim.Adam(candidate.parameters(), lr=candidate.learning_rate, betas=BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, max(1, steps), eta_min=candidate.learning_rate / 10
    )
    even = torch.ones(images.shape[2:], device=images.device)
    seen: Tensor | None = None
    history = []
    with frozen(model):
        benign = variances(model, features(model, images))
        for _ in range(steps):
            clean = as_float(
                images[torch.randint(len(images), (batch_size,), generator=generator, device=images.device)]
            )
            edited = candidate(clean)
            if attend or damp:
                now = attention_of(model, edited[0])
                seen = now if seen is None else MOMENTUM * seen + (1 - MOMENTUM) * now
            if damp:
                edited = clean + _kept(seen) * (edited - clean)
            spread = Spread(*variances(model, model.features(edited[0])), *benign)  # type: ignore[operator]
            cost = candidate.cost(clean, edited, seen if attend and seen is not None else even)[0]
            optimizer.zero_grad(set_to_none=True)
            objective(spread, cost).backward()
            optimizer.step()
            schedule.step()
            history.append(torch.stack([spread.angle_ratio.max(), spread.output_ratio.max(), cost]).detach())
        trigger: Trigger = candidate.trigger()
        if damp:
            trigger = Damped(trigger, _kept(seen))
        found = judged(model, images, trigger, benign, torch.stack(history))
    return DRMGuardPublished(
        trigger,
        found.change,
        found.angle_variance_ratio,
        found.output_variance_ratio,
        found.predicted_target,
        found.history,
    )


def _warm_up(candidate: Candidates, images: Tensor, steps: int, batch_size: int, generator: Generator) -> None:
    optimizer = torch.optim.Adam(candidate.parameters(), lr=candidate.learning_rate, betas=BETAS)
    for _ in range(steps):
        clean = as_float(images[torch.randint(len(images), (batch_size,), generator=generator, device=images.device)])
        optimizer.zero_grad(set_to_none=True)
        (candidate(clean) - clean).abs().mean().backward()
        optimizer.step()


def _kept(attention: Tensor | None) -> Tensor:
    """1 - attention scaled to [0, 1] (h, w): what damping lets through."""
    assert attention is not None
    low, high = attention.aminmax()
    return 1 - (attention - low) / (high - low).clamp_min(torch.finfo(attention.dtype).tiny)
