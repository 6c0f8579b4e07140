"""What varies between photographs of heads but not with the target: colours, light, place, features."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor


class Appearance(NamedTuple):
    """What varies between photographs but not with the target; colours (n, 3), the rest (n,) or as noted.

    centre (n, 2) and scale place the head in an image that spans [-1, 1]; light (n, 3) is a unit vector towards the
    lamp; backdrop (n, 2, 3) holds two colours that a smooth random field mixes; blur is a standard deviation in pixels
    of a 32-pixel image, noise one in units of the image range.
    """

    skin: Tensor
    hair: Tensor
    iris: Tensor
    lips: Tensor
    shirt: Tensor
    backdrop: Tensor
    light: Tensor
    ambient: Tensor
    centre: Tensor
    scale: Tensor
    width: Tensor
    eye_spacing: Tensor
    eye_opening: Tensor
    hairline: Tensor
    brow: Tensor
    smile: Tensor
    blur: Tensor
    noise: Tensor

    def at(self, part: slice) -> "Appearance":
        """The appearances of a slice of the samples."""
        return Appearance(*(field[part] for field in self))


def random_appearance(n: int, *, generator: Generator) -> Appearance:
    """n appearances, drawn independently."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator, device=generator.device)

    def between(first: tuple[float, ...], last: tuple[float, ...], jitter: float) -> Tensor:
        a, b = (torch.tensor(colour, device=generator.device) for colour in (first, last))
        return (torch.lerp(a, b, uniform(0, 1, 1)) + uniform(-jitter, jitter, 3)).clamp(0, 1)

    light = torch.cat([uniform(-0.8, 0.8, 1), uniform(-0.2, 0.9, 1), uniform(0.6, 1.2, 1)], 1)
    return Appearance(
        skin=between((0.36, 0.22, 0.15), (0.97, 0.80, 0.69), 0.04),
        hair=between((0.06, 0.05, 0.05), (0.66, 0.48, 0.28), 0.06),
        iris=between((0.16, 0.09, 0.05), (0.25, 0.42, 0.50), 0.06),
        lips=between((0.45, 0.18, 0.18), (0.78, 0.38, 0.36), 0.05),
        shirt=uniform(0.1, 0.9, 3),
        backdrop=uniform(0.05, 0.95, 2, 3),
        light=torch.nn.functional.normalize(light, dim=1),
        ambient=uniform(0.35, 0.65),
        centre=uniform(-0.06, 0.06, 2),
        scale=uniform(0.78, 0.88),
        width=uniform(0.93, 1.07),
        eye_spacing=uniform(0.32, 0.37),
        eye_opening=uniform(0.15, 0.19),
        hairline=uniform(0.48, 0.66),
        brow=uniform(0.34, 0.40),
        smile=uniform(-0.05, 0.10),
        blur=uniform(0.3, 0.7),
        noise=uniform(0.0, 0.02),
    )
