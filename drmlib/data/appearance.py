"""What varies between photographs of heads but not with the target: who is seen, and in what light and place."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor


class Appearance(NamedTuple):
    """What varies between photographs but not with the target; colours (n, 3), the rest (n,) or as noted.

    centre (n, 2) and scale place the head in an image that spans [-1, 1]; light (n, 3) is a unit vector towards the
    lamp; backdrop (n, 2, 3) holds two colours that a smooth random field mixes; volume widens the hair; blur is a
    standard deviation in pixels of a 32-pixel image, noise one in units of the image range.
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
    volume: Tensor
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


def random_appearance(n: int, *, persons: int | None = None, generator: Generator) -> Appearance:
    """n appearances of `persons` people, n of them unless told: sample i shows person i % persons (see person_of).

    A person keeps skin, hair, iris, lips, the shape of the face and how wide the eyes stand open; shirt, backdrop,
    light, place, smile, blur and noise belong to the photograph.
    """
    people = n if persons is None else persons
    if not 1 <= people <= n:
        raise ValueError(f"expected 1 to {n} persons in {n} images, got {people}")
    who = person_of(n, people).to(generator.device)
    person = {name: field[who] for name, field in _person(people, generator).items()}
    return Appearance(**person, **_photograph(n, generator))


def person_of(n: int, persons: int) -> Tensor:
    """The number of the person (n,) int64, from 0, that each sample of random_appearance shows: dealt out in turn."""
    return torch.arange(n) % persons


def _person(n: int, generator: Generator) -> dict[str, Tensor]:
    uniform, between = _uniform(n, generator), _between(n, generator)
    return {
        "skin": between((0.36, 0.22, 0.15), (0.97, 0.80, 0.69), 0.03),
        "hair": between((0.05, 0.04, 0.04), (0.66, 0.48, 0.28), 0.0) * uniform(0.75, 1.1, 1),
        "iris": between((0.16, 0.09, 0.05), (0.25, 0.42, 0.50), 0.04),
        "lips": between((0.45, 0.18, 0.18), (0.78, 0.38, 0.36), 0.04),
        "width": uniform(0.93, 1.07),
        "volume": uniform(0.98, 1.14),
        "eye_spacing": uniform(0.32, 0.37),
        "eye_opening": uniform(0.10, 0.13),
        "hairline": uniform(0.48, 0.66),
        "brow": uniform(0.30, 0.36),
    }


def _photograph(n: int, generator: Generator) -> dict[str, Tensor]:
    uniform = _uniform(n, generator)
    light = torch.cat([uniform(-0.8, 0.8, 1), uniform(-0.2, 0.9, 1), uniform(0.6, 1.2, 1)], 1)
    return {
        "shirt": _muted(uniform(0.1, 0.85, 1), uniform(-1, 1, 3), 0.12),
        "backdrop": _muted(uniform(0.15, 0.9, 2, 1), uniform(-1, 1, 1, 3), 0.10),
        "light": torch.nn.functional.normalize(light, dim=1),
        "ambient": uniform(0.35, 0.65),
        "centre": uniform(-0.06, 0.06, 2),
        "scale": uniform(0.78, 0.88),
        "smile": uniform(-0.05, 0.10),
        "blur": uniform(0.3, 0.7),
        "noise": uniform(0.0, 0.02),
    }


def _uniform(n: int, generator: Generator) -> Callable[..., Tensor]:
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator, device=generator.device)

    return uniform


def _between(n: int, generator: Generator) -> Callable[..., Tensor]:
    """Colours (n, 3) on the line between two, moved off it by at most `jitter` a channel."""
    uniform = _uniform(n, generator)

    def between(first: tuple[float, ...], last: tuple[float, ...], jitter: float) -> Tensor:
        a, b = (torch.tensor(colour, device=generator.device) for colour in (first, last))
        return (torch.lerp(a, b, uniform(0, 1, 1)) + uniform(-jitter, jitter, 3)).clamp(0, 1)

    return between


def _muted(brightness: Tensor, hue: Tensor, strength: float) -> Tensor:
    """Greys of a brightness with a cast of one hue: the mean of the channels stays the brightness."""
    return (brightness + strength * (hue - hue.mean(-1, keepdim=True))).clamp(0, 1)
