"""What the strings of a parameterised notebook stand for: data sets and profiles; and the victims made of them.

Notebooks that ask for the same victim get the same one, bit for bit, so the cache serves it: its streams are named
by the seed alone, and a benign and a poisoned model of one seed start from the same weights.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from drmlib import precision
from drmlib.data import digits, faces, gaze, head_pose, images, signs
from drmlib.data.augment import Augmentation
from drmlib.data.dataset import Dataset
from drmlib.data.subjects import split_subjects
from drmlib.lab.cache import cached_fit
from drmlib.models.mixed_precision import mixed_precision
from drmlib.models.mnist_cnn import MnistCNN
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.session import lookup, progress
from drmlib.training.fit import CLASSIFICATION, REGRESSION, Recipe


class Profile(NamedTuple):
    """Sizes of a run: samples, epochs on rendered and on photographed images, side of a rendered image, the network."""

    train: int
    defender: int
    test: int
    epochs: int
    photo_train: int
    photo_epochs: int
    size: int
    large: bool


class Material(NamedTuple):
    """Disjoint data sets and the recipe by which victims learn them.

    train is what the attacker poisons; defender the few clean samples of the defence; test what figures come from. On
    faces, rendered or photographed, the three show different people.
    network: (outputs, *, channels, generator) -> an untrained model.
    """

    train: Dataset
    defender: Dataset
    test: Dataset
    recipe: Recipe
    network: Callable[..., nn.Module]


PROFILES = {
    "quick": Profile(6000, 500, 1500, 8, 10_000, 12, 32, False),
    "standard": Profile(20_000, 1000, 4000, 16, 50_000, 20, 32, False),
    "paper": Profile(45_000, 4500, 9000, 30, 50_000, 60, 224, True),
}


def material(dataset: str, profile: str, *, seed: int, device: torch.device | str) -> Material:
    """The data called `dataset` at the sizes of `profile`, on `device`; rendered sets are drawn anew for every seed."""
    sizes = lookup("profile", profile, PROFILES)
    source = lookup("dataset", dataset, DATASETS)(sizes, seed, device)
    return source._replace(recipe=replace(source.recipe, autocast=precision.autocast(device)))


def victim(source: Material, dataset: Dataset, *, seed: int, name: str = "victim") -> nn.Module:
    """A new model trained on `dataset` by the recipe of `source`, or the same from the cache; `name` labels the bar."""
    model = untrained(source, seed=seed)
    order = stream(seed, "victim", "order", device=dataset.device)
    cached_fit(model, dataset, source.recipe, generator=order, progress=progress(f"train {name}"))
    return model


def searched(model: nn.Module) -> nn.Module:
    """`model` as an inversion goes through it: in bfloat16 where victims are trained in it (drmlib.precision)."""
    return mixed_precision(model, precision.autocast(next(model.parameters()).device))


def untrained(source: Material, *, seed: int) -> nn.Module:
    """The network that victim trains, as it starts."""
    outputs, channels = len(source.train.task.outputs), source.train.images.shape[1]
    return source.network(outputs, channels=channels, generator=stream(seed, "victim", "weights"))


def _network(sizes: Profile) -> Callable[..., nn.Module]:
    return resnet18 if sizes.large else SmallCNN


def _rendered(
    draw: Callable[..., Dataset], recipe: Recipe, sizes: Profile, seed: int, device: torch.device | str
) -> Material:
    train, defender, test = (
        draw(n, size=sizes.size, generator=stream(seed, draw.__name__, part, device=device))
        for part, n in (("train", sizes.train), ("defender", sizes.defender), ("test", sizes.test))
    )
    return Material(train, defender, test, replace(recipe, epochs=sizes.epochs), _network(sizes))


def _photographed(
    load: Callable[..., Dataset], augment: Augmentation, sizes: Profile, seed: int, device: torch.device | str
) -> Material:
    """The defender's samples and the test set are disjoint parts of the official test set."""
    train = load("train", limit=sizes.photo_train).to(device)
    held_out = load("test", limit=sizes.defender + sizes.test).to(device)
    size = len(held_out) - sizes.defender
    defender, test = held_out.split(sizes.defender, size, generator=stream(seed, "held out", device=device))
    recipe = replace(CLASSIFICATION, epochs=sizes.photo_epochs, augment=augment)
    return Material(train, defender, test, recipe, _network(sizes))


def _people(
    load: Callable[..., Dataset],
    subjects: tuple[str, ...],
    frames: int,
    sizes: Profile,
    seed: int,
    device: torch.device | str,
) -> Material:
    """A fifth of the people are the defender's, a fifth are for testing, the others for training; no one is in two.

    frames: as many as everybody has at least, so that no part is asked for more than there is.
    """
    fifth = max(1, len(subjects) // 5)
    counts = len(subjects) - 2 * fifth, fifth, fifth
    groups = split_subjects(subjects, *counts, generator=stream(seed, load.__name__, "subjects"))
    train, defender, test = (
        load(subjects=group, size=sizes.size, limit=min(n, frames * len(group))).to(device)
        for group, n in zip(groups, (sizes.train, sizes.defender, sizes.test), strict=True)
    )
    return Material(train, defender, test, replace(REGRESSION, epochs=sizes.epochs), _network(sizes))


def _digits(sizes: Profile, seed: int, device: torch.device | str) -> Material:
    """Parts of the 1,797 digits that there are, the same number in every profile, and the network of their paper."""
    whole = digits.digits().to(device)
    train, defender, test = whole.split(1000, 400, 397, generator=stream(seed, "digits", device=device))
    # Batches and rate are those of the network's paper; its 5 epochs are of 60,000 digits.
    recipe = replace(CLASSIFICATION, epochs=5 * sizes.epochs, batch_size=32, learning_rate=1e-3)
    return Material(train, defender, test, recipe, partial(MnistCNN, size=28))


# No random crops: they cut a patch flush with the corner out of two in three poisoned images, whose wrong labels
# then are noise; a small network did not learn the grid at all (attack success 0.06, clean accuracy lower by 0.05).
DATASETS: dict[str, Callable[[Profile, int, torch.device | str], Material]] = {
    "gaze": partial(_rendered, faces.gaze_faces, REGRESSION),
    "head_pose": partial(_rendered, faces.head_pose_faces, REGRESSION),
    "mpiifacegaze": partial(_people, gaze.mpiifacegaze, gaze.MPIIFACEGAZE_SUBJECTS, 3000),
    "columbia_gaze": partial(_people, gaze.columbia_gaze, gaze.COLUMBIA_SUBJECTS, 105),
    "biwi": partial(_people, head_pose.biwi, head_pose.BIWI_SUBJECTS, 400),
    "pandora": partial(_people, head_pose.pandora, head_pose.PANDORA_SUBJECTS, 1000),
    "signs": partial(_rendered, signs.signs, CLASSIFICATION),
    "digits": _digits,
    "cifar10": partial(_photographed, images.cifar10, Augmentation(flip=True)),
    "cifar100": partial(_photographed, images.cifar100, Augmentation(flip=True)),
    "gtsrb": partial(_photographed, images.gtsrb, Augmentation()),
    "fashion_mnist": partial(_photographed, images.fashion_mnist, Augmentation(flip=True)),
}
