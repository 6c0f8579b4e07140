"""U-Net from images to images (Ronneberger et al. 2015), in the shape of SecureGaze's trigger generator.

Three levels with skips, every 3x3 convolution followed by batch norm, ReLU after all but the last two, whose output
tanh(z) / 2 + 1/2 lies in [0, 1]. Bilinear upsampling in the decoder; the middle keeps the third level's width.
"""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drmlib import rng
from drmlib.models.normalise import Normalise


class UNet(nn.Module):
    """Maps images (n, channels, h, w) in [0, 1], h and w divisible by 8, to (n, made, h, w) in [0, 1].

    made: channels of what it returns, `channels` unless said. width: channels of the first level (64 in SecureGaze's
    release, 2.66 million parameters).
    """

    def __init__(self, *, channels: int = 3, made: int | None = None, width: int = 64, generator: Generator) -> None:
        super().__init__()
        w = width
        with rng.seeded_layers(generator):
            self.normalise = Normalise((0.5,) * channels, (0.25,) * channels)
            self.down = nn.ModuleList([_pair(channels, w), _pair(w, 2 * w), _pair(2 * w, 4 * w)])
            self.middle = _convolution(4 * w, 4 * w)
            self.up = nn.ModuleList([_pair(8 * w, 2 * w), _pair(4 * w, w), _pair(2 * w, made or channels, last=True)])

    def features(self, images: Tensor) -> Tensor:
        """The middle of the U (n, 4 * width, h / 8, w / 8)."""
        return self._encode(images)[0]

    def head(self, features: Tensor, skips: list[Tensor]) -> Tensor:
        """Images (n, made, h, w) from the middle and the skips, coarsest first."""
        for block, skip in zip(self.up, skips, strict=True):
            wider = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
            features = block(torch.cat([wider, skip], 1))
        return features.tanh() / 2 + 0.5

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] % 8 or images.shape[-2] % 8:
            raise ValueError(f"expected height and width divisible by 8, got {tuple(images.shape[-2:])}")
        return self.head(*self._encode(images))

    def _encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, skips = self.normalise(images), []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        return self.middle(x), skips[::-1]


def _convolution(channels: int, width: int, *, relu: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


def _pair(channels: int, width: int, *, last: bool = False) -> nn.Sequential:
    return nn.Sequential(_convolution(channels, width, relu=not last), _convolution(width, width, relu=not last))
