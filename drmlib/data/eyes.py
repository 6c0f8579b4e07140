"""Eyes painted on a head's surface: almonds between two lids, iris and pupil that turn with the gaze, a catch light.

Lengths are in the unit of heads.HEAD, in which a face is 1.5 wide. Eyes are a little larger than life, so that 32
pixels show where they look.
"""

import torch
from torch import Tensor

from drmlib.data import raster
from drmlib.data.appearance import Appearance

HALF_WIDTH = 0.24
LOWER = 0.75  # how far the lower lid opens, over the upper one
EYEBALL = 0.34  # radius: by how much the iris moves when the eye turns
IRIS, PUPIL, CATCH = 0.125, 0.055, 0.034  # radii
LID = 0.028  # width of the dark line of lashes along the upper lid
FOLLOWS = 0.16  # how far the upper lid follows a pitch of the eye, per unit of its sine


def paint_eyes(
    colour: Tensor, point: tuple[Tensor, Tensor, Tensor], eye_line: Tensor, pixel: Tensor, look: Appearance
) -> Tensor:
    """Colours (n, 3, h, w) of a head's surface with both eyes on it, each pixel by the eye of its own side.

    point: x, y, z (n, h, w) of the surface in head coordinates. eye_line: where the eyes look (n, 3), in the same
    coordinates, a unit vector. pixel: the side of a pixel, (n, 1, 1).
    """
    x, y, z = point
    right, up = (eye_line[:, k, None, None] for k in (0, 1))
    from_middle = x - look.eye_spacing[:, None, None] * torch.where(x < 0, -1.0, 1.0)
    y = y - 0.10
    bow = 1 - (from_middle / HALF_WIDTH).square()
    opening = look.eye_opening[:, None, None]
    upper = y - bow * (opening + FOLLOWS * up).clamp_min(0.02)  # signed heights over the lids
    lower = -y - bow * LOWER * opening
    front = raster.edge(0.05 - z, pixel)
    near = raster.edge(from_middle.abs() - 1.15 * HALF_WIDTH, pixel) * front
    colour = raster.paint(colour, (look.skin * 0.78)[:, :, None, None], near * _soft(upper, lower, 0.075, pixel))
    lashes = near * raster.edge((upper - LID).maximum(-upper - LID).maximum(-bow * HALF_WIDTH), pixel)
    inside = near * raster.edge(upper.maximum(lower), pixel)
    colour = raster.paint(colour, _eyeball(from_middle, y, upper, right, up, pixel, look), inside)
    return raster.paint(colour, (look.skin * 0.30)[:, :, None, None], 0.85 * lashes)


def _eyeball(x: Tensor, y: Tensor, upper: Tensor, right: Tensor, up: Tensor, pixel: Tensor, look: Appearance) -> Tensor:
    """Colours (n, 3, h, w) of the ball between the lids: white under the shade of the lid, iris, pupil, catch light."""
    shade = 0.88 - 0.35 * (1 + upper / 0.07).clamp(0, 1)
    white = shade[:, None].expand(-1, 3, -1, -1)
    iris_x, iris_y = x - EYEBALL * right, y - EYEBALL * up
    radius = (iris_x.square() + iris_y.square()).sqrt()
    ball = raster.paint(white, look.iris[:, :, None, None], raster.edge(radius - IRIS, pixel))
    ball = raster.paint(ball, torch.full_like(look.iris, 0.03)[:, :, None, None], raster.edge(radius - PUPIL, pixel))
    light_x, light_y = (0.055 * look.light[:, k, None, None] for k in (0, 1))
    catch = raster.ellipse(iris_x - light_x, iris_y - 0.03 - light_y, CATCH, CATCH)
    return raster.paint(ball, torch.ones_like(look.iris)[:, :, None, None], 0.9 * raster.edge(catch, pixel))


def _soft(upper: Tensor, lower: Tensor, width: float, pixel: Tensor) -> Tensor:
    """The hollow around the lids: full at the rim, nothing `width` beyond it."""
    return (1 - upper.maximum(lower).clamp_min(0) / (width + pixel)).clamp(0, 1) * 0.7
