"""Runs the same computation on two devices so that only rounding can differ, and measures by how much it does.

A CUDA generator and a CPU generator of the same seed draw different numbers. Inside `SameDraws` every draw is made on
the CPU and carried over, so that a kernel that draws can be compared across devices.

Where there is no graphics card, `OtherRounding` stands for one: convolutions and matrix products come out with a
relative error of a few float32 roundings, as they do when another device adds in another order. A tolerance that holds
under it is no accident of bit-equal arithmetic. `PlacesAreSaid` finds what only a card would show: a tensor that is
made without a device.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode

import drmlib

METHODS = tuple(
    os.path.join(os.path.dirname(drmlib.__file__), folder)
    for folder in ("metrics.py", "attacks", "training", "detection", "inversion", "mitigation")
)
# What puts its tensor on the CPU unless told.
FACTORIES = "arange empty eye full linspace logspace ones rand randint randn randperm tensor zeros".split()
ROUNDED = "conv2d linear matmul __matmul__ mm bmm baddbmm einsum grid_sample sin cos exp sigmoid softmax log_softmax"
ROUNDING = 3e-7  # relative; float32's unit is 1.2e-7, and a sum of hundreds of products loses two or three of them


class SameDraws(TorchFunctionMode):
    """Inside, a generator on any device draws what a CPU generator of its seed draws."""

    def __init__(self) -> None:
        super().__init__()
        self.twins: dict[int, tuple[Generator, Generator]] = {}  # the first of the pair keeps the identity from reuse

    def elsewhere(self, generator: Generator) -> bool:
        """Whether a generator draws on another device, and so other numbers."""
        return generator.device.type != "cpu"

    def twin(self, generator: Generator) -> Generator:
        """The CPU generator that draws in the place of `generator`."""
        if id(generator) not in self.twins:
            self.twins[id(generator)] = generator, Generator().manual_seed(generator.initial_seed())
        return self.twins[id(generator)][1]

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        given = dict(kwargs or {})
        generator = given.get("generator")
        if generator is None or not self.elsewhere(generator):
            return func(*args, **given)
        given["generator"] = self.twin(generator)
        if args and isinstance(
            args[0], Tensor
        ):  # tensor.uniform_(...), torch.bernoulli(p, ...), torch.multinomial(p, ..)
            drawn = func(args[0].cpu(), *args[1:], **given)
            return args[0].copy_(drawn) if func.__name__.endswith("_") else drawn.to(args[0].device)
        return func(*args, **{**given, "device": "cpu"}).to(generator.device)


class OtherRounding(TorchFunctionMode):
    """Inside, convolutions, matrix products and the like carry a relative error of at most ROUNDING.

    The error hangs on the value, so that nothing is drawn: vmap would refuse that.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ROUNDED.split() and out.dtype == torch.float32:
            return out * (1 + ROUNDING * torch.sin(1e5 * out.detach()))
        return out


class PlacesAreSaid(TorchFunctionMode):
    """Inside, a tensor that a line of drmlib makes from nothing without `device=` lands on meta, where nothing can be
    computed with it: an error on a CPU where there would be one on a card.

    Left alone are single numbers, which torch takes from the CPU everywhere, models, which are moved as a whole, and
    data, where tables of plain numbers are made.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in FACTORIES and "device" not in (kwargs or {}) and made.ndim:
            file = sys._getframe(1).f_code.co_filename
            if file.startswith(METHODS):
                return made.to("meta")
        return made


@contextmanager
def exact() -> Iterator[None]:
    """Without TF32, with which convolutions on CUDA keep 10 bits of each factor: the comparison is of float32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def apart(result: Tensor, reference: Tensor, *, share: float = 0.0) -> float:
    """The largest difference to `reference`, in units of its largest magnitude; the `share` of largest are left out.

    Infinite if shape, dtype or the places of nan differ.
    """
    ours, theirs = result.detach().cpu(), reference.detach().cpu()
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return float("inf")
    ours, theirs = ours.double().flatten(), theirs.double().flatten()
    if not torch.equal(ours.isnan(), theirs.isnan()):
        return float("inf")
    difference = (ours - theirs).nan_to_num().abs().sort().values
    kept = difference[: len(difference) - int(share * len(difference))]
    scale = theirs.nan_to_num().abs().max().clamp_min(1e-12)
    return (kept[-1] / scale).item()
