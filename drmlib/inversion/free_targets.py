"""Targets of a regressor that an inversion searches along with the trigger: where to start them, and when it cannot."""

import torch
from torch import Generator, Tensor


def check_spread(outputs: Tensor) -> None:
    """Raises ValueError unless every component of `outputs` (n, k) varies."""
    spread = outputs.std(0) if len(outputs) > 1 else torch.zeros_like(outputs[0])
    if not (spread > 0).all():
        raise ValueError(
            f"expected outputs that vary, got {len(outputs)} with standard deviations {spread.tolist()}; "
            "pass more images, or look at what the model has learned"
        )


def starts(outputs: Tensor, count: int, *, generator: Generator) -> Tensor:
    """Vectors (count, k) spread evenly over the range of `outputs` (n, k): scrambled Sobol points."""
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device).item())
    low, high = outputs.aminmax(dim=0)
    points = torch.quasirandom.SobolEngine(outputs.shape[1], scramble=True, seed=seed).draw(count)
    return torch.lerp(low, high, points.to(outputs))
