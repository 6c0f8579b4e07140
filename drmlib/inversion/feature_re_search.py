"""One start of FeatureRE's search: a network, a mask over features and a target vector, each against the others.

feature_re.py names paper, code and departures; feature_re_objective.py has what is minimised.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drmlib.data.dataset import as_float
from drmlib.inversion.feature_re_objective import (
    Bounds,
    Terms,
    excesses,
    mask_objective,
    mixed_value,
    network_objective,
)
from drmlib.inversion.free_targets import check_spread

BETAS = (0.5, 0.9)
NEIGHBOURS = 0.1  # share of the clean images that stand for the target class; ours

Split = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


class Clean:
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


class Best(NamedTuple):
    """The state of the lowest mixed value."""

    score: Tensor
    network: nn.Module
    target: Tensor
    mask: Tensor
    terms: Terms


class Search:
    """One start: network, logits of the mask, target in standard deviations, the last excesses, the best so far."""

    def __init__(
        self, clean: Clean, network: nn.Module, start: Tensor, rates: tuple[float, float, float], generator: Generator
    ) -> None:
        self.clean, self.generator, self.network = clean, generator, network.train()
        self.target = start.clone().requires_grad_()
        self.logits = torch.ones_like(clean.features[0], requires_grad=True)
        rate, mask_rate, target_rate = rates
        groups = [{"params": [*network.parameters()], "lr": rate}, {"params": [self.target], "lr": target_rate}]
        self.optimizer = torch.optim.Adam(groups, betas=BETAS)
        self.mask_optimizer = torch.optim.Adam([self.logits], lr=mask_rate, betas=BETAS)
        self.excess = Terms(*[torch.ones((), device=start.device)] * 6)
        self.seen: list[Terms] = []
        self.best: Best | None = None

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
            self.best = Best(score, copy.deepcopy(self.network), target, self.mask().detach(), means)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
