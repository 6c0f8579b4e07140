"""k-way: one of k coloured pixels in training, all of them at test. Qi, Xie, Li, Mahloujifar, Mittal, "Revisiting the
Assumption of Latent Separability for Backdoor Defenses" (2023), https://openreview.net/forum?id=_wSHsgrVali.

Followed: each poison and cover sample carries one pixel (an asymmetric trigger); cover samples keep their targets.

Default: the four pixels of backdoor-toolbox, in 32 x 32 images; its covers are 1 %, with their own targets, beside
poison of 0.3 % on CIFAR-10. Different here: which sample gets which pixel is drawn, where the toolkit deals them out
in quarters; in larger images the pixels become squares at the same places.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from drmlib.attacks.adaptive_patch import scaled
from drmlib.attacks.badnets import BadNets, check_shape
from drmlib.attacks.per_image import choice
from drmlib.data.dataset import chunks, like

PLACES = ((16, 11), (27, 5), (7, 30), (22, 22))  # row, column in an image of 32 x 32
COLOURS = ((92, 0, 24), (88, 112, 110), (0, 32, 46), (11, 49, 95))  # of 255


class KWay(NamedTuple):
    """Trigger of training, x' = pattern where mask j, x elsewhere, j one of the k masks, an image's own.

    pattern (c, h, w) in [0, 1]; masks (k, h, w) bool; another seed deals other masks. Takes and returns images
    (n, c, h, w), float or uint8; the uint8 path copies bytes and never leaves them.

    >>> trigger = pixels(height=32, width=32)
    >>> poisoned = poison(dataset, trigger, AllToOne(0), rate=0.003, cover_rate=0.01, generator=generator)
    >>> measure_classifier(model, test, trigger.inference(), AllToOne(0))
    """

    pattern: Tensor
    masks: Tensor
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        check_shape(images, self.pattern)
        pattern, masks = like(self.pattern, images).to(images.device), self.masks.to(images.device)
        drawn = [choice(part, len(masks), seed=self.seed) for part in chunks(images)]
        return torch.where(masks[torch.cat(drawn), None], pattern, images)

    def inference(self) -> BadNets:
        """The trigger at test: all pixels at once."""
        return BadNets(self.pattern, self.masks.any(0))


def pixels(*, channels: int = 3, height: int = 32, width: int = 32, seed: int = 0) -> KWay:
    """A KWay of the toolkit's four pixels, scaled to the image; grey images get the colours' means.

    Raises ValueError for other than one or three channels.
    """
    if channels not in (1, 3):
        raise ValueError(f"the colours are red, green, blue: expected 3 channels, or 1 for grey, got {channels}")
    colours = torch.tensor(COLOURS) / 255
    colours = colours if channels == 3 else colours.mean(1, keepdim=True)
    pattern = torch.zeros(channels, height, width)
    masks = torch.zeros(len(PLACES), height, width, dtype=torch.bool)
    for mask, (row, column), colour in zip(masks, PLACES, colours, strict=True):
        top, left, a, b = scaled((row, column, 1, 1), height=height, width=width)
        mask[top : top + a, left : left + b] = True
        pattern[:, mask] = colour[:, None]
    return KWay(pattern, masks, seed)
