"""Convolutional encoder and decoder from images to images, no skips: the generator of input-aware attacks.

Three levels of two 3x3 convolutions and a max-pooling each, a middle convolution, and the mirror image with bilinear
upsampling; every convolution followed by batch norm, ReLU after all but the last; output tanh(z) / 2 + 1/2 in [0, 1].
The layers are those of Nguyen and Tran (2020), "Input-Aware Dynamic Backdoor Attack".
"""

from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.models.normalise import Normalise


class Autoencoder(nn.Module):
    """Maps images (n, channels, h, w) in [0, 1], h and w divisible by 8, to (n, made, h, w) in [0, 1].

    made: channels of what it returns, `channels` unless said; width: channels of the first level (32 for patterns and
    16 for masks in the paper's CIFAR-10 nets).
    """

    def __init__(self, *, channels: int = 3, made: int | None = None, width: int = 32, generator: Generator) -> None:
        super().__init__()
        w = width
        with rng.seeded_layers(generator):
            self.encoder = nn.Sequential(
                Normalise((0.5,) * channels, (0.25,) * channels),
                *(*_pair(channels, w), nn.MaxPool2d(2)),
                *(*_pair(w, 2 * w), nn.MaxPool2d(2)),
                *(*_pair(2 * w, 4 * w), nn.MaxPool2d(2)),
                *_convolution(4 * w, 4 * w),
            )
            self.decoder = nn.Sequential(
                *(_doubled(), *_pair(4 * w, 4 * w, 2 * w)),
                *(_doubled(), *_pair(2 * w, 2 * w, w)),
                *(_doubled(), *_convolution(w, w), *_convolution(w, made or channels)[:-1]),
            )

    def features(self, images: Tensor) -> Tensor:
        """The code (n, 4 * width, h / 8, w / 8)."""
        if images.shape[-1] % 8 or images.shape[-2] % 8:
            raise ValueError(f"expected height and width divisible by 8, got {tuple(images.shape[-2:])}")
        return self.encoder(images)

    def head(self, features: Tensor) -> Tensor:
        """Images (n, made, h, w) in [0, 1] from the code."""
        return self.decoder(features).tanh() / 2 + 0.5

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def _convolution(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)


def _pair(channels: int, width: int, last: int | None = None) -> tuple[nn.Module, ...]:
    return (*_convolution(channels, width), *_convolution(width, last or width))


def _doubled() -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
