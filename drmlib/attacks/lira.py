"""LIRA: Doan, Lao, Zhao, Li, "LIRA: Learnable, Imperceptible and Robust Backdoor Attacks" (2021),
https://doi.org/10.1109/ICCV48922.2021.01175.

x' = clip(x + epsilon T(x)): a network T with outputs in [-1, 1] learns, together with the victim, the perturbation
within epsilon that the victim can be taught to answer with the target (stage 1, equation 6). Both follow
alpha loss(f(x), y) + (1 - alpha) loss(f(x'), target).

Stage 2, T fixed and the victim trained on, is training a victim from scratch on a set poisoned with the trigger,
which is how the course uses it. Differences: T and f are updated in one step, not in turn; T is a U-Net, as the
paper's larger variant; epsilon is 0.01 in BackdoorBench and 0.05 here, for images of 32 pixels and small networks.
"""

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.attacks.learned import Learned, adam, random_batches, ready
from drmlib.attacks.poison import Retarget
from drmlib.data.dataset import Dataset, as_float
from drmlib.models.unet import UNet
from drmlib.training.fit import Recipe, adamw


class Perturbation(nn.Module):
    """Maps images (n, c, h, w) to clip(images + epsilon T(images)), T a U-Net scaled to [-1, 1]."""

    def __init__(self, network: nn.Module, epsilon: float) -> None:
        super().__init__()
        self.network = network
        self.epsilon = epsilon

    def forward(self, images: Tensor) -> Tensor:
        return (images + self.epsilon * (2 * self.network(images) - 1)).clamp(0, 1)


def lira(
    model: nn.Module,
    dataset: Dataset,
    retarget: Retarget,
    recipe: Recipe,
    *,
    epsilon: float = 0.05,
    alpha: float = 0.5,
    width: int = 64,
    steps: int = 10_000,
    learning_rate: float = 1e-3,
    generator: Generator,
) -> Learned:
    """The trigger learned together with `model`, which is trained in place and ends backdoored.

    alpha weighs clean against poisoned samples; width is the U-Net's; recipe gives loss, batch size, peak learning
    rate and schedule for the model, learning_rate is the generator's (Adam). steps are batches.
    """
    rng.check_device(generator, dataset.images, "the data set")
    network = UNet(channels=dataset.images.shape[1], width=width, generator=generator)
    perturbation = ready(Perturbation(network, epsilon), dataset)
    victim, artist = adamw(ready(model, dataset), recipe), adam(perturbation, learning_rate)
    for step, batch in enumerate(random_batches(dataset, recipe.batch_size, steps, generator=generator)):
        for group in victim.param_groups:
            group["lr"] = recipe.learning_rate * recipe.schedule(step / steps)
        clean = as_float(batch.images)
        outputs = model(torch.cat([clean, perturbation(clean)])).chunk(2)
        loss = alpha * recipe.loss(outputs[0], batch.targets)
        loss = loss + (1 - alpha) * recipe.loss(outputs[1], retarget(batch.targets))
        for optimizer in (victim, artist):
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in (victim, artist):
            optimizer.step()
    model.eval()
    return Learned(perturbation.eval())
