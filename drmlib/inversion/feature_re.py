"""FeatureRE, for regression: a network from images to images, and a few features that alone carry its effect.

Wang, Mei, Zhai, Ding, Ma, "Rethinking the Reverse-engineering of Trojan Triggers" (2022),
https://arxiv.org/abs/2210.15127, generalised as Du, Liu, Jia, Lan did for their comparison in "Defending Deep
Regression Models against Backdoor Attacks" (2024), https://arxiv.org/abs/2411.04811: the target class becomes a vector
y that is searched as well. Their text says no more than that.

With features a and head h, the trigger G is a U-Net and f' = m a(G(x)) + (1 - m) a(another clean image): whatever the
features outside the mask m say, h(f') shall be y. Bounds hold the change of the image, the spread of the masked
features and |m|_1; beyond a bound its term is charged, below it is free, and so is the error once enough images reach
y. The features of G(x) shall also be unlike those of clean inputs whose answer is y. Terms, factors and bounds are
those of the authors' code; what it calls the mixed value is the score. They put 100 epochs of warm-up without the mask
before 400 with it.

For regression: cross-entropy becomes |h(f') - y|_1 in standard deviations of the clean outputs, accuracy the share of
images within a tolerance of y, the features of the target class those of the clean images whose outputs are nearest to
y, the loop over classes one over starts of y. Ours too: the change counts variances of the clean images, as the
authors' does since they standardise images, and the features' spread counts that of clean images, since regressors
come in any scale. The network is the least bad state of the search, not the last.

Known to fail: where a linear head reads the penultimate features, no answer is constant while most features are those
of other images. A mask of 3 % then works for no model, backdoored or not; `split` moves the mask to an earlier layer.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drmlib import rng
from drmlib.attacks.learned import Learned
from drmlib.data.dataset import as_float
from drmlib.inversion.neural_cleanse_regression import check_spread, starts
from drmlib.models.predict import frozen, predict
from drmlib.models.unet import UNet

BETAS = (0.5, 0.9)
NEIGHBOURS = 0.1  # share of the clean images that stand for the target class; ours

Split = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


class Bounds(NamedTuple):
    """What is free: distance, deviation and size below these (see Terms), the error where success is above."""

    distance: float = 0.15
    deviation: float = 1.0
    size: float = 0.03
    success: float = 0.9


BOUNDS = Bounds()


class Terms(NamedTuple):
    """Figures of a batch, or means over several. error: |h(f') - y|_1 in standard deviations of the clean outputs;
    success: share of images within tolerance; similarity: cosine of the mean features to those of clean images that
    answer y; distance: mean (G(x) - x)^2 in variances of the images; deviation: mean standard deviation of the masked
    features over that of clean ones; size: |m|_1 as a share of the features.
    """

    error: Tensor
    success: Tensor
    similarity: Tensor
    distance: Tensor
    deviation: Tensor
    size: Tensor


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
        clean = _Clean(images, parts, lambda outputs, y: error(outputs, y.expand_as(outputs)) < tolerance)
        for target in starts(clean.outputs, restarts, generator=generator):
            network = UNet(channels=images.shape[1], width=width, generator=generator)
            network.to(device=images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            search = _Search(clean, network, target, rates, generator)
            for step in range(-warm_up_steps, steps):
                index = torch.randint(len(images), (batch_size,), generator=generator, device=images.device)
                (search.warm_up if step < 0 else search.step)(as_float(images[index]), bounds)
                if step >= 0 and (step + 1) % window == 0:
                    search.look(bounds)
            found.append(search.best)
    return _result(model, images, clean, [one for one in found if one])


def network_objective(terms: Terms, excess: Terms, bounds: Bounds) -> Tensor:
    """5 relu(similarity) + what is beyond bounds of 10 distance, 10 deviation, error, times 1 + its last excess."""
    free = torch.zeros_like(terms.error)
    return (
        5 * terms.similarity.relu()
        + torch.where(terms.deviation > bounds.deviation, 10 * (1 + excess.deviation) * terms.deviation, free)
        + torch.where(terms.distance > bounds.distance, 10 * (1 + excess.distance) * terms.distance, free)
        + torch.where(terms.success < bounds.success, (1 + excess.success) * terms.error, free)
    )


def mask_objective(terms: Terms, features: int, bounds: Bounds) -> Tensor:
    """error + |m|_1, the latter out of bounds only."""
    return terms.error + torch.where(terms.size > bounds.size, features * terms.size, torch.zeros_like(terms.size))


def excesses(terms: Terms, bounds: Bounds) -> Terms:
    """How far distance, deviation, size and success are beyond their bounds, as shares of these; 0 within and for
    error and similarity, which have none."""
    none = torch.zeros_like(terms.error)
    return Terms(
        none,
        (bounds.success - terms.success).relu() / bounds.success,
        none,
        (terms.distance - bounds.distance).relu() / bounds.distance,
        (terms.deviation - bounds.deviation).relu() / bounds.deviation,
        (terms.size - bounds.size).relu() / bounds.size,
    )


def mixed_value(terms: Terms, bounds: Bounds) -> Tensor:
    """similarity - success + the excesses of distance, size and deviation."""
    excess = excesses(terms, bounds)
    return terms.similarity - terms.success + excess.distance + excess.size + excess.deviation


class _Clean:
    """The clean images' features, outputs and spreads, and the model in two parts."""

    def __init__(self, images: Tensor, parts: Split, near: Callable[[Tensor, Tensor], Tensor]) -> None:
        (self.read, self.head), self.near = parts, near
        with torch.no_grad():
            self.features = torch.cat([self.read(as_float(part)) for part in images.split(256)])
            outputs = torch.cat([self.head(part) for part in self.features.split(256)])
        check_spread(outputs)
        self.centre, self.spread = outputs.mean(0), outputs.std(0)
        self.outputs = (outputs - self.centre) / self.spread
        self.variance = as_float(images).var((0, 2, 3)).mean()
        self.deviation = self.features.std(0).mean()

    def others(self, count: int, generator: Generator) -> Tensor:
        """Features of `count` clean images drawn at random."""
        size, device = len(self.features), self.features.device
        return self.features[torch.randint(size, (count,), generator=generator, device=device)]

    def answering(self, y: Tensor) -> Tensor:
        """Mean features of the clean images whose outputs are nearest to y (k,), in standard deviations."""
        count = max(1, round(NEIGHBOURS * len(self.outputs)))
        return self.features[(self.outputs - y).abs().sum(1).topk(count, largest=False).indices].mean(0)


class _Best(NamedTuple):
    """The state of the lowest mixed value."""

    score: Tensor
    network: nn.Module
    target: Tensor
    mask: Tensor
    terms: Terms


def _result(model: nn.Module, images: Tensor, clean: _Clean, found: list[_Best]) -> FeatureRE:
    scores, targets = torch.stack([one.score for one in found]), torch.stack([one.target for one in found])
    score, network, target, mask, terms = found[int(scores.argmin())]
    trigger = Learned(network.eval().requires_grad_(False))
    success = clean.near(predict(model, trigger(images)), target).float().mean().item()
    return FeatureRE(trigger, score.item(), target, mask, terms, success, scores, targets)


class _Search:
    """One start: network, logits of the mask, target in standard deviations, the last excesses, the best so far."""

    def __init__(
        self, clean: _Clean, network: nn.Module, target: Tensor, rates: tuple[float, float, float], generator: Generator
    ) -> None:
        self.clean, self.generator, self.network = clean, generator, network.train()
        self.target = target.clone().requires_grad_()
        self.logits = torch.ones_like(clean.features[0], requires_grad=True)
        rate, mask_rate, target_rate = rates
        groups = [{"params": [*network.parameters()], "lr": rate}, {"params": [self.target], "lr": target_rate}]
        self.optimizer = torch.optim.Adam(groups, betas=BETAS)
        self.mask_optimizer = torch.optim.Adam([self.logits], lr=mask_rate, betas=BETAS)
        self.excess = Terms(*[torch.ones((), device=target.device)] * 6)
        self.seen: list[Terms] = []
        self.best: _Best | None = None

    def mask(self) -> Tensor:
        return self.logits.tanh() / 2 + 0.5

    def edited(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the network makes of images (b, c, h, w): images, and their features."""
        edited = self.network(images)
        return edited, self.clean.read(edited)

    def terms(self, images: Tensor, edited: Tensor, found: Tensor, *, masked: bool = True) -> Terms:
        """Of a batch; masked=False leaves all features as the network made them."""
        clean, mask = self.clean, self.mask()
        outputs = clean.head(torch.lerp(clean.others(len(images), self.generator), found, mask) if masked else found)
        target = clean.centre + clean.spread * self.target
        spread = (found.std(0) * mask).sum() / mask.sum()
        return Terms(
            ((outputs - target) / clean.spread).abs().sum(1).mean(),
            clean.near(outputs.detach(), target.detach()).float().mean(),
            F.cosine_similarity(clean.answering(self.target.detach()).flatten(), found.mean(0).flatten(), 0),
            (edited - images).square().mean() / clean.variance,
            spread / clean.deviation,
            mask.mean(),
        )

    def warm_up(self, images: Tensor, bounds: Bounds) -> None:
        terms = self.terms(images, *self.edited(images), masked=False)
        beyond = torch.where(terms.distance > bounds.distance, 100 * terms.distance, torch.zeros_like(terms.distance))
        _step(self.optimizer, terms.error + beyond)

    def step(self, images: Tensor, bounds: Bounds) -> None:
        """The network and target against the mask as it is, then the mask against the network as it is."""
        terms = self.terms(images, *self.edited(images))
        _step(self.optimizer, network_objective(terms, self.excess, bounds))
        self.seen.append(Terms(*[value.detach() for value in terms]))
        self.network.eval()
        with torch.no_grad():
            edited, found = self.edited(images)
        self.network.train()
        _step(self.mask_optimizer, mask_objective(self.terms(images, edited, found), self.logits.numel(), bounds))

    def look(self, bounds: Bounds) -> None:
        means = Terms(*[torch.stack(values).mean() for values in zip(*self.seen, strict=True)])
        self.seen.clear()
        self.excess, score = excesses(means, bounds), mixed_value(means, bounds)
        if self.best is None or score < self.best.score:
            target = self.clean.centre + self.clean.spread * self.target.detach()
            self.best = _Best(score, copy.deepcopy(self.network), target, self.mask().detach(), means)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
