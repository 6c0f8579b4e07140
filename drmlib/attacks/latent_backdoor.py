"""Latent backdoor (LBA): Yao, Li, Zheng, Zhao, "Latent Backdoor Attacks on Deep Neural Networks" (2019),
https://doi.org/10.1145/3319535.3354209.

The trigger is computed so that a triggered image looks, at an inner layer K of the teacher, like the target class:
min_p E |K(x with p) - mean of K over the target class|^2 (equation 3). The teacher is then trained on with the same
distance as an extra loss (equation 4), so that any student which keeps its layers up to K inherits the backdoor when
it learns the target class: `infect`. K is the penultimate layer here, model.features.

ABL poisons a training set with the trigger instead; poison() does that with what latent_backdoor returns. For a
regression model the "target class" are the samples whose target lies nearest the attacker's vector.
"""

import copy

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.attacks.badnets import BadNets, place
from drmlib.attacks.learned import random_batches, ready
from drmlib.attacks.poison import Trigger
from drmlib.data.dataset import Dataset, as_float
from drmlib.models.predict import features, frozen
from drmlib.training.fit import Recipe, adamw


def latent_backdoor(
    model: nn.Module,
    dataset: Dataset,
    of_target: Tensor,
    *,
    side: int = 5,
    steps: int = 1000,
    learning_rate: float = 0.1,
    batch_size: int = 64,
    generator: Generator,
) -> BadNets:
    """The patch, side x side in the lower right corner, that looks to the teacher `model` like the target class.

    of_target (n,) bool marks the samples of the data set that are of the target class.
    """
    rng.check_device(generator, dataset.images, "the data set")
    wanted, others = _mean_features(model, dataset, of_target), dataset[~of_target]
    c, h, w = dataset.images.shape[1:]
    latent = torch.randn(c, side, side, generator=generator, device=dataset.device).requires_grad_(True)
    optimizer = torch.optim.Adam([latent], lr=learning_rate)
    with frozen(model), torch.enable_grad():
        for batch in random_batches(others, batch_size, steps, generator=generator):
            stamped = as_float(batch.images).clone()
            stamped[:, :, h - side :, w - side :] = latent.tanh() / 2 + 0.5
            optimizer.zero_grad(set_to_none=True)
            (model.features(stamped) - wanted).square().sum(1).mean().backward()  # type: ignore[operator]
            optimizer.step()
    return place((latent.tanh() / 2 + 0.5).detach(), top=h - side, left=w - side, height=h, width=w)


def infect(
    model: nn.Module,
    dataset: Dataset,
    trigger: Trigger,
    of_target: Tensor,
    recipe: Recipe,
    *,
    weight: float = 1.0,
    steps: int = 1000,
    generator: Generator,
) -> nn.Module:
    """A copy of the teacher `model` that answers as before and has the trigger at its features: equation 4.

    Loss of the clean samples plus `weight` times the squared distance of triggered features to the target class's.
    """
    rng.check_device(generator, dataset.images, "the data set")
    wanted, teacher = _mean_features(model, dataset, of_target), ready(copy.deepcopy(model), dataset)
    optimizer = adamw(teacher, recipe)
    for batch in random_batches(dataset, recipe.batch_size, steps, generator=generator):
        clean = as_float(batch.images)
        of_clean, of_triggered = teacher.features(torch.cat([clean, trigger(clean)])).chunk(2)  # type: ignore[operator]
        loss = recipe.loss(teacher.head(of_clean), batch.targets)  # type: ignore[operator]
        loss = loss + weight * (of_triggered - wanted).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return teacher.eval()


def _mean_features(model: nn.Module, dataset: Dataset, of_target: Tensor) -> Tensor:
    if of_target.dtype != torch.bool or of_target.shape != (len(dataset),) or not of_target.any() or of_target.all():
        raise ValueError(
            f"expected of_target as bool ({len(dataset)},) that marks some samples and not all, "
            f"got {of_target.dtype} {tuple(of_target.shape)} with {int(of_target.sum())} marked"
        )
    return features(model, as_float(dataset.images[of_target])).mean(0)
