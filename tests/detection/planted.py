"""Suspicious samples put there by hand, for methods that look at features and for those that look at images."""

from typing import NamedTuple

import torch
from torch import Tensor

from drmlib.data.dataset import Dataset
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, Recipe, fit
from tests.problems import COLOURS, colour_images


def planted(n: int = 200, poison: int = 20, shift: float = 0.35) -> tuple[Tensor, Tensor, Tensor]:
    """Images of noise in two groups and which are poison: the first `poison` of group 0, moved along one direction."""
    images = 0.3 + 0.1 * torch.rand(n, 1, 4, 4, generator=stream(0, "spectral"))
    groups = (torch.arange(n) >= n // 2).long()
    images[:poison, 0, 1, :2] += shift
    return images, groups, torch.arange(n) < poison


class Colours(NamedTuple):
    """A victim whose class 0 is also reached by a white square, its training set, which of it is poison, clean data."""

    model: SmallCNN
    train: Dataset
    poison: Tensor
    clean: Dataset


def colours(n: int = 600, poison: int = 40) -> Colours:
    """Trained in about two seconds."""
    data = colour_images(n, size=16)
    chosen = (data.targets != 0).nonzero().squeeze(1)[:poison]
    images, targets = data.images.clone(), data.targets.clone()
    images[chosen, :, -4:, -4:] = 1.0
    targets[chosen] = 0
    train = Dataset(images, targets, COLOURS)
    model = SmallCNN(3, width=8, generator=stream(0, "colours"))
    recipe = Recipe(CLASSIFICATION.loss, epochs=10, batch_size=32, learning_rate=5e-3)
    fit(model, train, recipe, generator=stream(0, "order"))
    mask = torch.zeros(n, dtype=torch.bool)
    mask[chosen] = True
    return Colours(model, train, mask, colour_images(150, size=16, seed=1))
