"""Neural Cleanse: the smallest patch that turns every input into one class, for all classes in one batch. Wang, Yao,
Shan, Li, Viswanath, Zheng, Zhao, "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks"
(2019), https://doi.org/10.1109/SP.2019.00031.

min over m, p of CE(f((1 - m) x + m p), k) + cost |m|_1 for each class k; the cost rises while the trigger works and
falls while it does not (section IV). The classes share each batch of images and one optimiser: their parameters are
slices of one tensor and Adam works element by element, so each class moves as it would alone. The authors' early stop
is left out: one batch runs as long as its slowest class.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib import metrics, rng
from drmlib.data.dataset import as_float, like
from drmlib.models.predict import frozen

THRESHOLD = 2.0  # anomaly index above which Wang et al. call a model backdoored
SHORTCUT = 0.5  # and a mask of at most this share of the median one; ours, see NeuralCleanse.flagged


class MaskedPattern(NamedTuple):
    """Trigger x' = (1 - mask) x + mask pattern; mask (1, h, w) and pattern (c, h, w) in [0, 1]."""

    mask: Tensor
    pattern: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        return like(torch.lerp(as_float(images), self.pattern, self.mask), images)


class NeuralCleanse(NamedTuple):
    """trigger: of the class with the smallest mask; score: its anomaly index, suspicious above THRESHOLD.

    target is that class; norms (K,) the |m|_1 of every class in pixels, index (K,) their signed deviations in robust
    standard deviations; success (K,) the share of images that each trigger sends to its class; masks (K, 1, h, w);
    patterns (K, c, h, w).
    """

    trigger: MaskedPattern
    score: float
    target: int
    norms: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks of these fields
    success: Tensor
    masks: Tensor
    patterns: Tensor

    @property
    def flagged(self) -> bool:
        """Whether the model counts as backdoored: score above THRESHOLD, and the mask at most SHORTCUT of the median.

        The second condition is ours. Where benign masks are much alike, the longer the search the smaller their
        deviation, until the index alone flags whichever class is a little easier; a backdoor is a shortcut.
        """
        return self.score > THRESHOLD and self.norms.min().item() <= SHORTCUT * self.norms.median().item()


def neural_cleanse(
    model: nn.Module,
    images: Tensor,
    classes: int,
    *,
    steps: int = 300,
    batch_size: int = 16,
    learning_rate: float = 0.1,
    initial_cost: float = 1e-3,
    cost_factor: float = 1.5,
    patience: int = 5,
    success_threshold: float = 0.99,
    generator: Generator,
) -> NeuralCleanse:
    """Triggers of all `classes` from clean unlabelled `images` (n, c, h, w), and the anomaly index of the smallest.

    The cost is looked at every `patience` steps: times cost_factor where the mean success since the last look reached
    success_threshold, divided by cost_factor^1.5 elsewhere. The smallest mask that was good enough is returned; a class
    that never was returns its last one, with its success below the threshold.
    """
    rng.check_device(generator, images)
    if classes < 3:
        raise ValueError(f"an anomaly index needs at least 3 classes to compare, got {classes}")
    search = _Search(images, classes, learning_rate, initial_cost, generator)
    with frozen(model):
        for step in range(steps):
            index = torch.randint(len(images), (batch_size,), generator=generator, device=images.device)
            search.step(model, as_float(images[index]))
            if (step + 1) % patience == 0:
                search.look(success_threshold, cost_factor)
        return search.result(model, as_float(images))


class _Search:
    """State of the search: logits of masks and patterns of all classes, their costs, and the best masks so far."""

    def __init__(self, images: Tensor, classes: int, learning_rate: float, cost: float, generator: Generator) -> None:
        channels, height, width = images.shape[1:]
        device = images.device
        self.targets = torch.arange(classes, device=device)
        noise = torch.randn(classes, channels + 1, height, width, generator=generator, device=device)
        self.logits = (0.5 * noise).requires_grad_()
        self.optimizer = torch.optim.Adam([self.logits], lr=learning_rate, betas=(0.5, 0.9))
        self.cost = torch.full((classes,), cost, device=device)
        self.hits: list[Tensor] = []
        self.best = self.logits.detach().clone()
        self.best_norm = torch.full((classes,), torch.inf, device=device)

    def stamped(self, logits: Tensor, images: Tensor) -> Tensor:
        """Images (K * b, c, h, w): every class's trigger on every image."""
        mask, pattern = logits[:, None, :1].sigmoid(), logits[:, None, 1:].sigmoid()
        return torch.lerp(images[None], pattern, mask).flatten(0, 1)

    def step(self, model: nn.Module, images: Tensor) -> None:
        wanted = self.targets.repeat_interleave(len(images))
        outputs = model(self.stamped(self.logits, images))
        entropy = nn.functional.cross_entropy(outputs, wanted, reduction="none").view(len(self.targets), -1).mean(1)
        norm = self.logits[:, :1].sigmoid().flatten(1).sum(1)
        self.optimizer.zero_grad(set_to_none=True)
        (entropy + self.cost * norm).sum().backward()
        self.hits.append((outputs.detach().argmax(1) == wanted).view(len(self.targets), -1).float().mean(1))
        self.optimizer.step()

    def look(self, threshold: float, factor: float) -> None:
        good = torch.stack(self.hits).mean(0) >= threshold
        norm = self.logits.detach()[:, :1].sigmoid().flatten(1).sum(1)
        better = good & (norm < self.best_norm)
        self.best_norm = torch.where(better, norm, self.best_norm)
        self.best = torch.where(better[:, None, None, None], self.logits.detach(), self.best)
        self.cost = torch.where(good, self.cost * factor, self.cost / factor**1.5)
        self.hits.clear()

    def result(self, model: nn.Module, images: Tensor) -> NeuralCleanse:
        found = self.best_norm.isfinite()[:, None, None, None]
        logits = torch.where(found, self.best, self.logits.detach())
        masks, patterns = logits[:, :1].sigmoid(), logits[:, 1:].sigmoid()
        norms = masks.flatten(1).sum(1)
        index = metrics.anomaly_index(norms)
        target = int(norms.argmin())
        hits = []
        with torch.no_grad():
            for k in self.targets.tolist():
                labels = [model(torch.lerp(part, patterns[k], masks[k])).argmax(1) for part in images.split(256)]
                hits.append((torch.cat(labels) == k).float().mean())
        trigger = MaskedPattern(masks[target], patterns[target])
        return NeuralCleanse(trigger, -index[target].item(), target, norms, index, torch.stack(hits), masks, patterns)
