"""What a network's convolutions see: its blocks, and what they answer while it runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


def conv_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks with a convolution, in order, of the outermost module that has three or more: conv1 to conv4 of a
    SmallCNN, stem and stages of a ResNet. Raises ValueError if there are none.
    """
    for module in model.modules():
        blocks = [block for block in module.children() if any(isinstance(m, nn.Conv2d) for m in block.modules())]
        if len(blocks) >= 3:
            return blocks
    raise ValueError("expected a model with three blocks of convolutions in a row, found none; name them with layers=")


@contextmanager
def recorded(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """A list that holds, after each forward pass inside, what each of `layers` answered in it, in their order."""
    answers: list[Tensor] = [Tensor()] * len(layers)

    def record(place: int):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            answers[place] = output

        return hook

    handles = [layer.register_forward_hook(record(place)) for place, layer in enumerate(layers)]
    try:
        yield answers
    finally:
        for handle in handles:
            handle.remove()
