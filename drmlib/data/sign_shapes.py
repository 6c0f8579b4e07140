"""The sixteen sign classes of drmlib.data.signs as data, and their signed distance fields.

A class is an outline, three colours and a glyph of strokes, chosen after GTSRB (Stallkamp et al. 2012, "Man vs.
computer: benchmarking machine learning algorithms for traffic sign recognition"). Distances to polylines are in closed
form. Simplified: arcs are twelve chords, plates are flat, there is no lettering beyond digits, P and STOP.
"""

from collections.abc import Sequence
from functools import cache
from math import cos, pi, radians, sin
from typing import NamedTuple

import torch
from torch import Tensor

Line = list[tuple[float, float]]  # corners (x right, y up) in sign units: the sign reaches from about -1 to 1

RED, WHITE, BLACK = (0.72, 0.06, 0.1), (0.9, 0.9, 0.88), (0.06, 0.06, 0.07)
BLUE, YELLOW = (0.05, 0.25, 0.65), (0.95, 0.7, 0.05)


def _arc(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> Line:
    """Corners along an arc of an ellipse, from start to stop degrees, counter-clockwise from the x axis."""
    angles = [radians(start + (stop - start) * i / 12) for i in range(13)]
    return [(x + rx * cos(a), y + ry * sin(a)) for a in angles]


def _polygon(corners: int, radius: float, turn: float, y: float = 0.0) -> Line:
    """A regular polygon around (0, y) whose first corner stands at `turn` degrees."""
    angles = [radians(turn) + 2 * pi * i / corners for i in range(corners)]
    return [(radius * cos(a), y + radius * sin(a)) for a in angles]


LETTERS: dict[str, list[Line]] = {
    "0": [_arc(0, 0, 0.2, 0.37)],
    "3": [_arc(0, 0.19, 0.18, 0.18, 150, -90), _arc(0, -0.18, 0.2, 0.19, 90, -150)],
    "5": [[(0.17, 0.37), (-0.14, 0.37), (-0.18, 0.02), *_arc(-0.01, -0.13, 0.2, 0.23, 120, -140)]],
    "8": [_arc(0, 0.19, 0.17, 0.18), _arc(0, -0.18, 0.2, 0.19)],
    "S": [[*_arc(0, 0.19, 0.19, 0.18, 40, 270), *_arc(0, -0.18, 0.19, 0.19, 90, -140)]],
    "T": [[(-0.22, 0.36), (0.22, 0.36)], [(0, 0.36), (0, -0.36)]],
    "O": [_arc(0, 0, 0.21, 0.37)],
    "P": [[(-0.17, -0.37), (-0.17, 0.36), *_arc(0, 0.17, 0.2, 0.19, 90, -90), (-0.17, -0.02)]],
}


def _text(letters: str, size: float, space: float) -> list[Line]:
    """The letters side by side, `space` apart, centred on the origin."""
    starts = [space * (i - (len(letters) - 1) / 2) for i in range(len(letters))]
    return [
        [(start + size * x, size * y) for x, y in line]
        for start, letter in zip(starts, letters, strict=True)
        for line in LETTERS[letter]
    ]


def _mirror(lines: list[Line]) -> list[Line]:
    return [[(-x, y) for x, y in line] for line in lines]


class Sign(NamedTuple):
    """One class: a plate (a convex polygon grown by `rounding`), its border, and the strokes and dots of a glyph."""

    name: str
    outline: Line
    rounding: float
    border: float  # width
    colours: tuple[tuple[float, float, float], ...]  # border, fill, glyph
    strokes: Sequence[Line] = ()
    stroke: float = 0.09  # half the width
    dots: tuple[tuple[float, float, float], ...] = ()  # x, y, radius


DISC, OCTAGON, DIAMOND, SQUARE = [(0.0, 0.0)], _polygon(8, 0.9, 22.5), _polygon(4, 0.95, 0), _polygon(4, 1.1, 45)
WARNING, INVERTED = _polygon(3, 1.05, 90, -0.2), _polygon(3, 1.05, -90, 0.2)
BEND: list[Line] = [[(0.22, -0.55), (0.22, -0.2), (-0.12, 0.12)], [(-0.12, -0.13), (-0.18, 0.17), (0.12, 0.2)]]
TURN: list[Line] = [[(0.3, -0.5), (0.3, 0.1), (-0.45, 0.1)], [(-0.15, 0.42), (-0.5, 0.1), (-0.15, -0.22)]]
AHEAD: list[Line] = [[(0, -0.55), (0, 0.5)], [(-0.34, 0.2), (0, 0.55), (0.34, 0.2)]]
WALKER: list[Line] = [
    [(0, 0.02), (-0.02, -0.25), (-0.22, -0.56)],
    [(-0.02, -0.25), (0.2, -0.56)],
    [(-0.22, -0.2), (0, 0.0), (0.22, -0.2)],
]
LIMIT, OBLIGATION, DANGER = (RED, WHITE, BLACK), (WHITE, BLUE, WHITE), (RED, WHITE, BLACK)

TABLE = (
    Sign("limit 30", DISC, 0.95, 0.17, LIMIT, _text("30", 1, 0.58), 0.085),
    Sign("limit 50", DISC, 0.95, 0.17, LIMIT, _text("50", 1, 0.58), 0.085),
    Sign("limit 80", DISC, 0.95, 0.17, LIMIT, _text("80", 1, 0.58), 0.085),
    Sign("no entry", DISC, 0.95, 0.05, (WHITE, RED, WHITE), [[(-0.48, 0), (0.48, 0)]], 0.16),
    Sign("yield", INVERTED, 0.08, 0.2, DANGER),
    Sign("stop", OCTAGON, 0.06, 0.06, (WHITE, RED, WHITE), _text("STOP", 0.72, 0.41), 0.07),
    Sign("priority road", DIAMOND, 0.06, 0.17, (WHITE, YELLOW, BLACK)),
    Sign("caution", WARNING, 0.08, 0.15, DANGER, [[(0, 0.3), (0, -0.2)]], 0.1, ((0, -0.5, 0.11),)),
    Sign("crossroads", WARNING, 0.08, 0.15, DANGER, [[(-0.26, -0.5), (0.26, 0.02)], [(0.26, -0.5), (-0.26, 0.02)]]),
    Sign("pedestrians", WARNING, 0.08, 0.15, DANGER, WALKER, 0.07, ((0, 0.2, 0.11),)),
    Sign("bend left", WARNING, 0.08, 0.15, DANGER, BEND, 0.08),
    Sign("bend right", WARNING, 0.08, 0.15, DANGER, _mirror(BEND), 0.08),
    Sign("ahead only", DISC, 0.95, 0.06, OBLIGATION, AHEAD, 0.1),
    Sign("turn left", DISC, 0.95, 0.06, OBLIGATION, TURN, 0.1),
    Sign("turn right", DISC, 0.95, 0.06, OBLIGATION, _mirror(TURN), 0.1),
    Sign("parking", SQUARE, 0.08, 0.06, OBLIGATION, _text("P", 1.5, 0), 0.13),
)

EXTENT = 1.25  # the fields cover -EXTENT..EXTENT in sign units; beyond, every sign is outside itself
FIELD = 96  # samples a side: strokes are about six wide, and bilinear samples of a distance are exact off its creases


@cache
def fields(device: torch.device) -> Tensor:
    """Signed distances (k, 2, FIELD, FIELD) to each class's outline and glyph, negative inside; row 0 is y = -EXTENT.

    In float64 on the CPU and then moved, so that every device has the same fields.
    """
    axis = torch.linspace(-EXTENT, EXTENT, FIELD, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    distances = [torch.stack([_outline_distance(x, y, sign), _glyph_distance(x, y, sign)]) for sign in TABLE]
    return torch.stack(distances).float().to(device)


@cache
def colours(device: torch.device) -> Tensor:
    """Albedo (k, 3, 3) of each class's border, fill and glyph, in rgb."""
    return torch.tensor([sign.colours for sign in TABLE], device=device)


@cache
def borders(device: torch.device) -> Tensor:
    """Border width (k,) of each class in sign units."""
    return torch.tensor([sign.border for sign in TABLE], device=device)


def _outline_distance(x: Tensor, y: Tensor, sign: Sign) -> Tensor:
    corners = sign.outline
    inside = torch.ones_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0  # left of every edge; a lone point has no inside
    distance = _line_distance(x, y, [*corners, corners[0]])
    return torch.where(inside, -distance, distance) - sign.rounding


def _glyph_distance(x: Tensor, y: Tensor, sign: Sign) -> Tensor:
    distance = torch.full_like(x, 2 * EXTENT)  # no glyph: outside everywhere
    for line in sign.strokes:
        distance = distance.minimum(_line_distance(x, y, line) - sign.stroke)
    for centre_x, centre_y, radius in sign.dots:
        distance = distance.minimum(torch.hypot(x - centre_x, y - centre_y) - radius)
    return distance


def _line_distance(x: Tensor, y: Tensor, line: Line) -> Tensor:
    """Distance from each point (x, y) to a polyline: the least over its segments a-b of |p - a - t (b - a)|."""
    distance = torch.full_like(x, torch.inf)
    for (ax, ay), (bx, by) in zip(line, line[1:], strict=False):
        dx, dy = bx - ax, by - ay
        t = (((x - ax) * dx + (y - ay) * dy) / max(dx * dx + dy * dy, 1e-12)).clamp(0, 1)
        distance = distance.minimum(torch.hypot(x - ax - t * dx, y - ay - t * dy))
    return distance
