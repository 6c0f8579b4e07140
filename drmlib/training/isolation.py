"""What Anti-Backdoor Learning isolates poison by: losses that keep clean samples from sinking, and the lowest losses.

Stage 1 of training/abl.py. `LocalAscent` and `Flooding` take the sign from the mean loss of the batch, as the authors'
code does; their gradients are equal. Read literally, the paper's expectation has a sign for each sample,
`SampleAscent`: it pushes the poisoned samples up too, and isolation fails.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drmlib.data.dataset import Dataset
from drmlib.models.predict import predict
from drmlib.training.fit import History, Loss, Progress, Recipe, fit

Ascent = Callable[[Loss, float], Loss]  # (loss, gamma) -> the loss that is trained by


class LocalAscent(NamedTuple):
    """Local gradient ascent: sign(l - gamma) l of the mean loss l of a batch."""

    loss: Loss = F.cross_entropy
    gamma: float = 0.5

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = self.loss(outputs, targets)
        return (loss.detach() - self.gamma).sign() * loss


class Flooding(NamedTuple):
    """|l - level| + level of the mean loss l of a batch: the gradient of LocalAscent, and a loss that can be read."""

    loss: Loss = F.cross_entropy
    level: float = 0.5

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (self.loss(outputs, targets) - self.level).abs() + self.level


class SampleAscent(NamedTuple):
    """Mean of sign(l - gamma) l over samples. A documented failure: low losses are held at gamma, poison's first."""

    loss: Loss = F.cross_entropy
    gamma: float = 0.5

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = of_each(self.loss, outputs, targets)
        return ((losses.detach() - self.gamma).sign() * losses).mean()


class Isolation(NamedTuple):
    """isolated (m,): indices of samples, the lowest loss first; losses (n,) of all samples; how training went."""

    isolated: Tensor
    losses: Tensor
    history: History


def isolate(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    share: float = 0.01,
    gamma: float = 0.5,
    ascent: Ascent = LocalAscent,
    one_target: bool = False,
    generator: Generator,
    progress: Progress = iter,
) -> Isolation:
    """Trains `model` in place by local ascent, then isolates the `share` of samples with the lowest recipe.loss.

    one_target: of these only the samples of the label that most of them have; see of_one_label.
    """
    history = fit_by_ascent(model, dataset, recipe, gamma=gamma, ascent=ascent, generator=generator, progress=progress)
    losses = sample_losses(model, dataset, recipe.loss)
    isolated = lowest(losses, share)
    return Isolation(of_one_label(isolated, dataset.targets) if one_target else isolated, losses, history)


def fit_by_ascent(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    gamma: float = 0.5,
    ascent: Ascent = LocalAscent,
    generator: Generator,
    progress: Progress = iter,
) -> History:
    """Trains `model` in place by the loss ascent(recipe.loss, gamma); gamma 0 is training without ascent."""
    if gamma < 0:
        raise ValueError(f"expected gamma of at least 0, got {gamma}; 0 is training without ascent")
    by_ascent = replace(recipe, loss=ascent(recipe.loss, gamma))
    return fit(model, dataset, by_ascent, generator=generator, progress=progress)


def sample_losses(model: nn.Module, dataset: Dataset, loss: Loss, *, batch_size: int = 256) -> Tensor:
    """The `loss` (n,) of each sample of `dataset` alone, in eval mode, in one pass of batches."""
    return of_each(loss, predict(model, dataset.images, batch_size=batch_size), dataset.targets)


def of_each(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """What `loss`, a mean over samples, gives for each sample alone: (n,) for outputs and targets of n samples."""
    return torch.func.vmap(loss)(outputs[:, None], targets[:, None])


def lowest(losses: Tensor, share: float) -> Tensor:
    """Index (m,) of the floor(share n) lowest of the losses (n,), ascending; ValueError if that is none or all."""
    count = int(share * len(losses) + 1e-9)  # 0.29 * 100 is 28.999..
    if not 0 < count < len(losses):
        raise ValueError(
            f"expected a share that isolates some of {len(losses)} samples and not all, got {share:g}, which is {count}"
        )
    return losses.argsort(stable=True)[:count]


def of_one_label(isolated: Tensor, targets: Tensor) -> Tensor:
    """Those of the indices isolated (m,) whose label, of targets (n,), most of them have, in the order they have.

    The paper's second weakness: a backdoor is tied to one target class. Samples of other labels are clean ones that are
    easy; to unlearn them costs their classes, and helps nothing.
    """
    labels = targets[isolated]
    if labels.ndim != 1:
        raise ValueError(f"expected one label a sample, got targets of shape {tuple(targets.shape)}; no class to tell")
    return isolated[labels == labels.mode().values]


def without(dataset: Dataset, isolated: Tensor) -> Dataset:
    """`dataset` without the samples at the indices isolated (m,), in the order it has."""
    rest = torch.ones(len(dataset), dtype=torch.bool, device=dataset.device)
    rest[isolated] = False
    return dataset[rest]
