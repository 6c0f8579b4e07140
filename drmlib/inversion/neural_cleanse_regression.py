"""Neural Cleanse for regression: the smallest patch that turns every input into one vector, which is searched as well.

Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao, "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural
Networks" (2019), https://doi.org/10.1109/SP.2019.00031, generalised as Du, Liu, Jia, Lan did for their comparison in
"Defending Deep Regression Models against Backdoor Attacks" (2024), https://arxiv.org/abs/2411.04811: the target becomes
a variable. Their text says no more than that; the rest is inferred.

min over m, p, y of mean |f((1 - m) x + m p) - y|_1 + cost |m|_1, from several y spread over the range of the clean
outputs (independent draws leave holes, and a backdoor attracts no y from far away). The first term counts standard
deviations of the clean outputs: it then is of order 1 as a cross-entropy is, whatever the unit of the outputs, and
Neural Cleanse's costs keep their meaning. y moves fast at first and hardly at the end, when it must be held. The
restarts share each batch of images and move as each would alone, as the classes do in neural_cleanse.py. The cost is
multiplied by 1.5 as in the authors' class (their example sets 2) and, unlike theirs, is charged from the first step.
There is no anomaly index: it would compare the masks of all classes, and restarts that end at one y are no classes.

Known to fail: a free y drifts to whatever output of a model is easiest to hold, and wiping out what a benign model
looks at holds one. The size of that mask tells how much of an image the model uses before it tells of a backdoor.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.data.dataset import as_float
from drmlib.inversion.free_targets import check_spread, starts
from drmlib.inversion.neural_cleanse import MaskedPattern
from drmlib.models.predict import frozen, predict


class NeuralCleanseRegression(NamedTuple):
    """trigger: of the best restart; score: its |m|_1 in pixels, SMALL if backdoored; target (k,): its y.

    reached: whether any restart held success_threshold; if none did, the smallest mask of all is reported, though it
    does not work. Of all K restarts: norms (K,) in pixels; success (K,), the share of all images that come within
    tolerance of y; held (K,), whether it reached success_threshold in the search; targets (K, k), in the outputs' unit;
    masks (K, 1, h, w); patterns (K, c, h, w).
    """

    trigger: MaskedPattern
    score: float
    target: Tensor
    reached: bool
    norms: Tensor
    success: Tensor
    held: Tensor
    targets: Tensor
    masks: Tensor
    patterns: Tensor


def neural_cleanse_regression(
    model: nn.Module,
    images: Tensor,
    error: Callable[[Tensor, Tensor], Tensor],
    *,
    tolerance: float = 3.0,
    restarts: int = 10,
    steps: int = 200,
    batch_size: int = 16,
    learning_rate: float = 0.1,
    target_learning_rate: float = 0.1,
    initial_cost: float = 1e-3,
    cost_factor: float = 1.5,
    patience: int = 5,
    success_threshold: float = 0.98,
    generator: Generator,
) -> NeuralCleanseRegression:
    """The smallest patch that holds the outputs of `model` at some vector, from clean unlabelled `images` (n, c, h, w).

    error: (outputs, targets) (n, k) -> (n,), such as metrics.gaze_error; an image counts as a success where it is below
    `tolerance`, in its unit. The cost is looked at every `patience` steps: times cost_factor where the mean success
    since the last look reached success_threshold, divided by cost_factor^1.5 elsewhere. target_learning_rate: of y,
    in standard deviations of the outputs, falling to a twentieth.
    """
    rng.check_device(generator, images)
    if restarts < 1:
        raise ValueError(f"expected at least one restart, got {restarts}")
    clean = predict(model, images)
    check_spread(clean)
    search = _Search(clean, images.shape[1:], restarts, initial_cost, generator)
    optimizer = torch.optim.Adam([search.logits], lr=learning_rate, betas=(0.5, 0.9))
    mover = torch.optim.Adam([search.targets], lr=target_learning_rate, betas=(0.5, 0.9))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(mover, max(1, steps), eta_min=target_learning_rate / 20)
    with frozen(model):
        for step in range(steps):
            index = torch.randint(len(images), (batch_size,), generator=generator, device=images.device)
            outputs = model(search.stamped(as_float(images[index])))
            optimizer.zero_grad(set_to_none=True)
            mover.zero_grad(set_to_none=True)
            search.loss(outputs).sum().backward()
            wanted = search.vectors(search.targets.detach()).repeat_interleave(batch_size, 0)
            search.hits.append((error(outputs.detach(), wanted) < tolerance).view(restarts, -1).float().mean(1))
            optimizer.step()
            mover.step()
            schedule.step()
            if (step + 1) % patience == 0:
                search.look(success_threshold, cost_factor)
    return _result(
        search, lambda stamp, target: error(predict(model, stamp(images)), target.expand_as(clean)) < tolerance
    )


def objective(outputs: Tensor, targets: Tensor, norms: Tensor, costs: Tensor) -> Tensor:
    """mean |f(x') - y|_1 + cost |m|_1 (K,) of outputs (K, b, k) and targets (K, k), both in standard deviations."""
    return (outputs - targets[:, None]).abs().sum(2).mean(1) + costs * norms


def adapted(costs: Tensor, good: Tensor, *, factor: float) -> Tensor:
    """The costs (K,): times `factor` where the trigger is good enough, divided by factor^1.5 where it is not."""
    return torch.where(good, costs * factor, costs / factor**1.5)


class _Search:
    """State of the search: logits of masks and patterns and the targets of all restarts, their costs, the best so far.

    Targets are kept in standard deviations from the mean of the clean outputs.
    """

    def __init__(self, outputs: Tensor, shape: torch.Size, restarts: int, cost: float, generator: Generator) -> None:
        device, (channels, height, width) = outputs.device, shape
        self.centre, self.spread = outputs.mean(0), outputs.std(0)
        self.targets = starts((outputs - self.centre) / self.spread, restarts, generator=generator).requires_grad_()
        own, size = rng.spawn(generator), (channels + 1, height, width)  # more restarts leave the first as they were
        noise = torch.stack([torch.randn(size, generator=own, device=device) for _ in range(restarts)])
        self.logits = (0.5 * noise).requires_grad_()
        self.cost = torch.full((restarts,), cost, device=device)
        self.hits: list[Tensor] = []
        self.best, self.best_targets = self.logits.detach().clone(), self.targets.detach().clone()
        self.best_norm = torch.full((restarts,), torch.inf, device=device)

    def stamped(self, images: Tensor) -> Tensor:
        """Images (K * b, c, h, w): every restart's trigger on every image."""
        mask, pattern = self.logits[:, None, :1].sigmoid(), self.logits[:, None, 1:].sigmoid()
        return torch.lerp(images[None], pattern, mask).flatten(0, 1)

    def loss(self, outputs: Tensor) -> Tensor:
        """(K,) from the outputs (K * b, k) of stamped images."""
        standard = ((outputs - self.centre) / self.spread).unflatten(0, (len(self.targets), -1))
        return objective(standard, self.targets, self.norms(self.logits), self.cost)

    def look(self, threshold: float, factor: float) -> None:
        good = torch.stack(self.hits).mean(0) >= threshold
        logits, targets = self.logits.detach(), self.targets.detach()
        norm = self.norms(logits)
        better = good & (norm < self.best_norm)
        self.best_norm = torch.where(better, norm, self.best_norm)
        self.best = torch.where(better[:, None, None, None], logits, self.best)
        self.best_targets = torch.where(better[:, None], targets, self.best_targets)
        self.cost = adapted(self.cost, good, factor=factor)
        self.hits.clear()

    def vectors(self, targets: Tensor) -> Tensor:
        """Targets (K, k) in the unit of the outputs."""
        return self.centre + self.spread * targets

    @staticmethod
    def norms(logits: Tensor) -> Tensor:
        return logits[:, :1].sigmoid().flatten(1).sum(1)


def _result(search: _Search, near: Callable[[MaskedPattern, Tensor], Tensor]) -> NeuralCleanseRegression:
    """The best restart and what all came to; near: which images a trigger sends to a target."""
    held = search.best_norm.isfinite()
    logits = torch.where(held[:, None, None, None], search.best, search.logits.detach())
    targets = search.vectors(torch.where(held[:, None], search.best_targets, search.targets.detach()))
    masks, patterns, norms = logits[:, :1].sigmoid(), logits[:, 1:].sigmoid(), search.norms(logits)
    triggers = [MaskedPattern(mask, pattern) for mask, pattern in zip(masks, patterns, strict=True)]
    success = torch.stack([near(stamp, y).float().mean() for stamp, y in zip(triggers, targets, strict=True)])
    reached = bool(held.any())
    best = int(torch.where(held, norms, torch.inf).argmin() if reached else norms.argmin())
    return NeuralCleanseRegression(
        triggers[best], norms[best].item(), targets[best], reached, norms, success, held, targets, masks, patterns
    )
