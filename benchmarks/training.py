"""A training step of fit() against forward, backward and step on a batch that is already there."""

import torch

from benchmarks.timing import Row, compare
from drmlib.data.faces import gaze_faces
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import REGRESSION, adamw, training_step


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
        )
    ]
