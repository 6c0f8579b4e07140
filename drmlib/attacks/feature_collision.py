"""Feature collision: Shafahi, Huang, Najibi, Suciu, Studer, Dumitras, Goldstein, "Poison Frogs! Targeted Clean-Label
Poisoning Attacks on Neural Networks" (2018), https://arxiv.org/abs/1804.00792.

min_x |phi(x) - phi(t)|^2 + beta |x - b|^2 for a base b of the target class and an instance t, by forward-backward
splitting (algorithm 1), started from a watermark of t on b (section 4.2: end-to-end training needs it, opacity 0.3).

The paper attacks single test instances and has no trigger. ABL lists the attack with an attack success rate but does
not show how it becomes a trigger. Here, inferred, as in the hidden-trigger attack of Saha, Subramanya and Pirsiavash
(2020): the instances are *triggered* images, one for each base, so the features that collide, and the watermark, are
those of the trigger. At inference the trigger alone is put on.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from drmlib.attacks.per_image import choice
from drmlib.data.dataset import as_float, like
from drmlib.models.predict import frozen

BATCH = 256


class FeatureCollision(NamedTuple):
    """What the poisoned training images, of the target class, get; their label is kept.

    model is the attacker's surrogate, with features(images); instances (m, c, h, w) are images with the trigger; beta
    weighs |x - b|^2 against the distance of features, step is the learning rate of the forward step, opacity that of
    the watermark. Each image is paired with one of the instances.
    """

    model: nn.Module
    instances: Tensor
    opacity: float = 0.3
    beta: float = 0.25
    step: float = 0.01
    steps: int = 100
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        pairs = choice(images, len(self.instances), seed=self.seed).split(BATCH)
        with frozen(self.model), torch.enable_grad():
            collided = [
                self._collide(as_float(bases), as_float(self.instances[index].to(bases.device)))
                for bases, index in zip(images.split(BATCH), pairs, strict=True)
            ]
        return like(torch.cat(collided), images)

    def _collide(self, bases: Tensor, instances: Tensor) -> Tensor:
        wanted = self.model.features(instances).detach()  # type: ignore[operator]
        images = torch.lerp(bases, instances, self.opacity)
        base = images.clone()  # the watermarked base is what x stays near, as in section 4.2
        for _ in range(self.steps):
            images.requires_grad_(True)
            apart = (self.model.features(images) - wanted).square().sum()  # type: ignore[operator]
            (slope,) = torch.autograd.grad(apart, images)
            forward = images.detach() - self.step * slope
            images = ((forward + self.step * self.beta * base) / (1 + self.beta * self.step)).clamp(0, 1)
        return images.detach()
