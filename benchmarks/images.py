"""Augmentation and rendering of a whole batch against one image at a time."""

import torch

from benchmarks.timing import Row, compare
from drmlib.data.augment import Augmentation
from drmlib.data.faces import gaze_faces
from drmlib.data.signs import signs
from drmlib.rng import stream


def run(n: int = 256) -> list[Row]:
    """n images of 32 x 32 pixels."""
    images = torch.rand(n, 3, 32, 32, generator=stream(0, "images"))
    augment, g = Augmentation(flip=True, padding=4), stream(0, "augment")

    def one_by_one() -> None:
        torch.cat([augment(image[None], generator=g) for image in images])

    rows = [compare(f"flip and crop of {n}, against one by one", lambda: augment(images, generator=g), one_by_one)]
    for draw in (gaze_faces, signs):
        few = max(2, n // 8)
        rows.append(
            compare(
                f"{draw.__name__}, {few} rendered, against one by one",
                lambda draw=draw, few=few: draw(few, generator=g),
                lambda draw=draw, few=few: [draw(1, generator=g) for _ in range(few)],
                repeats=3,
            )
        )
    return rows
