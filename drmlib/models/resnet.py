"""ResNet-18: He, Zhang, Ren and Sun (2016), "Deep residual learning for image recognition", CVPR, table 1.

For small images the stem is one 3x3 convolution of stride 1 and no pooling, which is how the backdoor literature runs
ResNet-18 on CIFAR-10 (11,173,962 parameters); section 4.2 of the paper has a smaller net of its own for CIFAR. A
shortcut that changes shape is a 1x1 convolution (option B). Weights start as torch's
layers draw them, not as the paper's.
"""

from collections import OrderedDict

from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.models.normalise import Normalise


class ResNet(nn.Module):
    """Maps images (n, c, h, w), float in [0, 1] or uint8, to (n, outputs): a head on a body; `resnet18` makes one."""

    def __init__(self, body: nn.Sequential, head: nn.Linear) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (n, 8 * width), not negative."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def resnet18(
    outputs: int,
    *,
    channels: int = 3,
    width: int = 64,
    small_images: bool = True,
    mean: tuple[float, ...] = (0.5,),
    std: tuple[float, ...] = (0.25,),
    generator: Generator,
) -> ResNet:
    """An untrained ResNet-18 with `outputs` outputs and 8 * width features, its weights drawn from `generator`.

    small_images: the stem for 32 x 32; else the paper's, 7x7 of stride 2 and max-pooling, for 224 x 224. mean and std
    normalise images in [0, 1], one number for all channels or one each.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ValueError(f"expected {name} of 1 or {channels} numbers, one a channel, got {len(values)}")
    with rng.seeded_layers(generator):
        body = nn.Sequential(
            OrderedDict(
                normalise=Normalise(mean, std),
                stem=_small_stem(channels, width) if small_images else _stem(channels, width),
                stage1=_stage(width, width, stride=1),
                stage2=_stage(width, 2 * width, stride=2),
                stage3=_stage(2 * width, 4 * width, stride=2),
                stage4=_stage(4 * width, 8 * width, stride=2),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )
        return ResNet(body, nn.Linear(8 * width, outputs))


class _BasicBlock(nn.Module):
    """relu(F(x) + x) with F two 3x3 convolutions, figure 2 of the paper."""

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride > 1:  # only where a stage begins, which is also where the channels double
            # A convolution of one pixel and this stride, in two steps: as one it corrupts the memory of torch 2.13 with
            # one thread, channels_last and fewer than 8 channels.
            self.shortcut = nn.Sequential(
                nn.MaxPool2d(1, stride=stride), nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.relu(residual + self.shortcut(x))


def _small_stem(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def _stem(channels: int, width: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))


def _stage(channels: int, width: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(_BasicBlock(channels, width, stride=stride), _BasicBlock(width, width, stride=1))
