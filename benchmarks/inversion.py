"""Neural Cleanse on all classes at once against one after another, MESA's generators likewise; DRMGuard against
training the model it inspects.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.timing import Row, compare
from drmlib.data.dataset import as_float
from drmlib.data.faces import gaze_faces
from drmlib.data.signs import signs
from drmlib.inversion.adaptive_cost import AdaptiveCost, Standstill
from drmlib.inversion.drmguard import drmguard
from drmlib.inversion.mesa import LEVELS, class_success, trigger_distribution
from drmlib.inversion.neural_cleanse import neural_cleanse
from drmlib.models.predict import frozen
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, REGRESSION, adamw, fit, training_step


def run(steps: int = 30, classes: int = 16) -> list[Row]:
    """`steps` steps of each search, enough that what is done once weighs little.

    DRMGuard's default has 90 + 60 steps, the quick profile's training 750.
    """
    data = gaze_faces(600, generator=stream(0, "faces"))
    classifier = SmallCNN(classes, generator=stream(0, "weights")).to(memory_format=torch.channels_last)
    few = data.images[:16]  # what neural_cleanse measures on all images at its end should not count here
    rows = [
        compare(
            f"Neural Cleanse, {classes} classes at once, against one after another",
            lambda: neural_cleanse(classifier, few, classes, steps=steps, generator=stream(0, "search")),
            lambda: [one_class(classifier, few, k, steps) for k in range(classes)],
            repeats=3,
        )
    ]
    model = SmallCNN(2, generator=stream(0, "weights")).to(memory_format=torch.channels_last)
    optimizer, g = adamw(model, REGRESSION), stream(0, "order")
    index = torch.arange(64)

    def inversion() -> None:
        drmguard(model, data.images, explore_steps=steps, steps=max(1, steps * 2 // 3), generator=g)

    def training() -> None:  # 6,000 images, 8 epochs, batches of 64: 750 steps beside explore_steps = 90
        for _ in range(round(steps * 750 / 90)):
            training_step(model.train(), optimizer, data, index, REGRESSION, generator=g)

    return [
        *rows,
        *generators(steps, classes),
        compare("DRMGuard, against training the model, in proportion", inversion, training, repeats=3, target="< 0.6"),
    ]


def generators(steps: int, classes: int) -> list[Row]:
    """MESA's two steps: a generator for every class, a sub-model for every level; sizes of the quick profile."""
    data = signs(600, generator=stream(0, "signs"))
    classifier = SmallCNN(len(data.task.outputs), generator=stream(0, "weights"))
    fit(classifier, data, replace(CLASSIFICATION, epochs=2, batch_size=16), generator=stream(0, "order"))
    images = data.images[:64]
    sizes = {"steps": steps, "batch_size": 32, "noise": 32, "width": 128}

    def search(label: int, levels: tuple[float, ...]) -> None:
        trigger_distribution(classifier, images, label, levels=levels, generator=stream(0, "search"), **sizes)

    return [
        compare(
            f"MESA, generators of {classes} classes at once, against one after another",
            lambda: class_success(classifier, images, classes, generator=stream(0, "search"), **sizes),
            lambda: [search(k, LEVELS[:1]) for k in range(classes)],
            repeats=3,
        ),
        compare(
            f"MESA, {len(LEVELS)} sub-models at once, against one after another",
            lambda: search(0, LEVELS),
            lambda: [search(0, (level,)) for level in LEVELS],
            repeats=3,
        ),
    ]


def one_class(model: nn.Module, images: Tensor, target: int, steps: int, batch_size: int = 16) -> Tensor:
    """The same search for one class as one would write it alone: mask and pattern as two parameters, and the same looks
    (cost, smallest mask so far, early stop) on plain numbers."""
    device = images.device
    g = stream(target, "one class", device=device)
    mask, pattern = (
        torch.randn(c, *images.shape[2:], generator=g, device=device).requires_grad_() for c in (1, images.shape[1])
    )
    optimizer = torch.optim.Adam([mask, pattern], lr=0.1, betas=(0.5, 0.9))
    wanted = torch.full((batch_size,), target, device=device)
    cost = AdaptiveCost(1, initial=1e-3, factor=1.5, patience=5, device=device)
    still = Standstill(1, factor=0.99, device=device)
    best, hits = (torch.inf, mask.detach().sigmoid()), []
    with frozen(model):
        for step in range(steps):
            batch = as_float(images[torch.randint(len(images), (batch_size,), generator=g, device=device)])
            outputs = model(torch.lerp(batch, pattern.sigmoid(), mask.sigmoid()))
            loss = nn.functional.cross_entropy(outputs, wanted) + cost.cost[0] * mask.sigmoid().sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            hits.append((outputs.detach().argmax(1) == wanted).float().mean())
            if (step + 1) % 5 == 0:
                works, norm = torch.stack(hits).mean() >= 0.99, mask.detach().sigmoid().sum()
                hits.clear()
                if works and norm < best[0]:
                    best = (norm, mask.detach().sigmoid())
                cost.look(works[None])
                still.look(torch.as_tensor(best[0], device=device)[None])
                if cost.settled and still.looks >= 25:
                    break
    return best[1]
