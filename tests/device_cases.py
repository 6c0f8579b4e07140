"""Kernels of every folder, each as a function of a device: tests/test_devices.py runs them on two and compares.

Models and data are made on the CPU and moved. Sizes are those of a test, the same on every device: what differs between
devices at other sizes is speed, which `python -m benchmarks.accelerator` measures.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from benchmarks.poisoning import triggers
from drmlib.attacks.badnets import square
from drmlib.attacks.poison import Trigger, poison
from drmlib.attacks.targets import AllToOne
from drmlib.data.augment import Augmentation
from drmlib.data.dataset import Dataset, Task
from drmlib.detection.abl_isolation import abl_isolation
from drmlib.detection.activation_clustering import activation_clustering
from drmlib.detection.agpd import agpd
from drmlib.detection.beatrix import beatrix
from drmlib.detection.cognitive_distillation import cognitive_distillation
from drmlib.detection.frequency import frequency, learn
from drmlib.detection.ibd_psc import ibd_psc
from drmlib.detection.kernel_density import kernel_density
from drmlib.detection.lid import lid
from drmlib.detection.scale_up import scale_up
from drmlib.detection.scan import scan
from drmlib.detection.spectral_signatures import spectral_signatures
from drmlib.detection.spectre import spectre
from drmlib.detection.strip import strip
from drmlib.detection.teco import teco
from drmlib.inversion.drmguard import drmguard
from drmlib.inversion.mesa import mesa
from drmlib.inversion.neural_cleanse import neural_cleanse
from drmlib.mitigation.anp import anp
from drmlib.mitigation.clp import clp
from drmlib.mitigation.fine_pruning import fine_pruning
from drmlib.mitigation.fine_tune import fine_tune
from drmlib.mitigation.ft_sam import ft_sam
from drmlib.mitigation.i_bau import i_bau
from drmlib.mitigation.nad import nad
from drmlib.mitigation.unlearn import unlearn
from drmlib.models.predict import features, predict
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, NESTEROV, REGRESSION, fit
from drmlib.training.population import fit_population
from tests.problems import colour_images, slope_images

PATCH = square((1.0, 1.0, 1.0), side=2, height=16, width=16)
# Steps proportional to the gradient, because Adam's first ones are its sign, which rounding decides where it is near 0.
RECIPE = replace(CLASSIFICATION, epochs=2, batch_size=12, learning_rate=0.01, optimizer=NESTEROV)
SPREAD = "sums of a few hundred float32 products, added in another order"
STEPS = "rounding of a few float32 steps, each carried into the next"
CHOICE = "float32 rounding, and where two values nearly tie another one is chosen: a share of the values is left out"


class Case(NamedTuple):
    """One kernel: run on a device; the largest difference allowed, as a share of the largest value, and why.

    share: part of the values that may differ more, where a rounding decides between two answers.
    """

    name: str
    run: Callable[[torch.device], Tensor]
    tolerance: float
    why: str
    share: float = 0.0


def cases() -> list[Case]:
    """All of them, in the order of the folders."""
    return [*attacks(), *training(), *detection(), *inversion(), *mitigation()]


def attacks() -> list[Case]:
    """Every closed-form trigger on bytes and on floats, and poison()."""
    level = "a level of a byte, where rounding decides"
    names = list(_triggers())
    on_bytes = [Case(f"trigger {name}, bytes", partial(_trigger, name), 1.01 / 255, level, 0.001) for name in names]
    on_floats = [
        Case(f"trigger {name}, floats", partial(_trigger, name, floats=True), 1e-4, "float32 waves and warps", 0.001)
        for name in names
        if name != "Bpp, covers"  # partners are chosen by bytes
    ]
    return [*on_bytes, *on_floats, Case("poison", _poison, 0.0, "bytes are copied")]


def training() -> list[Case]:
    """fit on labels and on vectors, mixed precision, a population, predict and features."""
    bits = "bfloat16 has eight bits, and sums are rounded to them in another order"
    return [
        Case("predict", lambda d: predict(_victim(d), _colours(d).images), 1e-5, SPREAD),
        Case("features", lambda d: features(_victim(d), _colours(d).images), 1e-5, SPREAD),
        Case("features, ResNet-18", _resnet_features, 1e-4, SPREAD),
        Case("fit, labels", _fit, 1e-3, STEPS),
        Case("fit, augmented", partial(_fit, augment=Augmentation(flip=True, padding=2)), 1e-3, STEPS),
        Case("fit, AdamW", partial(_fit, optimizer=CLASSIFICATION.optimizer, learning_rate=1e-3), 1e-2, STEPS),
        Case("fit, bfloat16", partial(_fit, autocast=torch.bfloat16), 0.1, bits),
        Case("fit, vectors", lambda d: predict(_regressor(d), _slopes(d).images), 1e-3, STEPS),
        Case("fit_population", _population, 1e-3, STEPS),
    ]


def detection() -> list[Case]:
    """Detectors of every kind: by entropy, by features, by groups, by gradients, by corruption, by retraining.

    Not SentiNet: its score is the distance to a curve through a few samples, which one changed answer bends.
    """
    scored: dict[str, Callable[[nn.Module, Dataset, Dataset, Generator], Tensor]] = {
        "STRIP": lambda m, s, c, g: strip(m, s.images, c.images, count=20, generator=g),
        "spectral signatures": lambda m, s, c, g: spectral_signatures(m, s.images, s.targets),
        "activation clustering": lambda m, s, c, g: activation_clustering(m, s.images, s.targets, generator=g),
        "Beatrix": lambda m, s, c, g: beatrix(m, s.images, c.images),
        "SCAn": lambda m, s, c, g: scan(m, s.images, s.targets, c.images, c.targets, steps=20, generator=g),
        "SPECTRE": lambda m, s, c, g: spectre(m, s.images, s.targets, oracle_poison_count=6),
        "AGPD": lambda m, s, c, g: agpd(m, s.images, s.targets, c.images, c.targets),
        "kernel density": lambda m, s, c, g: kernel_density(m, s.images, c, bandwidth=1.0),
        "LID": lambda m, s, c, g: lid(m, s.images, c.images, neighbours=5, reference_size=30, generator=g),
        "SCALE-UP": lambda m, s, c, g: scale_up(m, s.images),
        "IBD-PSC": lambda m, s, c, g: ibd_psc(m, s.images, c, scale=6.0, error=0.3),
        "TeCo": lambda m, s, c, g: teco(m, s.images[:24], generator=g),
        "cognitive distillation": lambda m, s, c, g: cognitive_distillation(m, s.images, steps=10, generator=g),
        "ABL isolation": lambda m, s, c, g: abl_isolation(m, s.images, s.targets, RECIPE, generator=g),
        "frequency": lambda m, s, c, g: frequency(learn(c.images, width=4, steps=3, generator=g), s.images),
    }
    # Its network learns for three of Adam's steps, whose direction rounding decides where a gradient is near 0.
    # SPECTRE whitens by the inverse root of a covariance, which makes much of rounding along its weak directions.
    tolerances = {"frequency": 5e-2, "SPECTRE": 0.3}
    chosen = {"activation clustering", "SCALE-UP", "IBD-PSC", "TeCo"}
    return [
        Case(
            name,
            partial(_scored, f),
            tolerances.get(name, 1e-3),
            CHOICE if name in chosen else STEPS,
            0.1 if name in chosen else 0.0,
        )
        for name, f in scored.items()
    ]


def inversion() -> list[Case]:
    """A few steps of each search; Adam moves every element by about its rate, whatever the size of its gradient."""
    signs = "a few of Adam's steps, whose direction rounding decides where a gradient is near 0"
    return [
        Case("Neural Cleanse", _neural_cleanse, 1e-2, signs, 0.01),
        Case("MESA", _mesa, 1e-2, signs, 0.01),
        Case("DRMGuard, prices", _drmguard, 1e-2, signs),
    ]


def mitigation() -> list[Case]:
    """Repairs, as what the repaired model answers."""
    few = replace(RECIPE, epochs=1)
    repairs: dict[str, Callable[[nn.Module, Dataset, Generator], nn.Module]] = {
        "fine-tuning": lambda m, c, g: fine_tune(m, c, few, generator=g),
        "fine-pruning": lambda m, c, g: fine_pruning(m, c, few, generator=g),
        "CLP": lambda m, c, g: clp(m),
        "ANP": lambda m, c, g: anp(m, c, few, iterations=4, batch_size=12, generator=g),
        "FT-SAM": lambda m, c, g: ft_sam(m, c, few, generator=g),
        "NAD": lambda m, c, g: nad(m, c, few, teacher_epochs=1, betas=(1.0, 1.0, 1.0), generator=g),
        "I-BAU": lambda m, c, g: i_bau(m, c, few, rounds=1, batch_size=12, generator=g),
        "unlearning": lambda m, c, g: unlearn(m, c, PATCH, few, generator=g),
    }
    return [Case(name, partial(_repaired, f), 1e-2, STEPS) for name, f in repairs.items()]


def _bytes(device: torch.device) -> Tensor:
    return torch.randint(256, (20, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "bytes")).to(device)


@cache
def _triggers() -> dict[str, Trigger]:
    """Made on the CPU, as notebooks make them: a trigger follows the images that it is given."""
    return {name: trigger for name, (trigger, _) in triggers(_bytes(torch.device("cpu"))).items()}


def _trigger(name: str, device: torch.device, *, floats: bool = False) -> Tensor:
    images = _bytes(device)
    return _triggers()[name](images / 255 if floats else images)


def _poison(device: torch.device) -> Tensor:
    data = Dataset(_bytes(device), torch.arange(20, device=device) % 2, Task("two", ("a", "b")))
    found = poison(
        data,
        _triggers()["BadNets"],
        AllToOne(1),
        rate=0.25,
        cover_rate=0.25,
        generator=stream(0, "poison", device=device),
    )
    return torch.cat([found.dataset.images.flatten(1), found.dataset.targets[:, None].byte()], 1)


def _colours(device: torch.device) -> Dataset:
    return colour_images(48, size=16, seed=2).to(device)


def _slopes(device: torch.device) -> Dataset:
    return slope_images(48).to(device)


def _suspects(device: torch.device) -> Dataset:
    return poison(colour_images(60, size=16, seed=1), PATCH, AllToOne(0), rate=0.1, generator=stream(0)).dataset.to(
        device
    )


@cache
def _trained() -> nn.Module:
    model, data = SmallCNN(4, width=4, generator=stream(0, "weights")), colour_images(120, size=16)
    backdoored = poison(data, PATCH, AllToOne(0), rate=0.2, generator=stream(0, "poison")).dataset
    fit(model, backdoored, replace(CLASSIFICATION, epochs=6, batch_size=20), generator=stream(0, "fit"))
    return model


def _victim(device: torch.device) -> nn.Module:
    """The same small backdoored model on every device."""
    return copy.deepcopy(_trained()).to(device)


def _regressor(device: torch.device) -> nn.Module:
    model, recipe = SmallCNN(2, width=4, generator=stream(0, "weights")), replace(REGRESSION, epochs=2, batch_size=12)
    recipe = replace(recipe, optimizer=NESTEROV, learning_rate=0.01)
    fit(model, _slopes(device), recipe, generator=stream(0, "fit", device=device))
    return model


def _resnet_features(device: torch.device) -> Tensor:
    model = resnet18(4, width=4, generator=stream(0, "weights")).to(device)
    return features(model, _colours(device).images)


def _fit(device: torch.device, **changes: object) -> Tensor:
    model, data = SmallCNN(4, width=4, generator=stream(0, "weights")), _colours(device)
    fit(model, data, replace(RECIPE, **changes), generator=stream(0, "fit", device=device))
    return predict(model, data.images)


def _population(device: torch.device) -> Tensor:
    models, data = [SmallCNN(4, width=4, generator=stream(k, "weights")) for k in range(3)], _colours(device)
    fit_population(models, [data] * 3, RECIPE, generator=stream(0, "fit", device=device))
    return torch.stack([predict(model, data.images) for model in models])


def _scored(score: Callable[[nn.Module, Dataset, Dataset, Generator], Tensor], device: torch.device) -> Tensor:
    return score(_victim(device), _suspects(device), _colours(device), stream(0, "detector", device=device))


def _neural_cleanse(device: torch.device) -> Tensor:
    g = stream(0, "search", device=device)
    return neural_cleanse(_victim(device), _colours(device).images, 4, steps=6, look_every=2, generator=g).masks


def _mesa(device: torch.device) -> Tensor:
    settings = {"steps": 4, "batch_size": 8, "noise": 4, "width": 16}
    images = _colours(device).images
    found = mesa(_victim(device), images, 4, generator=stream(0, "search", device=device), **settings)
    return torch.cat([found.staircase.history.flatten(), found.staircase.reached])


def _drmguard(device: torch.device) -> Tensor:
    g = stream(0, "search", device=device)
    found = drmguard(
        _regressor(device),
        _slopes(device).images,
        explore_steps=2,
        steps=2,
        batch_size=24,
        every_family=True,
        generator=g,
    )
    return torch.cat([found.prices.flatten(), found.predicted_target])


def _repaired(repair: Callable[[nn.Module, Dataset, Generator], nn.Module], device: torch.device) -> Tensor:
    clean = _colours(device)
    model = repair(_victim(device), clean, stream(0, "repair", device=device))
    return predict(model, clean.images)
