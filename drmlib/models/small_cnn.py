"""SmallCNN: four 3x3 convolutions, two of them strided, 4x4 pooled features and one linear output layer.

The course's quick model. The first convolution has stride 2: at full resolution it would hold two fifths of the
activations and a twentieth of the arithmetic. Its windows overlap, so a trigger of one pixel is seen.

The output layer is linear with no activation, as DRMGuard (Du et al. 2024) assumes of a deep regression model: the
angle between `features` and a row of `head.weight` is then the angle of its feature-space analysis.
"""

from collections import OrderedDict

from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.models.normalise import Normalise


class SmallCNN(nn.Module):
    """Maps images (n, channels, h, w) in [0, 1], h and w at least 16, to (n, outputs).

    The convolutions have 2, 2, 4 and 4 times `width` channels (16 in the course's quick profile); features are
    (n, 8 * width), not negative.
    """

    def __init__(self, outputs: int, *, channels: int = 3, width: int = 16, generator: Generator) -> None:
        super().__init__()
        w = width
        with rng.seeded_layers(generator):
            self.body = nn.Sequential(
                OrderedDict(
                    normalise=Normalise((0.5,) * channels, (0.25,) * channels),
                    conv1=_block(channels, 2 * w, stride=2),
                    conv2=_block(2 * w, 2 * w),
                    conv3=_block(2 * w, 4 * w, stride=2),
                    conv4=_block(4 * w, 4 * w),
                    pool=nn.AdaptiveAvgPool2d(4),
                    flatten=nn.Flatten(),
                    linear=nn.Linear(64 * w, 8 * w),
                    relu=nn.ReLU(),
                )
            )
            self.head = nn.Linear(8 * w, outputs)

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (n, 8 * width)."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def _block(channels: int, width: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
