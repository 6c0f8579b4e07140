"""The renderer of heads with eyes, which gaze and head pose share.

The head, its hair, nose and ears are ellipsoids hit by one orthographic ray a pixel; brows, mouth and eyes are painted
in the head's own coordinates, so they turn with it; the irises turn with the gaze relative to the head. x points
right in the image, y up, z towards the camera; positive yaw looks right, positive pitch up, positive roll turns
counter-clockwise. A gaze or a head with yaw and pitch points along metrics.gaze_direction((pitch, yaw)).

Left out: perspective, cast shadows, glasses, blinking, and the warping with which MPIIFaceGaze normalises its faces.
"""

import torch
from torch import Generator, Tensor

from drmlib import rng
from drmlib.data import raster
from drmlib.data.appearance import Appearance
from drmlib.data.eyes import paint_eyes
from drmlib.metrics import gaze_direction

HEAD = (0.76, 1.0, 0.88)  # semi-axes of the head; every other length is in the same unit
HAIR = (0.81, 1.07, 0.95)  # of the hair, which stands out around the head
HAIR_CENTRE = (0.0, 0.06, -0.12)


def render(gaze: Tensor, head_pose: Tensor, appearance: Appearance, *, generator: Generator, size: int = 32) -> Tensor:
    """Images (n, 3, size, size) in [0, 1] of heads turned to `head_pose` (n, 3) that look along `gaze` (n, 2), radians.

    The generator draws backdrop and sensor noise. Memory is bounded: raster.CHUNK_PIXELS pixels are drawn at a time.
    """
    if size < 16:
        raise ValueError(f"expected a size of at least 16 pixels, got {size}; eyes are not visible below that")
    rng.check_device(generator, gaze, "the gaze")
    parts = [
        _render_chunk(gaze[part], head_pose[part], appearance.at(part), size, generator)
        for part in raster.chunks(len(gaze), size)
    ]
    return torch.cat(parts)


def rotation(head_pose: Tensor) -> Tensor:
    """Matrices (n, 3, 3) that turn head coordinates into camera coordinates: roll first, then pitch, then yaw."""
    yaw, pitch, roll = head_pose.unbind(-1)
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)

    def matrix(*rows: list[Tensor]) -> Tensor:
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    turn_y = matrix([yaw.cos(), zero, yaw.sin()], [zero, one, zero], [-yaw.sin(), zero, yaw.cos()])
    turn_x = matrix([one, zero, zero], [zero, pitch.cos(), pitch.sin()], [zero, -pitch.sin(), pitch.cos()])
    turn_z = matrix([roll.cos(), -roll.sin(), zero], [roll.sin(), roll.cos(), zero], [zero, zero, one])
    return turn_y @ turn_x @ turn_z


def _render_chunk(gaze: Tensor, head_pose: Tensor, look: Appearance, size: int, generator: Generator) -> Tensor:
    turn = rotation(head_pose)
    x, y = raster.grid(size, device=gaze.device)
    x = (x - look.centre[:, 0, None, None]) / look.scale[:, None, None]
    y = (y - look.centre[:, 1, None, None]) / look.scale[:, None, None]
    pixel = (2 / size / look.scale)[:, None, None]
    image = raster.backdrop(look.backdrop, size, generator=generator)
    hair = raster.ellipsoid(x, y, turn, HAIR_CENTRE, HAIR, stretch=look.width * look.volume)
    image = raster.paint(image, _lit(look.hair, hair, look), hair.inside(pixel))
    image = _body(image, x, y, pixel, look)
    for side in (-1.0, 1.0):
        ear = raster.ellipsoid(x, y, turn, (side * HEAD[0], 0.05, -0.05), (0.10, 0.20, 0.14))
        image = raster.paint(image, _lit(look.skin * 0.95, ear, look), ear.inside(pixel))
    head = raster.ellipsoid(x, y, turn, (0.0, 0.0, 0.0), HEAD, stretch=look.width)
    eye_line = (turn.mT @ gaze_direction(gaze)[:, :, None]).squeeze(-1)
    image = raster.paint(image, _lit(_face(head, eye_line, pixel, look), head, look), head.inside(pixel))
    nose = raster.ellipsoid(x, y, turn, (0.0, -0.10, HEAD[2] - 0.02), (0.10, 0.19, 0.17))
    image = raster.paint(image, _lit(look.skin, nose, look), nose.inside(pixel) * (nose.z > head.z - 0.02).float())
    image = raster.blur(image, look.blur * (size / 32) ** 0.5)
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    return (image + look.noise[:, None, None, None] * noise).clamp_(0, 1)


def _body(image: Tensor, x: Tensor, y: Tensor, pixel: Tensor, look: Appearance) -> Tensor:
    """Neck and shoulders, which do not turn with the head."""
    neck = raster.edge((x.abs() - 0.34).maximum(y + 0.6), pixel)
    image = raster.paint(image, (look.skin * 0.62)[:, :, None, None], neck)
    shoulders = raster.edge(raster.ellipse(x, y + 1.75, 1.25, 0.72), pixel)
    return raster.paint(image, look.shirt[:, :, None, None], shoulders)


def _face(head: raster.Surface, eye_line: Tensor, pixel: Tensor, look: Appearance) -> Tensor:
    """Colours (n, 3, h, w) of the head's surface before light falls on it."""
    x, y, z = head.point
    front = raster.edge(0.05 - z, pixel)
    colour = look.skin[:, :, None, None].expand(-1, -1, *x.shape[1:])
    smile = look.smile[:, None, None]
    lips = raster.ellipse(x, y + 0.50 - smile * (x / 0.24).square(), 0.24, 0.065)
    colour = raster.paint(colour, look.lips[:, :, None, None], front * raster.edge(lips, pixel))
    nostrils = raster.ellipse(x.abs() - 0.06, y + 0.27, 0.05, 0.03)
    colour = raster.paint(colour, (look.skin * 0.5)[:, :, None, None], front * raster.edge(nostrils, pixel))
    colour = paint_eyes(colour, head.point, eye_line, pixel, look)
    outwards = x.abs() - look.eye_spacing[:, None, None]
    arch = y - look.brow[:, None, None] + 0.9 * (outwards - 0.02).square()
    brow = raster.edge((arch.abs() - 0.035).maximum(outwards.abs() - 0.22), pixel)
    colour = raster.paint(colour, (look.hair * 0.8)[:, :, None, None], front * brow)
    hairline = look.hairline[:, None, None] - 0.35 * x.square() + (0.25 - z).clamp_min(0) * -1.6
    return raster.paint(colour, look.hair[:, :, None, None], raster.edge(hairline - y, pixel))


def _lit(colour: Tensor, surface: raster.Surface, look: Appearance) -> Tensor:
    """Lambertian shading: ambient + (1 - ambient) max(0, normal . light), times the colour."""
    if colour.ndim == 2:
        colour = colour[:, :, None, None]
    facing = sum(n * look.light[:, k, None, None] for k, n in enumerate(surface.normal))
    ambient = look.ambient[:, None, None]
    return colour * (ambient + (1 - ambient) * torch.as_tensor(facing).clamp_min(0))[:, None]
