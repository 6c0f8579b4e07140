"""ISSBA: Li, Li, Wu, Li, He, Lyu, "Invisible Backdoor Attack with Sample-Specific Triggers" (2021),
https://arxiv.org/abs/2012.03816.

An encoder hides a bit string in an image so that a decoder reads it back; the residual differs from image to image.
After both are trained on the attacker's own images with random strings (section 4.2), the trigger is the encoder with
one fixed string.

The authors load StegaStamp trained on other data; here encoder (a U-Net that also sees the string, spread over the
image by a linear layer) and decoder are trained on the data set itself. The residual is bounded by epsilon, in place
of StegaStamp's perceptual (LPIPS) and critic losses, which need networks trained elsewhere; loss: cross-entropy of the
bits plus `fidelity` times the mean squared residual.
"""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drmlib import rng
from drmlib.attacks.learned import Learned, adam, random_batches, ready
from drmlib.data.dataset import Dataset, as_float
from drmlib.models.small_cnn import SmallCNN
from drmlib.models.unet import UNet

SPREAD = 8  # the string is drawn on a grid of this many cells a side, then enlarged


class _Encoder(nn.Module):
    """Maps images (n, c, h, w) and bits (n, bits) in {0, 1} to images that hide the bits, within epsilon."""

    def __init__(self, *, channels: int, bits: int, width: int, epsilon: float, generator: Generator) -> None:
        super().__init__()
        self.epsilon = epsilon
        with rng.seeded_layers(generator):
            self.spread = nn.Linear(bits, channels * SPREAD * SPREAD)
            self.merge = nn.Conv2d(2 * channels, channels, 1)
        self.network = UNet(channels=channels, width=width, generator=generator)

    def forward(self, images: Tensor, bits: Tensor) -> Tensor:
        n, c, *size = images.shape
        drawn = F.interpolate(self.spread(bits - 0.5).view(n, c, SPREAD, SPREAD), size=size)
        residual = 2 * self.network(self.merge(torch.cat([images, drawn], 1))) - 1
        return (images + self.epsilon * residual).clamp(0, 1)


class Hidden(nn.Module):
    """Maps images to images that hide `secret` (bits,) in {0, 1}."""

    secret: Tensor

    def __init__(self, encoder: _Encoder, secret: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("secret", secret)

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images, self.secret.expand(len(images), -1))


def issba(
    dataset: Dataset,
    *,
    bits: int = 20,
    epsilon: float = 0.1,
    fidelity: float = 0.5,
    width: int = 32,
    steps: int = 10_000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    generator: Generator,
) -> tuple[Learned, nn.Module]:
    """The trigger, which hides one string of `bits`, and the decoder that maps images to its logits (n, bits)."""
    rng.check_device(generator, dataset.images, "the data set")
    channels, where = dataset.images.shape[1], dataset.device
    encoder = _Encoder(channels=channels, bits=bits, width=width, epsilon=epsilon, generator=generator)
    decoder = SmallCNN(bits, channels=channels, generator=generator)
    both = ready(nn.ModuleList([encoder, decoder]), dataset)
    optimizer = adam(both, learning_rate)
    for batch in random_batches(dataset, batch_size, steps, generator=generator):
        clean = as_float(batch.images)
        string = torch.randint(2, (len(clean), bits), generator=generator, device=where).float()
        hidden = encoder(clean, string)
        read = F.binary_cross_entropy_with_logits(decoder(hidden), string)
        loss = read + fidelity * (hidden - clean).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    both.eval()
    secret = torch.randint(2, (bits,), generator=generator, device=where).float()
    return Learned(Hidden(encoder, secret).eval()), decoder
