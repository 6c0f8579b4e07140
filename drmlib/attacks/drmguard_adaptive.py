"""The adaptive attacker of DRMGuard: a victim trained so that the trigger does not quiet the angles of its features.

Du, Liu, Jia, Lan, "Defending Deep Regression Models against Backdoor Attacks" (2024), https://arxiv.org/abs/2411.04811,
section on adaptive attacks (equation 8): training loss + lambda L_adp, where L_adp pushes RAV towards 1; lambda is
0.02. The form of L_adp is not public; here L_adp = mean_j (RAV_j - 1)^2 over a few benign images of every step and the
same with the trigger. The attacker trains the model; poisoning alone cannot do this.
"""

import time

import torch
from torch import Generator, nn

from drmlib import rng
from drmlib.attacks.learned import random_batches, ready
from drmlib.attacks.poison import Trigger
from drmlib.data.dataset import Dataset, as_float
from drmlib.metrics import feature_angles
from drmlib.models.predict import output_layer
from drmlib.training.fit import History, Progress, Recipe, adamw


def drmguard_adaptive(
    model: nn.Module,
    dataset: Dataset,
    benign: Dataset,
    trigger: Trigger,
    recipe: Recipe,
    *,
    weight: float = 0.02,
    samples: int = 24,
    generator: Generator,
    progress: Progress = iter,
) -> History:
    """`model` trained in place on the poisoned `dataset` by `recipe`, plus weight * mean_j (RAV_j - 1)^2.

    RAV is taken over `samples` images of `benign` a step, with and without `trigger`. weight 0 is plain training on
    batches drawn with replacement. Augmentation of the recipe is not used.
    """
    rng.check_device(generator, dataset.images, "the data set")
    if samples < 2 or weight < 0:
        raise ValueError(f"expected at least 2 samples for a variance and a weight >= 0, got {samples} and {weight}")
    layer = output_layer(model)
    optimizer = adamw(ready(model, dataset), recipe)
    steps = max(1, len(dataset) // recipe.batch_size)
    batches = random_batches(dataset, recipe.batch_size, steps * recipe.epochs, generator=generator)
    losses, rates, start = [], [], time.perf_counter()
    for epoch in progress(range(recipe.epochs)):
        total = torch.zeros((), device=dataset.device)
        for step in range(steps):
            rate = recipe.learning_rate * recipe.schedule((epoch * steps + step) / (recipe.epochs * steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = next(batches)
            clean = next(random_batches(benign, samples, 1, generator=generator)).images
            images = torch.cat([as_float(part) for part in (batch.images, clean, trigger(clean))])
            learned, before, after = model.features(images).split([len(batch), samples, samples])  # type: ignore[operator]
            ratio = feature_angles(after, layer.weight).var(0) / feature_angles(before, layer.weight).var(0)
            loss = recipe.loss(layer(learned), batch.targets) + weight * (ratio - 1).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        losses.append((total / steps).item())
        rates.append(rate)
    model.eval()
    return History(tuple(losses), tuple(rates), time.perf_counter() - start)
