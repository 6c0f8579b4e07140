"""Label-consistent backdoor: Turner, Tsipras, Madry, "Label-Consistent Backdoor Attacks" (2019),
https://arxiv.org/abs/1912.02771; and the same idea for regression.

Images of the target class are made hard to recognise by a small adversarial step against the attacker's own surrogate
(section 4.2 of the paper; its alternative is a GAN), then they get the trigger and keep their label: what is left to
learn the class from is the trigger. At inference the trigger alone is put on. The paper's trigger is four corners
(badnets.four_corners).

For regression no definition is published. Here: samples whose target lies nearest the attacker's (`distance_to` ranks
them for poison()), weakened, with the trigger, the target kept. Pushing all of them away from one target would write
the same adversarial mark into each, which the victim learns in place of the trigger; so each is pushed towards a decoy,
the target of another sample.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drmlib.attacks.adversarial import pgd
from drmlib.attacks.per_image import choice
from drmlib.attacks.poison import Trigger
from drmlib.data.dataset import Dataset, like


class LabelConsistent(NamedTuple):
    """What the poisoned training images get: trigger(weakened images). At inference use `trigger` itself.

    model is the attacker's surrogate; target the label () int64 or the target vector (k,) that the images have, or
    nearly have; loss, epsilon, step and steps as in adversarial.pgd. decoys (m,) or (m, k): each image is pushed
    towards one of these instead of away from the target.

    >>> weakened = LabelConsistent(surrogate, four_corners(), torch.tensor(3))
    >>> poison(dataset, weakened, keep, rate_of_eligible=0.5, eligible=dataset.targets == 3, generator=generator)
    """

    model: nn.Module
    trigger: Trigger
    target: Tensor
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    epsilon: float = 8 / 255
    step: float = 1.5 / 255
    steps: int = 100
    decoys: Tensor | None = None
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        if self.decoys is None:
            targets, loss = self.target.to(images.device).expand(len(images), *self.target.shape), self.loss
        else:
            drawn = choice(images, len(self.decoys), seed=self.seed)
            targets, loss = self.decoys.to(images.device)[drawn], self._nearer
        weakened = pgd(
            self.model,
            images,
            targets,
            loss=loss,
            epsilon=self.epsilon,
            step=self.step,
            steps=self.steps,
        )
        return self.trigger(like(weakened, images))

    def _nearer(self, outputs: Tensor, decoys: Tensor) -> Tensor:
        return -self.loss(outputs, decoys)


def distance_to(dataset: Dataset, vector: tuple[float, ...]) -> Tensor:
    """Error (n,) of each sample's own target to the attacker's `vector`, in the task's unit: a ranking for poison()."""
    if dataset.task.error is None:
        raise ValueError(f"{dataset.task.name} is a classification task; use eligible=dataset.targets == label")
    wanted = torch.tensor(vector, dtype=dataset.targets.dtype, device=dataset.device)
    return dataset.task.error(wanted.expand_as(dataset.targets), dataset.targets)
