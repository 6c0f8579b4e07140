"""Adaptive-Patch: one of several faint patches in training, two opaque ones at test. Qi, Xie, Li, Mahloujifar, Mittal,
"Revisiting the Assumption of Latent Separability for Backdoor Defenses" (2023),
https://openreview.net/forum?id=_wSHsgrVali.

Followed: each poison and cover sample carries one patch (the paper's asymmetric trigger); cover samples, its
regularisation samples, keep their targets.

Default: backdoor-toolbox on CIFAR-10, four patches of opacity 0.5, 0.2, 0.5 and 0.3; at test the first and the third
at opacity 1 (on GTSRB the second and the fourth: `inference(patches=(1, 3))`); 0.3 % poison and 0.6 % cover samples.
BackdoorBox measures with the first half of the patches at training's opacity instead, and poisons 1 % with 2 % covers.
Different here: the patches are fixed random colours at the places and of the sizes of the toolkit's logos; which
sample gets which patch is drawn, where the toolkit deals them out in quarters.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from drmlib.attacks.badnets import BadNets, check_shape
from drmlib.attacks.per_image import choice
from drmlib.data.dataset import as_float, chunks, like

# Each patch is a set of boxes: top, left, height, width in an image of 32 x 32.
BOXES = (
    ((27, 27, 5, 5),),
    ((1, 18, 13, 13),),
    ((0, 0, 3, 3), (0, 29, 3, 3), (29, 0, 3, 3), (29, 29, 3, 3)),
    ((21, 21, 8, 8),),
)
OPACITIES = (0.5, 0.2, 0.5, 0.3)


class AdaptivePatch(NamedTuple):
    """Trigger of training, x' = x + weight_j (pattern_j - x), patch j one of the k, an image's own.

    patterns (k, c, h, w) and weights (k, h, w) in [0, 1], the opacity inside a patch and 0 outside; another seed deals
    other patches. Takes and returns images (n, c, h, w), float or uint8, which is rounded.

    >>> trigger = patches(generator=generator)
    >>> poisoned = poison(dataset, trigger, AllToOne(0), rate=0.003, cover_rate=0.006, generator=generator)
    >>> measure_classifier(model, test, trigger.inference(), AllToOne(0))
    """

    patterns: Tensor
    weights: Tensor
    seed: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        check_shape(images, self.patterns[0])
        patterns, weights = self.patterns.to(images.device), self.weights.to(images.device)
        return torch.cat([self._patched(part, patterns, weights) for part in chunks(images)])

    def inference(self, *, patches: tuple[int, ...] = (0, 2)) -> BadNets:
        """The trigger at test: these patches at once and opaque, later ones over earlier ones.

        Raises ValueError if there is no such patch.
        """
        if not patches or not all(0 <= j < len(self.patterns) for j in patches):
            raise ValueError(f"expected numbers of patches in 0..{len(self.patterns) - 1}, got {patches}")
        pattern = torch.zeros_like(self.patterns[0])
        for j in patches:
            pattern = torch.where(self.weights[j] > 0, self.patterns[j], pattern)
        return BadNets(pattern, (self.weights[list(patches)] > 0).any(0))

    def _patched(self, images: Tensor, patterns: Tensor, weights: Tensor) -> Tensor:
        drawn = choice(images, len(patterns), seed=self.seed)
        floats = as_float(images)
        pattern, weight = (given[drawn].to(floats.dtype) for given in (patterns, weights[:, None]))
        return like(torch.lerp(floats, pattern, weight), images)


def patches(
    *,
    opacities: tuple[float, ...] = OPACITIES,
    channels: int = 3,
    height: int = 32,
    width: int = 32,
    generator: Generator,
) -> AdaptivePatch:
    """An AdaptivePatch with fixed random colours in BOXES, scaled to the image.

    Raises ValueError unless there are as many opacities, in (0, 1], as patches.
    """
    if len(opacities) != len(BOXES) or not all(0 < opacity <= 1 for opacity in opacities):
        raise ValueError(f"expected {len(BOXES)} opacities in (0, 1], got {opacities}")
    weights = torch.zeros(len(BOXES), height, width, device=generator.device)
    for weight, opacity, boxes in zip(weights, opacities, BOXES, strict=True):
        for box in boxes:
            top, left, a, b = scaled(box, height=height, width=width)
            weight[top : top + a, left : left + b] = opacity
    patterns = torch.rand(len(BOXES), channels, height, width, generator=generator, device=generator.device)
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    return AdaptivePatch(patterns, weights, seed)


def scaled(box: tuple[int, int, int, int], *, height: int, width: int) -> tuple[int, int, int, int]:
    """A box (top, left, height, width) in 32 x 32 pixels, in an image of another size; at least one pixel is left."""
    top, left = min(round(box[0] * height / 32), height - 1), min(round(box[1] * width / 32), width - 1)
    below, right = round((box[0] + box[2]) * height / 32), round((box[1] + box[3]) * width / 32)
    return top, left, max(1, below - top), max(1, right - left)
