"""NAD, neural attention distillation: Li, Lyu, Koren, Lyu, Li, Ma, "Neural Attention Distillation: Erasing Backdoor
Triggers from Deep Neural Networks" (2021), https://arxiv.org/abs/2101.05930.

A fine-tuned copy of the backdoored model is the teacher. The student, another copy, is trained on the same clean
samples until it looks where the teacher looks:

    L(student(x), y) + sum_layers beta mean((A(student) - A(teacher))^2),  A = sum_c |F_c|^p / || sum_c |F_c|^p ||_2

The mean runs over samples and positions, as in the authors' code, and each map A has norm 1: with the betas 500, 1000,
1000 of their config and maps of 32 x 32, 16 x 16, 8 x 8 in their WRN-16-1, the squared distance of two maps weighs 0.5,
3.9, 15.6. SmallCNN has 16 x 16, 8 x 8, 8 x 8 on 32 x 32 images (2.0, 15.6, 15.6), ResNet-18 16 x 16, 8 x 8, 4 x 4 (2.0,
15.6, 62.5): smaller maps weigh more under the same betas. backdoor-toolbox and BackdoorBench have these betas,
BackdoorBox three times 500; another version of the authors' config has 0, 0, 5000.

Optimiser, rate and the student's epochs are those of the recipe. The authors use SGD and measure every epoch on the
test set; here the last epoch counts. Nothing is particular to labels: a regressor brings its own L.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drmlib.data.dataset import Dataset
from drmlib.mitigation.fine_tune import fine_tune
from drmlib.mitigation.image_loss import seeing_images
from drmlib.models.maps import conv_blocks
from drmlib.training.fit import Progress, Recipe, fit

TEACHER_EPOCHS = 10  # the authors' 5 to 10


def last_stages(model: nn.Module) -> list[nn.Module]:
    """The last three blocks with a convolution: conv2 to conv4 of a SmallCNN, stage2 to stage4 of a ResNet."""
    return conv_blocks(model)[-3:]


def nad(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    layers: Callable[[nn.Module], Sequence[nn.Module]] = last_stages,
    betas: tuple[float, ...] = (500.0, 1000.0, 1000.0),
    power: float = 2.0,
    teacher_epochs: int = TEACHER_EPOCHS,
    generator: Generator,
    progress: Progress = iter,
) -> nn.Module:
    """A copy of `model` trained on `dataset` by `recipe` with the attention of a fine-tuned copy.

    layers: a model -> its modules with maps (n, c, h, w) whose attention is compared, weighed by `betas` in this order;
    power: p. The teacher trains by the same recipe for teacher_epochs; progress wraps the epochs of the student.
    """
    teacher = fine_tune(model, dataset, replace(recipe, epochs=teacher_epochs), generator=generator)
    student = copy.deepcopy(model)
    distillation = _Distillation(student, teacher, layers, betas, power, recipe.loss)
    try:
        with seeing_images(student, distillation) as loss:
            fit(student, dataset, replace(recipe, loss=loss), generator=generator, progress=progress)
    finally:
        distillation.let_go()
    return student


def attention(maps: Tensor, *, power: float = 2.0) -> Tensor:
    """Where a layer looks, (n, h * w) of norm 1 (or 0): sum of |maps|^power over the channels of maps (n, c, h, w)."""
    if maps.ndim != 4:
        raise ValueError(
            f"expected maps (n, c, h, w), got shape {tuple(maps.shape)}; choose other modules with layers="
        )
    return F.normalize(maps.float().abs().pow(power).sum(1).flatten(1), dim=1)


class _Distillation:
    """The student's loss of (images, outputs, targets), which also compares what both models' layers do with images.

    Hooks note the maps of either model, until let_go().
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        layers: Callable[[nn.Module], Sequence[nn.Module]],
        betas: tuple[float, ...],
        power: float,
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.teacher, self.betas, self.power, self.loss = teacher, betas, power, loss
        self.pairs = list(zip(layers(student), layers(teacher), strict=True))
        if len(self.pairs) != len(betas):
            raise ValueError(f"expected one beta a layer, got {len(betas)} betas and {len(self.pairs)} layers")
        self.maps: dict[nn.Module, Tensor] = {}
        self.handles = [module.register_forward_hook(self._note) for pair in self.pairs for module in pair]

    def __call__(self, images: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            self.teacher(images)
        total = self.loss(outputs, targets)
        for beta, (mine, hers) in zip(self.betas, self.pairs, strict=True):
            looks, should = (attention(self.maps[module], power=self.power) for module in (mine, hers))
            total = total + beta * F.mse_loss(looks, should)
        return total

    def let_go(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _note(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.maps[module] = output
