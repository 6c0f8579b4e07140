"""Triggers and inversions on a device: images a second, all classes side by side and one after another."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from benchmarks.accelerator.measure import Measure
from benchmarks.accelerator.sizes import Sizes, random_images
from benchmarks.inversion import one_class
from benchmarks.poisoning import triggers
from drmlib.attacks.poison import Trigger
from drmlib.data.dataset import Dataset
from drmlib.data.faces import gaze_faces
from drmlib.data.signs import signs
from drmlib.inversion.drmguard import drmguard
from drmlib.inversion.mesa import LEVELS, class_success, trigger_distribution
from drmlib.inversion.neural_cleanse import neural_cleanse
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, fit

Function = Callable[[], object]
BATCH = 16  # images that Neural Cleanse stamps in a step, for every class


def stamped(sizes: Sizes, device: torch.device) -> list[Measure]:
    """Every closed-form trigger on bytes that are on the device."""
    made = triggers(random_images(min(500, max(20, sizes.images)), torch.device("cpu")).images)  # a few want 16 images
    return [
        Measure(name, partial(_trigger, trigger, sizes, device), sizes.images) for name, (trigger, _) in made.items()
    ]


def inversions(sizes: Sizes, device: torch.device) -> list[Measure]:
    """Neural Cleanse and MESA over all classes, both ways, and one run of DRMGuard."""
    cleanse, n = f"Neural Cleanse, {sizes.classes} classes", sizes.classes * sizes.search
    mesa, batch = f"MESA, {sizes.classes} classes", _mesa_settings(sizes)["batch_size"]
    return [
        Measure(f"{cleanse} side by side", partial(_cleanse, sizes, device), n * BATCH),
        Measure(f"{cleanse} one after another", partial(_cleanse_in_turn, sizes, device), n * BATCH),
        Measure(f"{mesa} side by side", partial(_mesa, sizes, device), n * batch),
        Measure(f"{mesa} one after another", partial(_mesa_in_turn, sizes, device), n * batch),
        Measure(f"DRMGuard, {sizes.search} + {sizes.search} steps", partial(_drmguard, sizes, device), 1, "s"),
    ]


def _trigger(trigger: Trigger, sizes: Sizes, device: torch.device) -> Function:
    images = random_images(sizes.images, device).images
    return lambda: trigger(images)


def _cleanse(sizes: Sizes, device: torch.device) -> Function:
    model, few = _classifier(sizes, device), random_images(BATCH, device).images
    g = stream(0, "search", device=device)
    return lambda: neural_cleanse(model, few, sizes.classes, steps=sizes.search, batch_size=BATCH, generator=g)


def _cleanse_in_turn(sizes: Sizes, device: torch.device) -> Function:
    model, few = _classifier(sizes, device), random_images(BATCH, device).images
    return lambda: [one_class(model, few, k, sizes.search, BATCH) for k in range(sizes.classes)]


def _mesa(sizes: Sizes, device: torch.device) -> Function:
    """On signs and a model that has seen them: one that calls all images the same leaves MESA nothing to compare."""
    (model, data), settings = _taught(sizes, device), _mesa_settings(sizes)
    images, g = data.images[:64], stream(0, "search", device=device)
    return lambda: class_success(model, images, sizes.classes, generator=g, **settings)


def _mesa_in_turn(sizes: Sizes, device: torch.device) -> Function:
    (model, data), settings = _taught(sizes, device), _mesa_settings(sizes)
    images, g = data.images[:64], stream(0, "search", device=device)
    return lambda: [
        trigger_distribution(model, images, k, levels=LEVELS[:1], generator=g, **settings) for k in range(sizes.classes)
    ]


def _mesa_settings(sizes: Sizes) -> dict[str, int]:
    """Those of the quick profile; the trial's smaller."""
    return {"steps": sizes.search, "batch_size": 2 * sizes.width, "noise": 2 * sizes.width, "width": 8 * sizes.width}


def _drmguard(sizes: Sizes, device: torch.device) -> Function:
    faces = gaze_faces(128, generator=stream(0, "faces", device=device))
    model = SmallCNN(2, width=sizes.width, generator=stream(0, "weights")).to(device).eval()
    g = stream(0, "search", device=device)
    return lambda: drmguard(model, faces.images, explore_steps=sizes.search, steps=sizes.search, generator=g)


def _classifier(sizes: Sizes, device: torch.device) -> nn.Module:
    model = SmallCNN(sizes.classes, width=sizes.width, generator=stream(0, "weights")).to(device).eval()
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _taught(sizes: Sizes, device: torch.device) -> tuple[nn.Module, Dataset]:
    data = signs(600 if sizes.search > 1 else 96, generator=stream(0, "signs", device=device))
    model = SmallCNN(len(data.task.outputs), width=sizes.width, generator=stream(0, "weights"))
    recipe = replace(CLASSIFICATION, epochs=2, batch_size=16)
    fit(model, data, recipe, generator=stream(0, "order", device=device))
    return model, data
