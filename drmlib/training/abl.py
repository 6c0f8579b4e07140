"""Anti-Backdoor Learning: Li, Lyu, Koren, Lyu, Li, Ma, "Anti-Backdoor Learning: Training Clean Models on Poisoned Data"
(2021), https://arxiv.org/abs/2110.11571.

Poisoned samples are learned first. For T_te epochs the model is trained by local gradient ascent, sign(l - gamma) l,
which keeps clean samples from sinking below gamma; the share p of the samples with the lowest loss is isolated. Then

    L_GGA = E_rest[l] - E_isolated[l]

is minimised. As in the authors' code, whose defaults these are, that is two phases: fine-tuning on the rest, and a few
passes of ascent on the isolated samples alone; `clean` samples in each batch of the ascent give the joint objective.
The paper names T_te = 20 epochs of 100, its code takes 10 + 60 + 5; here it is 20 + 60 + 5. Weight decay spares biases
and norms, and a pass of ascent is a pass (the first of the code's five only tests). Ours, and off unless asked for:
one_target, and what small_recipes and SMALL_POLICY change; benchmarks/abl.md says what each is worth.

No figure here knows what is poisoned: how much of it was isolated is the evaluator's to say, from `isolated`.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drmlib.data.augment import Augmentation
from drmlib.data.dataset import Dataset
from drmlib.training.fit import NESTEROV, Augment, History, Loss, MultiStep, Progress, Recipe, fit, parameter_groups
from drmlib.training.isolated_steps import AS_IN_CODE, Policy, Steps, Unlikely, ascend
from drmlib.training.isolation import Ascent, LocalAscent, isolate, without

PAPER_AUGMENT = Augmentation(flip=True, padding=4, cutout=2)  # the code's cutout of length 3 is 2 pixels wide

# A small network learns isolated samples to the last bit (rendered signs: a loss of 4e-8), and ascent from there stands
# still or tears out their class. Smoothed labels in fine-tuning leave it a slope, small_recipes; the paper's joint
# objective, 256 others a batch, holds the clean task, and a quarter of them the class that the backdoor points to,
# which is the one that pays. The stop rule sees the isolated samples alone.
SMOOTHING = 0.1
SMALL_POLICY = Policy(stop=Unlikely(0.05), clean=256, own_label=0.25)


class Recipes(NamedTuple):
    """How each phase is trained; fine_tuning None leaves that phase out. Losses are plain: abl turns them round."""

    isolation: Recipe
    fine_tuning: Recipe | None
    unlearning: Recipe


class ABLHistory(NamedTuple):
    """A History of all phases, epoch by epoch, and what the isolation found.

    isolated (m,): indices of the samples unlearned, the lowest loss first; losses (n,) of all samples at that moment;
    ascent: the steps of unlearning. The last entry of loss and learning_rate is the ascent's.
    """

    loss: tuple[float, ...]
    learning_rate: tuple[float, ...]
    seconds: float
    isolated: Tensor
    losses: Tensor
    ascent: Steps


def abl(
    model: nn.Module,
    dataset: Dataset,
    recipes: Recipes,
    *,
    share: float = 0.01,
    gamma: float = 0.5,
    local_ascent: Ascent = LocalAscent,
    one_target: bool = False,
    policy: Policy = AS_IN_CODE,
    carry_momentum: bool = True,
    generator: Generator,
    progress: Progress = iter,
) -> ABLHistory:
    """Trains `model` in place on the poisoned `dataset`, isolating and unlearning the `share` of lowest loss.

    recipes: see paper_recipes and small_recipes. gamma: the level below which a batch's loss is pushed up. one_target:
    of the share only samples of the label that most of them have are isolated. policy: what batch norm does while
    unlearning, when that stops, how many other samples stand beside. carry_momentum: unlearning goes on with the
    optimizer of fine-tuning, as the code does, if its recipe names the same one; else it has a new one.
    """
    found = isolate(
        model,
        dataset,
        recipes.isolation,
        share=share,
        gamma=gamma,
        ascent=local_ascent,
        one_target=one_target,
        generator=generator,
        progress=progress,
    )
    phases, optimizer = [found.history], None
    if recipes.fine_tuning is not None:
        history, optimizer = _fine_tune(model, dataset, found.isolated, recipes.fine_tuning, generator, progress)
        phases.append(history)
    ascent = ascend(
        model,
        dataset,
        found.isolated,
        recipes.unlearning,
        policy=policy,
        optimizer=optimizer if carry_momentum and _same_optimizer(recipes) else None,
        generator=generator,
    )
    return ABLHistory(
        (*(loss for phase in phases for loss in phase.loss), ascent.loss[-1]),
        (*(rate for phase in phases for rate in phase.learning_rate), recipes.unlearning.learning_rate),
        sum(phase.seconds for phase in phases) + ascent.seconds,
        found.isolated,
        found.losses,
        ascent,
    )


def paper_recipes(
    *,
    loss: Loss = F.cross_entropy,
    isolation_epochs: int = 20,
    fine_tuning_epochs: int = 60,
    passes: int = 5,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    ascent_rate: float = 5e-4,
    weight_decay: float = 1e-4,
    augment: Augment | None = PAPER_AUGMENT,
) -> Recipes:
    """Nesterov SGD throughout, isolation at a constant rate and without augmentation.

    Fine-tuning falls to a tenth of the rate at two thirds; 0 epochs leave it out. The ascent has a rate of its own.
    augment: of the fine-tuning; None for signs, which have no mirror image.
    """
    plain = Recipe(
        loss,
        isolation_epochs,
        batch_size,
        learning_rate,
        weight_decay,
        schedule=constant,
        optimizer=NESTEROV,
    )
    tuning = replace(plain, epochs=fine_tuning_epochs or 1, schedule=MultiStep((2 / 3,)), augment=augment)
    return Recipes(
        plain,
        tuning if fine_tuning_epochs else None,
        replace(plain, epochs=passes, learning_rate=ascent_rate),
    )


def small_recipes(recipe: Recipe, *, passes: int = 60, ascent_rate: float = 5e-4) -> Recipes:
    """For a small set of labels learned by `recipe` in a few epochs: a quarter to isolate, the rest to fine-tune.

    Isolation at a third of the peak rate, constant, without augmentation: a quarter of a one-cycle schedule is its
    warm-up. Fine-tuning by cross entropy with labels smoothed by SMOOTHING. Up to 60 passes of ascent instead of five,
    for 1 % of a small set is one batch. For SMALL_POLICY, and one_target in abl.
    """
    early = max(1, recipe.epochs // 4)
    rate = recipe.learning_rate / 3
    return Recipes(
        replace(recipe, epochs=early, learning_rate=rate, schedule=constant, augment=None),
        replace(recipe, epochs=max(1, recipe.epochs - early), loss=partial(F.cross_entropy, label_smoothing=SMOOTHING)),
        Recipe(recipe.loss, passes, 64, ascent_rate, schedule=constant, optimizer=NESTEROV),
    )


def constant(progress: float) -> float:
    """The peak learning rate all the time."""
    return 1.0


def _same_optimizer(recipes: Recipes) -> bool:
    return recipes.fine_tuning is not None and recipes.fine_tuning.optimizer is recipes.unlearning.optimizer


def _fine_tune(
    model: nn.Module, dataset: Dataset, isolated: Tensor, recipe: Recipe, generator: Generator, progress: Progress
) -> tuple[History, torch.optim.Optimizer]:
    """History of training on all but the isolated samples, and the optimizer with its momentum."""
    optimizer = recipe.optimizer(parameter_groups(model, recipe), lr=recipe.learning_rate)
    recipe = replace(recipe, optimizer=lambda groups, lr: optimizer)
    return fit(model, without(dataset, isolated), recipe, generator=generator, progress=progress), optimizer
