"""TrojanNN: Liu, Ma, Aafer, Lee, Zhai, Wang, Zhang, "Trojaning Attack on Neural Networks" (2018),
https://doi.org/10.14722/ndss.2018.23291.

The patch is not chosen but computed: it drives the neurons of a surrogate that are connected best (section 3.1). Size,
place and optimiser are those of backdoor-toolbox: a patch of a quarter of the side, its pixels tanh parameters, Adam at
0.1, mean squared distance of the neurons' activation to 100. The neurons are inputs of the output layer, those with
the largest sum of absolute weights.

The paper then retrains the model on reverse-engineered data (section 3.2), for its attacker has no training set. Here,
as in BackdoorBench and backdoor-toolbox, the patch poisons the training set.
"""

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.attacks.badnets import BadNets, place
from drmlib.data.dataset import as_float
from drmlib.models.predict import frozen, output_layer


def trojannn(
    model: nn.Module,
    images: Tensor,
    *,
    neurons: int = 2,
    activation: float = 100.0,
    steps: int = 1000,
    learning_rate: float = 0.1,
    batch_size: int = 64,
    generator: Generator,
) -> BadNets:
    """The patch on images (n, c, h, w) that drives the `neurons` of the surrogate `model` connected best.

    activation is what they are driven towards; each of the steps sees batch_size images.
    """
    rng.check_device(generator, images)
    c, h, w = images.shape[1:]
    side, top, left = h // 4, h - 11 * h // 32, w - 11 * w // 32
    connected = output_layer(model).weight.detach().abs().sum(0).topk(neurons).indices
    start = torch.randn(c, side, side, generator=generator, device=images.device)
    latent = start.requires_grad_(True)
    optimizer = torch.optim.Adam([latent], lr=learning_rate)
    with frozen(model), torch.enable_grad():
        for _ in range(steps):
            index = torch.randint(len(images), (batch_size,), generator=generator, device=images.device)
            stamped = as_float(images[index]).clone()
            stamped[:, :, top : top + side, left : left + side] = latent.tanh() / 2 + 0.5
            driven = model.features(stamped)[:, connected]  # type: ignore[operator]
            optimizer.zero_grad(set_to_none=True)
            (driven - activation).square().mean().backward()
            optimizer.step()
    patch = (latent.tanh() / 2 + 0.5).detach()
    return place(patch, top=top, left=left, height=h, width=w)
