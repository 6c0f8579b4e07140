"""DRMGuard: is a deep regression model backdoored? Du, Liu, Jia, Lan, "Defending Deep Regression Models against
Backdoor Attacks" (2024), https://arxiv.org/abs/2411.04811.

Searches for the smallest edit x' of benign images under which the outputs, and the angles of the features to the output
weights, stop varying. Followed: the output-space, stealth and feature-space terms and the attention (constancy.py).

THIS IS NOT THE PAPER'S FORM, which stands in drmguard_published.py. That one trains an image-conditional U-Net and
compares mean |x' - x| with 0.03. As far as its form is public it does not separate benign from backdoored models here:
a generator that sees the image cancels the variance of any model by an adversarial code. What detects best here:

1. the edit must not depend on what there is to cancel. By default it is searched in three families: one mask and
   pattern for all images (Masks), one warp for all (Flows), and a generator that sees the image at 4 x 4 pixels
   (Blurred), for triggers that differ from image to image. Any other can be passed in (trigger_families.py,
   trigger_networks.py);
2. a first stage makes the outputs stand still in every direction, (up, right), (up, left) and so on, all side by side,
   and charges edits by the attention, so that wiping out what the model looks at is dear. A benign model asks about
   the same price of every direction; a backdoor is a short way in one. The price of a direction is its cost over the
   median of the others'; the score is the lowest geometric mean, over the families, of one direction's prices. It needs
   no benign model to compare with, and what families agree on counts: chance seldom makes the same direction cheap;
3. a second stage, the paper's objective, goes on from that direction to the trigger.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.attacks.poison import Trigger
from drmlib.data.dataset import as_float
from drmlib.inversion.constancy import LogHinge, Objective, Spread, adapted, attention, variances
from drmlib.inversion.trigger_families import UNIT, Candidates, Family, Flows, Masks
from drmlib.inversion.trigger_networks import Blurred
from drmlib.models.predict import features, frozen, output_layer, predict

BETAS = (0.5, 0.9)  # of Adam, as usual in trigger inversion
PUSH = 0.7  # standard deviations of the outputs, by which a candidate must at least move their mean in its direction
REACHED = 0.2  # standard deviations that the outputs may still be off, at which a candidate does its work
THRESHOLD = 0.65  # 0.75 x the median score, 0.84 to 0.90, of benign gaze models that none of our figures use


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


class DRMGuard(NamedTuple):
    """trigger: the recovered one; score: price of the cheapest direction, SMALL if backdoored, about 1 if not.

    direction: index of that one among `directions` (K, k) of -1 and 1; family: index of the family that is cheapest
    there, whose trigger this is; prices (F, K) of all families and directions.
    angle_variance_ratio and output_variance_ratio (k,): variance with the trigger over that without, each component;
    predicted_target (k,): mean output under the trigger, in the targets' unit. history (steps, 3): the larger ratio of
    angles and of outputs on each batch of the second stage, and the cost. directions (K, k) of -1 and 1;
    explored: the first stage of every family, in the order given; recovered: the second, by the family's index.
    """

    trigger: Trigger
    score: float
    direction: int
    family: int
    angle_variance_ratio: Tensor
    output_variance_ratio: Tensor
    predicted_target: Tensor
    history: Tensor
    directions: Tensor
    prices: Tensor
    explored: tuple[Explored, ...]
    recovered: dict[int, Recovered]


def drmguard(
    model: nn.Module,
    images: Tensor,
    *,
    families: Sequence[Family] = (Masks, Flows, Blurred),
    objective: Callable[[], Objective] = LogHinge,
    attend: bool = True,
    explore_steps: int = 150,
    explore_batch_size: int = 16,
    steps: int = 100,
    batch_size: int = 64,
    every_family: bool = False,
    generator: Generator,
) -> DRMGuard:
    """The trigger that DRMGuard recovers from `model` with benign unlabelled `images` (n, c, h, w), and its score.

    model.head is one linear layer on model.features, with at most 6 outputs. objective: makes the second stage's
    (constancy.py). attend=False charges all pixels alike. every_family=True goes through the second stage with every
    family and not only with the one of the score: triggers to unlearn together (mitigation/unlearn.py, Mixture).
    """
    rng.check_device(generator, images)
    if len(images) < batch_size:
        raise ValueError(f"a batch needs {batch_size} images for its variance, got {len(images)}; lower batch_size")
    weights = attention(model, images) if attend else torch.ones(images.shape[2:], device=images.device)
    directions = signs(output_layer(model).out_features, images.device)
    first = partial(explore, steps=explore_steps, batch_size=explore_batch_size, generator=generator)
    second = partial(recover, steps=steps, batch_size=batch_size, generator=generator)
    with frozen(model):
        explored = [
            first(model, images, family(images, directions, generator=generator), directions, weights)
            for family in families
        ]
        prices = torch.stack([found.price for found in explored])
        together = prices.log().mean(0).exp()
        direction = int(together.argmin())
        family = int(prices[:, direction].argmin())
        recovered = {
            k: second(model, images, explored[k].candidates.only(direction), objective(), weights)
            for k in (range(len(families)) if every_family else [family])
        }
    found = recovered[family]
    return DRMGuard(
        found.trigger,
        together[direction].item(),
        direction,
        family,
        found.angle_variance_ratio,
        found.output_variance_ratio,
        found.predicted_target,
        found.history,
        directions,
        prices,
        tuple(explored),
        recovered,
    )


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
