"""The two stages of DRMGuard's search: the price of holding the outputs still in each direction; the trigger in one.

drmguard.py puts them together and names the paper.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib.attacks.poison import Trigger
from drmlib.data.dataset import as_float
from drmlib.inversion.constancy import Objective, Spread, adapted, variances
from drmlib.inversion.trigger_families import UNIT, Candidates
from drmlib.models.predict import features, predict

BETAS = (0.5, 0.9)  # of Adam, as usual in trigger inversion
PUSH = 0.7  # standard deviations of the outputs, by which a candidate must at least move their mean in its direction
REACHED = 0.2  # standard deviations that the outputs may still be off, at which a candidate does its work


class Explored(NamedTuple):
    """The first stage of one family. costs (K,) of the directions, in the family's unit; errors (K,): what the outputs
    still vary and fall short by, in standard deviations; candidates: what was found."""

    costs: Tensor
    errors: Tensor
    candidates: Candidates

    @property
    def price(self) -> Tensor:
        """Each direction's cost over the median of the others' (K,); one not reached costs the more."""
        costs = self.costs * (self.errors / REACHED).clamp_min(1)
        others = torch.stack([torch.cat([costs[:k], costs[k + 1 :]]).median() for k in range(len(costs))])
        return costs / others


class Recovered(NamedTuple):
    """What the second stage makes of one family: trigger; change: mean |x' - x| over images, channels and pixels;
    angle_variance_ratio, output_variance_ratio, predicted_target (k,); history (steps, 3)."""

    trigger: Trigger
    change: float
    angle_variance_ratio: Tensor
    output_variance_ratio: Tensor
    predicted_target: Tensor
    history: Tensor


def explore(
    model: nn.Module,
    images: Tensor,
    candidates: Candidates,
    directions: Tensor,
    weights: Tensor,
    *,
    steps: int,
    batch_size: int,
    generator: Generator,
) -> Explored:
    """The first stage: for each of the directions (K, k) the smallest edit that makes the outputs stand still there.

    With outputs z in standard deviations from their benign mean and m their mean over a batch, minimises
    mean |z - m| + mean_j max(0, PUSH - direction_j m_j) + weight * cost / UNIT, the weight adapted so that the first
    two come to REACHED; costs and errors are means over the last tenth of the steps.
    """
    benign = predict(model, images)
    centre, scale = benign.mean(0), benign.std(0)
    optimizer, schedule = _optimizer(candidates, steps)
    weight = torch.full((len(directions),), 0.3, device=images.device)
    last = []
    for step in range(steps):
        clean = _batch(images, batch_size, generator)
        edited = candidates(clean)
        answers = (model(edited.flatten(0, 1)).unflatten(0, edited.shape[:2]) - centre) / scale
        mean = answers.mean(1)
        error = (answers - mean[:, None]).abs().mean((1, 2)) + (PUSH - directions * mean).relu().mean(1)
        cost = candidates.cost(clean, edited, weights)
        optimizer.zero_grad(set_to_none=True)
        (error + weight * cost / UNIT).sum().backward()
        optimizer.step()
        schedule.step()
        weight = adapted(weight, error.detach() < REACHED)
        if step >= steps - max(1, steps // 10):
            last.append(torch.stack([cost.detach(), error.detach()]))
    costs, errors = torch.stack(last).mean(0)
    return Explored(costs, errors, candidates)


def recover(
    model: nn.Module,
    images: Tensor,
    candidate: Candidates,
    objective: Objective,
    weights: Tensor,
    *,
    steps: int,
    batch_size: int,
    generator: Generator,
) -> Recovered:
    """The second stage: one candidate under which the answers stand still, by `objective` over batches."""
    benign = variances(model, features(model, images))
    optimizer, schedule = _optimizer(candidate, steps)
    history = []
    for _ in range(steps):
        clean = _batch(images, batch_size, generator)
        edited = candidate(clean)
        spread = Spread(*variances(model, model.features(edited[0])), *benign)  # type: ignore[operator]
        cost = candidate.cost(clean, edited, weights)[0]
        optimizer.zero_grad(set_to_none=True)
        objective(spread, cost).backward()
        optimizer.step()
        schedule.step()
        history.append(torch.stack([spread.angle_ratio.max(), spread.output_ratio.max(), cost]).detach())
    return judged(model, images, candidate.trigger(), benign, torch.stack(history))


def judged(
    model: nn.Module, images: Tensor, trigger: Trigger, benign: tuple[Tensor, Tensor], history: Tensor
) -> Recovered:
    """The figures of a recovered trigger on all `images`."""
    clean = as_float(images)
    edited = trigger(clean)
    found = features(model, edited)
    spread = Spread(*variances(model, found), *benign)
    target = predict(model, edited).mean(0)
    return Recovered(
        trigger, (edited - clean).abs().mean().item(), spread.angle_ratio, spread.output_ratio, target, history
    )


def signs(components: int, device: torch.device) -> Tensor:
    """All 2^k rows of -1 and +1 (2^k, k): the directions of the first stage."""
    if components > 6:
        raise ValueError(
            f"the first stage searches 2^k directions side by side: expected at most 6 outputs, got {components}"
        )
    bits = torch.arange(2**components, device=device)[:, None] >> torch.arange(components, device=device)
    return 2.0 * (bits & 1) - 1


def _optimizer(
    candidates: Candidates, steps: int
) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.CosineAnnealingLR]:
    rate = candidates.learning_rate
    optimizer = torch.optim.Adam(candidates.parameters(), lr=rate, betas=BETAS)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps), eta_min=rate / 20)


def _batch(images: Tensor, size: int, generator: Generator) -> Tensor:
    return as_float(images[torch.randint(len(images), (size,), generator=generator, device=images.device)])
