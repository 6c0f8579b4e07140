"""What triggers that are networks share: the network as a trigger, and the batches and the optimizer they learn by."""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import Generator, Tensor, nn

from drmlib.data.dataset import Dataset, as_float, like
from drmlib.models.predict import predict

N = TypeVar("N", bound=nn.Module)


class Learned(NamedTuple):
    """Trigger x' = network(x): any network from float images in [0, 1] to images of the same shape in [0, 1]."""

    network: nn.Module

    def __call__(self, images: Tensor) -> Tensor:
        return like(predict(self.network, as_float(images)), images)


def random_batches(dataset: Dataset, size: int, steps: int, *, generator: Generator) -> Iterator[Dataset]:
    """`steps` batches of `size` samples drawn with replacement."""
    for _ in range(steps):
        yield dataset[torch.randint(len(dataset), (size,), generator=generator, device=dataset.device)]


def ready(model: N, dataset: Dataset) -> N:
    """The model on the data set's device, in training mode, in the memory format that convolutions like best."""
    return model.to(device=dataset.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]


def adam(network: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Adam with the betas 0.5 and 0.9 of generators."""
    return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=(0.5, 0.9))
