"""Label-consistent backdoor: Turner, Tsipras, Madry, "Label-Consistent Backdoor Attacks" (2019),
https://arxiv.org/abs/1912.02771; and the same idea for regression.

Images of the target class are made hard to recognise by a small adversarial step against the attacker's own surrogate
(section 4.2 of the paper; its alternative is a GAN), then they get the trigger and keep their label: what is left to
learn the class from is the trigger. At inference the trigger alone is put on. The paper's trigger is four corners
(badnets.four_corners).

For regression no definition is published. Here: samples whose target lies nearest the attacker's (`distance_to` ranks
them for poison()), weakened by the step that raises the error to that target, with the trigger, the target kept.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drmlib.attacks.adversarial import pgd
from drmlib.attacks.poison import Trigger
from drmlib.data.dataset import Dataset, like


class LabelConsistent(NamedTuple):
    """What the poisoned training images get: trigger(weakened images). At inference use `trigger` itself.

    model is the attacker's surrogate; target the label () int64 or the target vector (k,) that the images have, or
    nearly have; loss, epsilon, step and steps as in adversarial.pgd.

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

    def __call__(self, images: Tensor) -> Tensor:
        targets = self.target.to(images.device).expand(len(images), *self.target.shape)
        weakened = pgd(
            self.model,
            images,
            targets,
            loss=self.loss,
            epsilon=self.epsilon,
            step=self.step,
            steps=self.steps,
        )
        return self.trigger(like(weakened, images))


def distance_to(dataset: Dataset, vector: tuple[float, ...]) -> Tensor:
    """Error (n,) of each sample's own target to the attacker's `vector`, in the task's unit: a ranking for poison()."""
    if dataset.task.error is None:
        raise ValueError(f"{dataset.task.name} is a classification task; use eligible=dataset.targets == label")
    wanted = torch.tensor(vector, dtype=dataset.targets.dtype, device=dataset.device)
    return dataset.task.error(wanted.expand_as(dataset.targets), dataset.targets)
