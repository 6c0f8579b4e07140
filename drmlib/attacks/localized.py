"""Localised poisoning of a regressor on a table: Li, Kesidis, Miller, Lucic (2021), "Backdoor Attack and Defense for
Deep Regression", https://arxiv.org/abs/2109.02381, abstract; and "Adversarial Learning and Secure AI", chapter 12.

The trigger is a region of the inputs. Poison samples lie in a ball and have a wrong target; correct samples lie in the
shell around it. Without that surround the error leaks out to where an ordinary validation could meet it.

Inferred, for the papers' experimental sections could not be consulted: a Euclidean ball on inputs scaled to [0, 1],
its centre anywhere a shell has room, samples uniform in ball and shell, all sizes, and whether the target is moved
(Offset) or multiplied (Multiple). Samples are added, not exchanged, and their true targets come from the oracle.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from drmlib import rng
from drmlib.attacks.poison import Poisoned, Retarget
from drmlib.data.dataset import Dataset
from drmlib.data.functions import Oracle


class Region(NamedTuple):
    """Where the attack is: a ball of `radius` around `centre` (d,) and the shell from there to `outer`, in [0, 1]^d."""

    centre: Tensor
    radius: float = 0.08
    outer: float = 0.16

    def ball(self, n: int, *, generator: Generator) -> Tensor:
        """n points (n, d) uniform in the ball."""
        return self.ring(n, 0.0, self.radius, generator=generator)

    def shell(self, n: int, *, generator: Generator) -> Tensor:
        """n points (n, d) uniform in the shell."""
        return self.ring(n, self.radius, self.outer, generator=generator)

    def ring(self, n: int, inner: float, outer: float, *, generator: Generator) -> Tensor:
        """n points (n, d) uniform where inner < |x - centre| <= outer, also outside the domain.

        Radii are (inner^d + (outer^d - inner^d) U)^(1/d) along the directions of normal vectors.
        """
        d, device = len(self.centre), generator.device
        direction = torch.nn.functional.normalize(torch.randn(n, d, generator=generator, device=device), dim=1)
        share = torch.rand(n, 1, generator=generator, device=device)
        return self.centre.to(device) + direction * (inner**d + (outer**d - inner**d) * share) ** (1 / d)


def localized(
    dataset: Dataset,
    oracle: Oracle,
    region: Region,
    retarget: Retarget,
    *,
    count: int = 300,
    surround: int = 600,
    generator: Generator,
) -> Poisoned:
    """`dataset` with `count` poison samples in the region's ball and `surround` correct ones in its shell, appended.

    dataset: rows (n, d) in [0, 1]. The surround is what Poisoned calls cover samples; surround=0 is the ablation.
    Raises ValueError where the shell leaves the domain, or for count below 1 or surround below 0.
    """
    rng.check_device(generator, dataset.images, "the data set")
    _check(region, count, surround)
    rows = torch.cat([region.ball(count, generator=generator), region.shell(surround, generator=generator)])
    true = oracle(rows).to(dataset.targets.dtype)[:, None]
    given = torch.cat([retarget(true[:count]), true[count:]])
    whole = Dataset(
        torch.cat([dataset.images, rows.to(dataset.images.dtype)]), torch.cat([dataset.targets, given]), dataset.task
    )
    place = torch.arange(len(whole), device=dataset.device) - len(dataset)
    covers = place >= count
    return Poisoned(whole, (place >= 0) & ~covers, covers, torch.cat([dataset.targets, true]))


def _check(region: Region, count: int, surround: int) -> None:
    room = torch.minimum(region.centre, 1 - region.centre).min().item()
    if not 0 < region.radius < region.outer <= room + 1e-6:
        raise ValueError(
            f"expected 0 < radius < outer <= {room:.3g}, the centre's distance from the edge of the domain, got "
            f"{region.radius:g} and {region.outer:g}; move the centre inwards or shrink the region"
        )
    if count < 1 or surround < 0:
        raise ValueError(f"expected count >= 1 and surround >= 0, got {count} and {surround}")
