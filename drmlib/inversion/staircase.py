"""The max-entropy staircase approximator of Qiao, Yang, Li (2019), https://arxiv.org/abs/1910.04749: a distribution
that is known only by a testing function, learned without a sample of it.

F(x) in [0, 1] says how valid x is. Sub-model i is the law of largest entropy on {F >= beta_i}; a mixture of them is a
staircase below the density. A generator G and a statistics network T minimise

    L_i = E_z max(0, beta_i - F(G_i(z))) - alpha I_i,    I_i = E T(z, x) - log E exp T(z', x),   x = G_i(z)

where z' is independent of x: mutual information stands for entropy (Belghazi et al. 2018, MINE), with the moving
average that corrects its gradient. All sub-models train side by side. Weights of the mixture, from the volume e^entropy
and the height of a step, with F as the density itself: gamma_i ~ (beta_i - beta_(i-1)) exp(I_i). The authors' code uses
none.

Departs from the code where `jitter_statistics` is set, the default: T sees the point with noise, as F does. A point
that is a function of z has infinite information about it; noise makes it finite, and an estimate of entropy.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from drmlib.inversion.mesa_networks import Generators, Statistics

Testing = Callable[[Tensor], Tensor]
Draw = tuple[Tensor, Tensor, Tensor, Tensor]  # own noise, other noise, points as F sees them, points as T sees them
Progress = Callable[[Iterable[int]], Iterable[int]]
MOVING = 0.001  # share of the new batch in the moving average


class Staircase(NamedTuple):
    """generators: of all sub-models, in eval mode; level (s,): the beta of each; reached (s,): mean F of its points;
    entropy (s,): its I, in nats; weight (s,): gamma, which sum to 1; history (steps, s): F during training."""

    generators: Generators
    level: Tensor
    reached: Tensor
    entropy: Tensor
    weight: Tensor
    history: Tensor


def staircase(
    testing: Testing,
    dimensions: int,
    level: Tensor,
    *,
    alpha: float = 0.1,
    steps: int = 620,
    batch_size: int = 128,
    noise: int = 64,
    width: int = 512,
    learning_rate: float = 2e-4,
    jitter: float = 0.1,
    jitter_statistics: bool = True,
    generator: Generator,
    progress: Progress = iter,
) -> Staircase:
    """Sub-models at the levels (s,) of `testing`: points (s, b, dimensions) in [0, 1] -> F (s, b), differentiable.

    jitter: standard deviation of the noise on points before they are tested. Raises ValueError for a level outside
    (0, 1].
    """
    if not ((level > 0) & (level <= 1)).all():
        raise ValueError(f"expected levels in (0, 1], got {level.tolist()}; F is at most 1")
    count, device = len(level), level.device
    makers = Generators(count, dimensions, noise=noise, width=width, generator=generator)
    critics = Statistics(count, dimensions, noise=noise, width=width, generator=generator)
    optimizers = [torch.optim.Adam(m.parameters(), lr=learning_rate, betas=(0.5, 0.999)) for m in (makers, critics)]
    average = torch.zeros(count, device=device)
    history = []

    def draw() -> Draw:
        own, other = torch.rand(2, count, batch_size, noise, generator=generator, device=device)
        points = makers(own)
        noisy = points + jitter * torch.randn(points.shape, generator=generator, device=device)
        return own, other, noisy, noisy if jitter_statistics else points

    for step in progress(range(steps)):
        own, other, points, seen = draw()
        tested = testing(points)
        gain = tested.minimum(level[:, None]).mean(1) + alpha * _information(critics, own, other, seen)
        _descend(optimizers[0], -gain.sum())
        history.append(tested.detach().mean(1))
        own, other, _, seen = draw()
        joint, apart = critics(own, seen.detach()).mean(1), critics(other, seen.detach()).exp().mean(1)
        average = apart.detach() if step == 0 else average + MOVING * (apart.detach() - average)
        _descend(optimizers[1], (apart / average - joint).sum())
    return _result(testing, makers.eval(), critics, level, torch.stack(history), draw)


def weights(level: Tensor, entropy: Tensor) -> Tensor:
    """gamma (s,) ~ (beta_i - beta_(i-1)) exp(entropy_i), summing to 1, for levels in any order; beta_0 = 0."""
    order = level.argsort()
    height = torch.empty_like(level)
    height[order] = level[order].diff(prepend=level.new_zeros(1))
    return torch.softmax(height.log() + entropy, 0)


def slabs(density: Tensor, count: int, *, equal: bool = False) -> Tensor:
    """The staircase of `count` levels below a density (m,) on a grid, exactly: (m,), summing to 1. equal: weights."""
    height = density / density.max()
    level = torch.arange(1, count + 1, dtype=density.dtype, device=density.device) / (count + 1)
    inside = (height >= level[:, None]).to(density.dtype)
    weight = torch.full_like(level, 1 / count) if equal else weights(level, inside.mean(1).log())
    return (weight[:, None] * inside / inside.sum(1, keepdim=True)).sum(0)


def _result(
    testing: Testing,
    makers: Generators,
    critics: Statistics,
    level: Tensor,
    history: Tensor,
    draw: Callable[[], Draw],
) -> Staircase:
    with torch.no_grad():
        tries = [
            (testing(points), _information(critics, own, other, seen))
            for own, other, points, seen in (draw() for _ in range(8))
        ]
    reached = torch.stack([tested.mean(1) for tested, _ in tries]).mean(0)
    entropy = torch.stack([information for _, information in tries]).mean(0)
    return Staircase(makers, level, reached, entropy, weights(level, entropy), history)


def _information(critics: Statistics, own: Tensor, other: Tensor, points: Tensor) -> Tensor:
    """I (s,): a lower bound of the mutual information between noise and points."""
    return critics(own, points).mean(1) - (critics(other, points).exp().mean(1) + 1e-8).log()


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
