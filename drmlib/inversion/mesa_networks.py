"""MESA's generators and statistics networks (Qiao, Yang, Li 2019, https://arxiv.org/abs/1910.04749), many side by side.

Sub-models of one kind are slices of stacked parameters: one batched product does a layer of all of them, and an
optimiser that works element by element moves each as it would move alone. Layers are those of the authors' code: the
noise enters a generator in four parts, a part before every layer, and the statistics network's output passes a leaky
ReLU too.
"""

import math
from functools import partial

import torch
from torch import Generator, Tensor, nn

PARTS = 4
SLOPE = 0.2


class StackedLinear(nn.Module):
    """`count` linear layers: x (count, b, inputs) to (count, b, outputs); torch's own initial law."""

    def __init__(self, count: int, inputs: int, outputs: int, *, bias: bool = True, generator: Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        draw = partial(torch.rand, generator=generator, device=generator.device)
        self.weight = nn.Parameter(bound * (2 * draw(count, inputs, outputs) - 1))
        self.bias = nn.Parameter(bound * (2 * draw(count, 1, outputs) - 1)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight if self.bias is None else torch.baddbmm(self.bias, x, self.weight)


class StackedNorm(nn.Module):
    """Batch norm of each feature of each of `count` sub-models."""

    def __init__(self, count: int, features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(count * features)

    def forward(self, x: Tensor) -> Tensor:
        count, b, features = x.shape
        flat = x.transpose(0, 1).reshape(b, count * features)
        return self.norm(flat).view(b, count, features).transpose(0, 1)


class Generators(nn.Module):
    """`count` generators: noise (count, b, noise) to points (count, b, outputs) in (0, 1)."""

    def __init__(self, count: int, outputs: int, *, noise: int = 64, width: int = 512, generator: Generator) -> None:
        super().__init__()
        if noise % PARTS:
            raise ValueError(f"expected a noise dimension that {PARTS} divides, got {noise}")
        self.noise, part = noise, noise // PARTS
        sizes = [(part, width), (width + part, width), (width + part, width), (width + part, outputs)]
        self.layers = nn.ModuleList(StackedLinear(count, i, o, generator=generator) for i, o in sizes)
        self.norms = nn.ModuleList(StackedNorm(count, width) for _ in sizes[1:]).to(generator.device)

    def forward(self, noise: Tensor) -> Tensor:
        first, *others = noise.chunk(PARTS, 2)
        x = self.layers[0](first)
        for norm, layer, part in zip(self.norms, self.layers[1:], others, strict=True):
            x = layer(torch.cat([nn.functional.leaky_relu(norm(x), SLOPE), part], 2))
        return x.sigmoid()


class Statistics(nn.Module):
    """`count` networks T: noise (count, b, noise) and points (count, b, inputs) to (count, b)."""

    def __init__(self, count: int, inputs: int, *, noise: int = 64, width: int = 512, generator: Generator) -> None:
        super().__init__()
        self.of_noise = StackedLinear(count, noise, width, generator=generator)
        self.of_point = StackedLinear(count, inputs, width, bias=False, generator=generator)
        self.hidden = StackedLinear(count, width, width, generator=generator)
        self.out = StackedLinear(count, width, 1, generator=generator)

    def forward(self, noise: Tensor, points: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.of_noise(noise) + self.of_point(points), SLOPE)
        x = nn.functional.leaky_relu(self.hidden(x), SLOPE)
        return nn.functional.leaky_relu(self.out(x), SLOPE).squeeze(2)
