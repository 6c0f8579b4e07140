"""DFST: Cheng, Liu, Ma, Zhang, "Deep Feature Space Trojan Attack of Neural Networks by Controlled Detoxification"
(2021), https://arxiv.org/abs/2012.11212.

The trigger is a style: a generator paints every image in the light of a sunset. Because a network would first learn
the style's shallow features (its colours), the attack *detoxifies*: for the neurons of the poisoned model that the
trigger excites most, a small feature injector learns to excite them by a simple change of the image; images so changed
keep their true label and are added to training, so that the model must learn deeper features (section 4.3).

Simplified, and said so: the authors' generator is a CycleGAN trained on photographs of sunsets. Here it is a U-Net
whose output must match the per-channel mean and standard deviation, and the vertical colour gradient, of sunsets that
we draw, while a content loss keeps its edges. The injector is a small U-Net within epsilon.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drmlib import rng
from drmlib.attacks.learned import Learned, adam, random_batches, ready
from drmlib.attacks.lira import Perturbation
from drmlib.attacks.poison import Trigger
from drmlib.data.dataset import Dataset, as_float
from drmlib.models.predict import features, frozen
from drmlib.models.unet import UNet

SKY, GROUND = (0.55, 0.25, 0.35), (1.0, 0.62, 0.2)  # violet above, orange below


class Sunset(NamedTuple):
    """What the style asks for: mean (c, h) and standard deviation (c,) of the image rows."""

    mean: Tensor
    deviation: Tensor


def sunset(*, height: int) -> Sunset:
    """Rows that go from violet at the top to orange at the bottom."""
    way = torch.linspace(0, 1, height)
    sky, ground = torch.tensor(SKY)[:, None], torch.tensor(GROUND)[:, None]
    return Sunset(sky + (ground - sky) * way, torch.full((3,), 0.18))


def dfst(
    dataset: Dataset,
    *,
    content: float = 20.0,
    width: int = 32,
    steps: int = 2000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    generator: Generator,
) -> Learned:
    """The trigger that paints images (n, 3, h, w) in the style of a sunset; content weighs the edges against it."""
    rng.check_device(generator, dataset.images, "the data set")
    if dataset.images.shape[1] != 3:
        raise ValueError(f"a style of colours needs 3 channels, got {dataset.images.shape[1]}")
    network = ready(UNet(width=width, generator=generator), dataset)
    wanted = Sunset(*(t.to(dataset.device) for t in sunset(height=dataset.images.shape[2])))
    optimizer = adam(network, learning_rate)
    for batch in random_batches(dataset, batch_size, steps, generator=generator):
        images = as_float(batch.images)
        painted = network(images)
        loss = _style(painted, wanted) + content * F.mse_loss(_edges(painted), _edges(images))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return Learned(network.eval())


def detoxicant(
    model: nn.Module,
    dataset: Dataset,
    trigger: Trigger,
    *,
    neurons: int = 8,
    epsilon: float = 0.15,
    width: int = 8,
    steps: int = 500,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    generator: Generator,
) -> Learned:
    """The feature injector of a poisoned `model`: a small change of the image that excites what the trigger excites.

    neurons: how many of the penultimate features, those that the trigger raises most, it must bring to the trigger's
    level. Give it to poison() as cover_trigger, and train again.
    """
    rng.check_device(generator, dataset.images, "the data set")
    with torch.no_grad():
        raised = features(model, trigger(dataset.images[:512])).mean(0)
        compromised = (raised - features(model, dataset.images[:512]).mean(0)).topk(neurons).indices
    network = UNet(channels=dataset.images.shape[1], width=width, generator=generator)
    injector = ready(Perturbation(network, epsilon), dataset)
    optimizer = adam(injector, learning_rate)
    with frozen(model), torch.enable_grad():
        for batch in random_batches(dataset, batch_size, steps, generator=generator):
            excited = model.features(injector(as_float(batch.images)))[:, compromised]  # type: ignore[operator]
            optimizer.zero_grad(set_to_none=True)
            F.mse_loss(excited, raised[compromised].expand_as(excited)).backward()
            optimizer.step()
    return Learned(injector.eval())


def _style(images: Tensor, wanted: Sunset) -> Tensor:
    """Distance of the rows' mean and the image's spread around it to those of a sunset."""
    rows = images.mean(3)
    spread = (images - rows[..., None]).square().mean((2, 3)).sqrt()
    return F.mse_loss(rows, wanted.mean.expand_as(rows)) + F.mse_loss(spread, wanted.deviation.expand_as(spread))


def _edges(images: Tensor) -> Tensor:
    """Differences to the right and to below of the brightness (n, 2, h - 1, w - 1)."""
    grey = images.mean(1)
    right, below = grey[:, :-1, 1:] - grey[:, :-1, :-1], grey[:, 1:, :-1] - grey[:, :-1, :-1]
    return torch.stack([right, below], 1)
