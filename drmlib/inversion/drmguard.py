"""DRMGuard: is a deep regression model backdoored? Du, Liu, Jia, Lan, "Defending Deep Regression Models against
Backdoor Attacks" (2024), https://arxiv.org/abs/2411.04811.

Searches for the smallest edit x' of benign images under which the outputs, and the angles of the features to the output
weights, stop varying. Followed: the output-space, stealth and feature-space terms and the attention (constancy.py).

THIS IS NOT THE PAPER'S FORM, which stands in drmguard_published.py. That one trains an image-conditional U-Net and
compares mean |x' - x| with 0.03. As far as its form is public it does not separate benign from backdoored models here:
a generator that sees the image cancels the variance of any model by an adversarial code. What detects best here:

1. the edit must not depend on what there is to cancel. By default it is searched in three families: one mask and
   pattern for all images (Masks), one warp for all (Flows), and a generator that sees the image at 4 x 4 pixels
   (Blurred), for triggers that differ from image to image. Any other can be passed in (trigger_families.py,
   trigger_networks.py);
2. a first stage makes the outputs stand still in every direction, (up, right), (up, left) and so on, all side by side,
   and charges edits by the attention, so that wiping out what the model looks at is dear. A benign model asks about
   the same price of every direction; a backdoor is a short way in one. The price of a direction is its cost over the
   median of the others'; the score is the lowest geometric mean, over the families, of one direction's prices. It needs
   no benign model to compare with, and what families agree on counts: chance seldom makes the same direction cheap;
3. a second stage, the paper's objective, goes on from that direction to the trigger.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.attacks.poison import Trigger
from drmlib.inversion.constancy import LogHinge, Objective, attention
from drmlib.inversion.drmguard_stages import Explored, Recovered, explore, recover, signs
from drmlib.inversion.trigger_families import Family, Flows, Masks
from drmlib.inversion.trigger_networks import Blurred
from drmlib.models.predict import frozen, output_layer

THRESHOLD = 0.55  # 0.75 x the median score of 8 benign models, gaze 0.79, head pose 0.69, that no figure of ours uses


class DRMGuard(NamedTuple):
    """trigger: the recovered one; score: price of the cheapest direction, SMALL if backdoored, about 1 if not.

    direction: index of that one among `directions` (K, k) of -1 and 1; family: index of the family that is cheapest
    there, whose trigger this is; prices (F, K) of all families and directions.
    angle_variance_ratio and output_variance_ratio (k,): variance with the trigger over that without, each component;
    predicted_target (k,): mean output under the trigger, in the targets' unit. history (steps, 3): the larger ratio of
    angles and of outputs on each batch of the second stage, and the cost. directions (K, k) of -1 and 1;
    explored: the first stage of every family, in the order given; recovered: the second, by the family's index.
    """

    trigger: Trigger
    score: float
    direction: int
    family: int
    angle_variance_ratio: Tensor
    output_variance_ratio: Tensor
    predicted_target: Tensor
    history: Tensor
    directions: Tensor
    prices: Tensor
    explored: tuple[Explored, ...]
    recovered: dict[int, Recovered]

    @property
    def weights(self) -> tuple[float, ...]:
        """1 / price in the direction, for each of `recovered`: what to weigh their triggers by in a mixture."""
        return tuple(1 / self.prices[k, self.direction].item() for k in self.recovered)


def drmguard(
    model: nn.Module,
    images: Tensor,
    *,
    families: Sequence[Family] = (Masks, Flows, Blurred),
    objective: Callable[[], Objective] = LogHinge,
    attend: bool = True,
    explore_steps: int = 90,
    explore_batch_size: int = 16,
    steps: int = 60,
    batch_size: int = 64,
    every_family: bool = False,
    generator: Generator,
) -> DRMGuard:
    """The trigger that DRMGuard recovers from `model` with benign unlabelled `images` (n, c, h, w), and its score.

    model.head is one linear layer on model.features, with at most 6 outputs. objective: makes the second stage's
    (constancy.py). attend=False charges all pixels alike. every_family=True goes through the second stage with every
    family and not only with the one of the score: triggers to unlearn together (mitigation/unlearn.py, Mixture).
    """
    rng.check_device(generator, images)
    if len(images) < batch_size:
        raise ValueError(f"a batch needs {batch_size} images for its variance, got {len(images)}; lower batch_size")
    if not families:
        raise ValueError("expected at least one family of triggers to search, such as Masks, got none")
    weights = attention(model, images) if attend else torch.ones(images.shape[2:], device=images.device)
    directions = signs(output_layer(model).out_features, images.device)
    first = partial(explore, steps=explore_steps, batch_size=explore_batch_size, generator=generator)
    second = partial(recover, steps=steps, batch_size=batch_size, generator=generator)
    with frozen(model):
        explored = [
            first(model, images, family(images, directions, generator=generator), directions, weights)
            for family in families
        ]
        prices = torch.stack([found.price for found in explored])
        together = agreed(prices)
        direction = int(together.argmin())
        family = int(prices[:, direction].argmin())
        recovered = {
            k: second(model, images, explored[k].candidates.only(direction), objective(), weights)
            for k in (range(len(families)) if every_family else [family])
        }
    found = recovered[family]
    return DRMGuard(
        found.trigger,
        together[direction].item(),
        direction,
        family,
        found.angle_variance_ratio,
        found.output_variance_ratio,
        found.predicted_target,
        found.history,
        directions,
        prices,
        tuple(explored),
        recovered,
    )


def agreed(prices: Tensor) -> Tensor:
    """(K,) from the prices (F, K) of K directions in F families: the geometric mean of the two lowest, each at most 1,
    or the one there is."""
    return prices.clamp_max(1).sort(0).values[:2].log().mean(0).exp()
