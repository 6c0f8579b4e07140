"""One inverted trigger, by gradient descent on the pixels of a patch: the baseline of MESA's paper, Qiao, Yang, Li
(2019), https://arxiv.org/abs/1910.04749.

min over a patch m of CE(f(A(m, x)), c), from random pixels, by SGD with momentum, clipped to [0, 1]. The authors stack
attack upon attack on one network and take patches found on one to repair another; here every restart is on the model
that is repaired. Restarts run side by side. Theirs clips after each of five passes over a tenth of the test images, in
normalised pixels; here after each of as many steps.
"""

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.attacks.roaming_patch import paste
from drmlib.data.dataset import as_float
from drmlib.inversion.mesa import Paste
from drmlib.models.predict import frozen


def point_triggers(
    model: nn.Module,
    images: Tensor,
    label: int,
    *,
    restarts: int = 10,
    size: int = 3,
    steps: int = 55,
    batch_size: int = 100,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    rule: Paste = paste,
    generator: Generator,
) -> Tensor:
    """Patches (restarts, c, size, size) in [0, 1], each of which alone sends images (n, c, h, w) to class `label`."""
    rng.check_device(generator, images)
    device, c = images.device, images.shape[1]
    patches = torch.rand(restarts, c, size, size, generator=generator, device=device).requires_grad_()
    optimizer = torch.optim.SGD([patches], lr=learning_rate, momentum=momentum)
    wanted = torch.full((restarts * batch_size,), label, device=device)
    with frozen(model):
        for _ in range(steps):
            index = torch.randint(len(images), (len(wanted),), generator=generator, device=device)
            place = torch.rand(len(wanted), 2, generator=generator, device=device)
            pasted = rule(as_float(images[index]), patches.repeat_interleave(batch_size, 0), place)
            loss = nn.functional.cross_entropy(model(pasted), wanted) * restarts  # a mean over each restart, summed
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                patches.clamp_(0, 1)
    return patches.detach()
