"""A training step of fit() against forward, backward and step on a batch that is already there; Anti-Backdoor Learning
against plain training of as many epochs, and its losses of single samples against batches of one."""

from dataclasses import replace

import torch
from torch.nn import functional as F

from benchmarks.timing import Row, compare
from drmlib.data.faces import gaze_faces
from drmlib.data.signs import signs
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.abl import SMALL_POLICY, abl, small_recipes
from drmlib.training.fit import CLASSIFICATION, REGRESSION, adamw, fit, training_step
from drmlib.training.isolation import sample_losses


def run(n: int = 1000, batch_size: int = 64) -> list[Row]:
    """The data path (indexing, uint8 to float, channels last) should cost under 5 %."""
    data = gaze_faces(n, generator=stream(0, "faces"))
    model = SmallCNN(2, generator=stream(0, "weights")).to(memory_format=torch.channels_last)
    optimizer, g = adamw(model, REGRESSION), stream(0, "order")
    index = torch.randperm(n, generator=g)[:batch_size]
    batch = data.images[index].float().div(255).contiguous(memory_format=torch.channels_last)
    targets = data.targets[index]

    def resident() -> None:
        loss = REGRESSION.loss(model(batch), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def ours() -> None:
        training_step(model, optimizer, data, index, REGRESSION, generator=g)

    return [
        compare(
            f"training step, batch of {batch_size}, against a resident batch",
            ours,
            resident,
            repeats=41,
            target="< 1.05",
        ),
        *_abl(6 * n),
    ]


def _abl(n: int, epochs: int = 8) -> list[Row]:
    """All of ABL, by its small recipes, beside `epochs` of plain training; 6,000 samples are the quick profile's."""
    data, recipe = signs(n, generator=stream(0, "signs")), replace(CLASSIFICATION, epochs=epochs)

    def fresh() -> SmallCNN:
        return SmallCNN(len(data.task.outputs), generator=stream(0, "weights"))

    def defended() -> None:
        g = stream(0, "order")
        share = max(0.01, 1.5 / n)
        abl(fresh(), data, small_recipes(recipe), share=share, one_target=True, policy=SMALL_POLICY, generator=g)

    def plain() -> None:
        fit(fresh(), data, recipe, generator=stream(0, "order"))

    model, few = fresh().eval(), data[:200]

    def batched() -> None:
        sample_losses(model, few, F.cross_entropy)

    def one_by_one() -> None:
        sample_losses(model, few, F.cross_entropy, batch_size=1)

    return [
        compare(f"ABL, {epochs} epochs, against plain training of as many", defended, plain, repeats=1, target="< 1.1"),
        compare(f"loss of each of {len(few)} samples, against batches of one", batched, one_by_one, repeats=3),
    ]
