"""What each part of DRMGuard is worth: `python -m benchmarks.drmguard_ablations --models 4`.

Each variant scores the same benign and backdoored gaze models; a line tells the scores' range of each kind, the AUROC,
and, for variants of the published form, how many benign models its rule calls backdoored.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn

from drmlib import metrics, session
from drmlib.data.dataset import as_float
from drmlib.inversion.constancy import GAZE_WEIGHTS, hinge, ratio
from drmlib.inversion.drmguard import drmguard
from drmlib.inversion.drmguard_published import EPSILON, drmguard_published
from drmlib.inversion.trigger_families import Additive, Flows, Masks
from drmlib.inversion.trigger_networks import Blurred, ShuffledUNets, UNets
from drmlib.lab import suspects, victims
from drmlib.lab.suspects import Suspect
from drmlib.models.predict import predict
from drmlib.rng import stream


def _search(model: nn.Module, images: Tensor, *, few: int | None = None, generator: Generator, **settings) -> float:
    """drmguard's score; few: with that many of the images."""
    return drmguard(model, images[:few], steps=1, generator=generator, **settings).score


def _published(model: nn.Module, images: Tensor, *, generator: Generator, **settings) -> float:
    """The published form's mean |x' - x|."""
    return drmguard_published(model, images, generator=generator, **settings).score


SEARCH: dict[str, Callable[..., float]] = {
    "default": _search,
    "without attention": partial(_search, attend=False),
    "100 images instead of 500": partial(_search, few=100),
    "60 steps instead of 150": partial(_search, explore_steps=60),
    "masks and flows": partial(_search, families=(Masks, Flows)),
    "masks": partial(_search, families=(Masks,)),
    "flows": partial(_search, families=(Flows,)),
    "additive": partial(_search, families=(Additive,)),
    "generator that sees the image at 4 x 4 pixels": partial(_search, families=(Blurred,)),
    "generator that sees the image": partial(_search, families=(UNets,)),
    "the same, shuffled": partial(_search, families=(ShuffledUNets,)),
}
UNIVERSAL = partial(_published, family=Masks, warm_up_steps=0, steps=300)
PUBLISHED: dict[str, Callable[..., float]] = {
    "published: generator": _published,
    "published: generator, damped": partial(_published, attend=False, damp=True),
    "published: generator, no feature term": partial(_published, objective=GAZE_WEIGHTS._replace(feature=0)),
    "published: generator, no attention": partial(_published, attend=False),
    "universal mask, published weights": UNIVERSAL,
    "universal mask, no feature term": partial(UNIVERSAL, objective=GAZE_WEIGHTS._replace(feature=0)),
    "universal mask, no attention": partial(UNIVERSAL, attend=False),
    "universal mask, neither": partial(UNIVERSAL, objective=GAZE_WEIGHTS._replace(feature=0), attend=False),
    "universal mask, ratio": partial(UNIVERSAL, objective=GAZE_WEIGHTS._replace(feature=2, term=ratio)),
    "universal mask, hinge": partial(UNIVERSAL, objective=GAZE_WEIGHTS._replace(feature=2, term=hinge)),
}


def compare(name: str, suspected: list[Suspect], images: Tensor) -> None:
    """Prints the row of a variant: its scores of every kind of model, and how well they separate."""
    variant = session.lookup("variant", name, SEARCH | PUBLISHED)
    truth = torch.tensor([suspect.is_backdoored for suspect in suspected])
    scores = torch.tensor(
        [variant(s.model, images, generator=stream(0, "drmguard", device=images.device)) for s in suspected]
    )
    kinds = [suspect.name.rsplit(" ", 1)[0] for suspect in suspected]
    ranges = []
    for kind in dict.fromkeys(kinds):
        low, high = scores[[k == kind for k in kinds]].aminmax()
        ranges.append(f"{kind} {low:.3f} to {high:.3f}")
    below = int((scores[~truth] < EPSILON).sum())
    called = f", {below} of {int((~truth).sum())} benign below {EPSILON}" if name in PUBLISHED else ""
    print(f"| {name} | {' | '.join(ranges)} | {metrics.auroc(-scores, truth)}{called} |", flush=True)


def swapped(suspected: list[Suspect], images: Tensor) -> None:
    """Prints what is left of the outputs' variance when a family's edits go to the images that they were made for, and
    when each goes to another image: a code that only cancels what its own image says does not survive the exchange."""
    clean = as_float(images)
    for family in (Masks, Blurred, ShuffledUNets, UNets):
        for suspect in suspected:
            g = stream(0, "drmguard", device=images.device)
            trigger = drmguard(suspect.model, images, families=(family,), generator=g).trigger
            edit = trigger(clean) - clean
            benign = predict(suspect.model, clean).var(0)
            own, other = (
                (predict(suspect.model, (clean + given).clamp(0, 1)).var(0) / benign).max().item()
                for given in (edit, edit.roll(1, 0))
            )
            print(f"| {family.__name__} | {suspect.name} | {own:.3f} | {other:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attacks", nargs="*", default=["random_patch", "wanet", "input_aware"])
    parser.add_argument("--models", type=int, default=4, help="benign models, and as many backdoored ones an attack")
    parser.add_argument("--variants", nargs="*", default=[*SEARCH, *PUBLISHED], help="by name; all unless given")
    parser.add_argument("--swapped", action="store_true", help="first, whose edits survive on other images")
    parser.add_argument("--profile", default="quick", choices=list(victims.PROFILES))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    source = victims.material("gaze", given.profile, seed=0, device=session.device(given.device))
    suspected = [suspects.benign(source, seed=k) for k in range(given.models)]
    for attack in given.attacks:
        suspected += [suspects.backdoored(attack, source, profile=given.profile, seed=k) for k in range(given.models)]
    if given.swapped:
        swapped(suspected, source.defender.images)
    for name in given.variants:
        compare(name, suspected, source.defender.images)


if __name__ == "__main__":
    main()
