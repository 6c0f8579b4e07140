"""Normalise: the first layer of every model here, so that attacks and defences work on images in [0, 1]."""

import torch
from torch import Tensor, nn

from drmlib.data.dataset import as_float


class Normalise(nn.Module):
    """Maps images (n, c, h, w), float in [0, 1] or uint8, to (images - mean) / std, channel by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"expected one std a channel mean, got {len(mean)} means and {len(std)} stds")
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return (as_float(images) - self.mean) / self.std
