"""Traffic signs rendered on the device: the course's embedded classification data, in the manner of GTSRB (Stallkamp
et al. 2012, "Man vs. computer: benchmarking machine learning algorithms for traffic sign recognition").

A scene warps the signed distance fields of a sign, not a picture of it, by a homography (after Green 2007, "Improved
alpha-tested magnification for vector textures and special effects"), so edges are anti-aliased at any image size.
Classes share outlines and colours and some mirror each other: the glyph matters, and a flip is no valid augmentation.

Simplified: 16 classes, equally frequent, where GTSRB has 43 of very unequal frequency; no tracks of one sign coming
nearer; the background is rectangles, hard or soft; no reflections; the sensor's noise is triangular and white.

    train = signs(6000, generator=stream(0, "signs", "train"))
    images = render(train.targets, random_scenes(6000, generator=stream(0, "other scenes")), size=96)
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from drmlib.data import sign_shapes
from drmlib.data.dataset import Dataset, Task, as_bytes
from drmlib.data.sign_pixels import blur, coverage, noise, paint

SIGNS: tuple[str, ...] = tuple(sign.name for sign in sign_shapes.TABLE)
TASK = Task("signs", SIGNS)

CAMERA = 4.0  # distance in sign units, which sets how strong perspective is
RECTANGLES = 5


class SignScene(NamedTuple):
    """How n signs are seen; which sign it is, is the label's. Lengths are in half image sides, x right, y up."""

    centre: Tensor  # (n, 2)
    scale: Tensor  # (n,) half the height of a sign
    roll: Tensor  # (n,) radians, counter-clockwise
    tilt: Tensor  # (n, 2) radians, about the vertical and the horizontal axis
    gain: Tensor  # (n,) brightness, 1 is neutral
    gradient: Tensor  # (n, 2) change of brightness along x and y
    tint: Tensor  # (n, 3) factors of red, green, blue
    shadow: Tensor  # (n, 3) direction in radians, offset of the edge, depth in [0, 1]
    fading: Tensor  # (n,) 0 new paint, 1 grey
    background: Tensor  # (n, 3) rgb
    rectangles: Tensor  # (n, m, 6) centre x y, half width, half height, angle in radians, softness of the edge
    rectangle_colours: Tensor  # (n, m, 3) rgb
    blur: Tensor  # (n,) how far each point spreads
    noise: Tensor  # (n,) standard deviation, in [0, 1] intensity
    noise_seed: Tensor  # (n,) int64 in [0, 2^32): the noise of a sample, whatever else is in its batch


def random_scenes(n: int, *, generator: Generator) -> SignScene:
    """n scenes of the course's default difficulty, on the generator's device. Raises ValueError if n < 1."""
    if n < 1:
        raise ValueError(f"expected n of at least 1, got {n}")

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator, device=generator.device) * (high - low) + low

    return SignScene(
        centre=uniform(-0.15, 0.15, 2),
        scale=uniform(0.55, 0.88),
        roll=uniform(-0.21, 0.21),  # 12 degrees
        tilt=uniform(-0.6, 0.6, 2),
        gain=uniform(0.55, 1.25),
        gradient=uniform(-0.3, 0.3, 2),
        tint=uniform(0.85, 1.15, 3),
        shadow=torch.stack([uniform(-3.15, 3.15), uniform(-0.6, 1.2), uniform(0.1, 0.6)], dim=1),
        fading=uniform(0, 0.55),
        background=_muted(uniform(0.05, 0.95, 3)),
        rectangles=_random_rectangles(uniform),
        rectangle_colours=_muted(uniform(0, 1, RECTANGLES, 3)),
        blur=uniform(0, 0.12),
        noise=uniform(0, 0.065),
        noise_seed=torch.randint(2**32, (n,), generator=generator, device=generator.device),
    )


def _random_rectangles(uniform: Callable[..., Tensor]) -> Tensor:
    """Walls, poles and clouds: large to thin, sharp to soft."""
    m = RECTANGLES
    centre, half = uniform(-1.2, 1.2, m, 2), uniform(0.05, 1, m, 2)
    angle, softness = uniform(-0.3, 0.3, m, 1), uniform(0, 1, m, 1).square()
    return torch.cat([centre, half, angle, softness], dim=2)


def _muted(colours: Tensor) -> Tensor:
    """Colours (..., 3) half way to grey: few things beside signs are painted in pure colours."""
    return (colours + colours.mean(-1, keepdim=True)) / 2


def render(labels: Tensor, scenes: SignScene, *, size: int = 32, chunk: int = 128) -> Tensor:
    """Images float32 (n, 3, size, size) in [0, 1] of the signs `labels` (n,) int64 seen in `scenes`.

    chunk bounds the memory: so many images are drawn at once; it does not change a bit of the result. Raises ValueError
    unless there is one label a scene, labels are int64 in 0..15, size is at least 8 and chunk at least 1.
    """
    return torch.cat([_render(*part, size) for part in _chunks(labels, scenes, size, chunk)])


def signs(n: int, *, generator: Generator, size: int = 32, chunk: int = 128) -> Dataset:
    """n signs (uint8) on the generator's device, the classes as equally frequent as n allows, in random order.

    size is the image's side in pixels, chunk as in `render`. Raises ValueError if n < 1, size < 8 or chunk < 1.
    """
    scenes = random_scenes(n, generator=generator)
    labels = torch.randperm(n, generator=generator, device=generator.device) % len(SIGNS)
    images = torch.cat([as_bytes(_render(*part, size)) for part in _chunks(labels, scenes, size, chunk)])
    return Dataset(images, labels, TASK)


def _chunks(labels: Tensor, scenes: SignScene, size: int, chunk: int) -> Iterator[tuple[Tensor, SignScene]]:
    """Consecutive parts of at most `chunk` samples, once everything has been checked."""
    _check(labels, scenes, size, chunk)
    for part, *fields in zip(labels.split(chunk), *(field.split(chunk) for field in scenes), strict=True):
        yield part, SignScene(*fields)


def _render(labels: Tensor, scenes: SignScene, size: int) -> Tensor:
    axis = (torch.arange(size, device=labels.device) + 0.5) * (2 / size) - 1
    x, y = axis[None, None, :], -axis[None, :, None]  # pixel centres; rows run downwards
    images = _background(x, y, scenes)
    _paint_signs(images, x, y, labels, scenes)
    images = blur(images * _light(x, y, scenes), scenes.blur * (size / 2))
    return (images + scenes.noise[:, None, None, None] * noise(scenes.noise_seed, images)).clamp_(0, 1)


def _background(x: Tensor, y: Tensor, scenes: SignScene) -> Tensor:
    size = x.shape[-1]
    images = scenes.background[:, :, None, None].expand(-1, -1, size, size).contiguous()
    for shape, colour in zip(scenes.rectangles.unbind(1), scenes.rectangle_colours.unbind(1), strict=True):
        centre_x, centre_y, half_x, half_y, angle, softness = shape[:, :, None, None].unbind(1)
        cosine, sine = angle.cos(), angle.sin()
        u = cosine * (x - centre_x) + sine * (y - centre_y)
        v = cosine * (y - centre_y) - sine * (x - centre_x)
        distance = torch.maximum(u.abs() - half_x, v.abs() - half_y)
        paint(images, colour, coverage(distance, softness + 2 / size))
    return images


def _paint_signs(images: Tensor, x: Tensor, y: Tensor, labels: Tensor, scenes: SignScene) -> None:
    """Border, fill and glyph painted over `images` in place, each inside the one before."""
    outline, glyph = _distances(x, y, labels, scenes).unbind(1)
    fill = outline + sign_shapes.borders(labels.device)[labels][:, None, None]
    colours = _fade(sign_shapes.colours(labels.device)[labels], scenes.fading)
    pixel = (2 / x.shape[-1] / scenes.scale)[:, None, None]  # in sign units; tilt makes it a little larger
    for colour, distance in zip(colours.unbind(1), (outline, fill, glyph), strict=True):
        paint(images, colour, coverage(distance, pixel))


def _distances(x: Tensor, y: Tensor, labels: Tensor, scenes: SignScene) -> Tensor:
    """Signed distances (n, 2, h, w) of each pixel to its sign's outline and glyph, in sign units."""
    rows = (row[:, :, None, None].unbind(1) for row in _homography(scenes).unbind(1))
    u, v, w = (along_x * x + along_y * y + constant for along_x, along_y, constant in rows)
    grid = torch.stack([u / w, v / w], dim=-1) / sign_shapes.EXTENT
    fields = sign_shapes.fields(labels.device)[labels]
    return F.grid_sample(fields, grid, padding_mode="border", align_corners=True)


def _homography(scenes: SignScene) -> Tensor:
    """(n, 3, 3), up to a factor, from image coordinates (x, y, 1) to sign coordinates (u, v, 1).

    The point u a + v b of the sign, with a and b the first columns of Rz(roll) Ry(tilt_0) Rx(tilt_1), is seen from
    CAMERA away: (x, y) = centre + scale (X, Y) / (1 + Z / CAMERA). The way back is the adjugate of that matrix, whose
    rows are the cross products of its columns.
    """
    (cr, sr), (cy, sy), (cx, sx) = ((a.cos(), a.sin()) for a in (scenes.roll, *scenes.tilt.unbind(1)))
    a = _project(cr * cy, sr * cy, -sy / CAMERA, scenes)
    b = _project(cr * sy * sx - sr * cx, sr * sy * sx + cr * cx, cy * sx / CAMERA, scenes)
    origin = _project(torch.zeros_like(cr), torch.zeros_like(cr), torch.ones_like(cr), scenes)
    return torch.stack([_cross(b, origin), _cross(origin, a), _cross(a, b)], dim=1)


def _project(x: Tensor, y: Tensor, depth: Tensor, scenes: SignScene) -> Tensor:
    """A column (n, 3) of the homography from sign to image."""
    place = torch.stack([x, y], dim=1) * scenes.scale[:, None] + depth[:, None] * scenes.centre
    return torch.cat([place, depth[:, None]], dim=1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    # not torch.linalg.cross, which may fuse the two products, and then differ with the length of the batch
    return a.roll(-1, 1) * b.roll(-2, 1) - a.roll(-2, 1) * b.roll(-1, 1)


def _fade(colours: Tensor, fading: Tensor) -> Tensor:
    """Colours (n, k, 3) moved towards grey, which keeps a third of the differences in brightness."""
    red, green, blue = colours.split(1, dim=2)
    grey = 0.35 + (red + green + blue) / 9
    return colours + fading[:, None, None] * (grey - colours)


def _light(x: Tensor, y: Tensor, scenes: SignScene) -> Tensor:
    """Brightness of each pixel and channel (n, 3, h, w): gain, tint, a gradient across the image, a shadow's edge."""
    direction, offset, depth = scenes.shadow[:, :, None, None].unbind(1)
    shadow = depth * coverage(offset - (direction.cos() * x + direction.sin() * y), 0.1)
    along_x, along_y = scenes.gradient[:, :, None, None].unbind(1)
    light = (1 + along_x * x + along_y * y) * (1 - shadow)
    return (scenes.gain[:, None] * scenes.tint)[:, :, None, None] * light[:, None]


def _check(labels: Tensor, scenes: SignScene, size: int, chunk: int) -> None:
    k, n = len(SIGNS), len(scenes.scale)
    if size < 8:
        raise ValueError(f"expected size of at least 8 pixels, got {size}; no glyph can be told below")
    if chunk < 1:
        raise ValueError(f"expected chunk of at least 1 image, got {chunk}")
    if labels.shape != (n,) or n < 1:
        raise ValueError(
            f"expected a label for each of {n} scenes, at least 1, got labels of shape {tuple(labels.shape)}"
        )
    if labels.dtype != torch.int64:
        raise ValueError(f"expected int64 labels, got {labels.dtype}; use .long()")
    if not (0 <= labels.min() and labels.max() < k):
        raise ValueError(
            f"expected labels 0..{k - 1}, the places in SIGNS, got {labels.min().item()}..{labels.max().item()}"
        )
