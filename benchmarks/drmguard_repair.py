"""What a trigger that DRMGuard recovers is worth for repair: `python -m benchmarks.drmguard_repair --models 3`.

A row for every backdoored gaze or head-pose model and every way to repair it with the same 500 clean labelled images:
fine-tuning, fine-pruning, NAD, ANP (--slow), unlearning with the one trigger of the search, with a mixture of all
families', and, which no defender can, with the true one. Errors in degrees.
"""

import argparse
from collections.abc import Callable
from functools import partial

from torch import nn

from benchmarks.drmguard_detection import WEIGHTS
from drmlib.attacks.measure import RegressorFigures, measure_regressor
from drmlib.attacks.targets import ConstantVector
from drmlib.inversion.drmguard import drmguard
from drmlib.lab import session, suspects, victims
from drmlib.lab.suspects import Suspect
from drmlib.lab.victims import Material
from drmlib.mitigation.anp import anp
from drmlib.mitigation.fine_pruning import fine_pruning
from drmlib.mitigation.fine_tune import fine_tune, repair_recipe
from drmlib.mitigation.nad import nad
from drmlib.mitigation.unlearn import Mixture, unlearn
from drmlib.rng import stream


def repairs(suspect: Suspect, source: Material, dataset: str, *, slow: bool) -> dict[str, Callable[[], nn.Module]]:
    """The ways to repair a model, each a function that returns the repaired one."""
    clean, recipe = source.defender, repair_recipe(source.recipe)
    g = partial(stream, 0, "repair", device=clean.device)
    assert suspect.trigger is not None  # it is backdoored
    found = drmguard(
        suspect.model,
        clean.images,
        objective=lambda: WEIGHTS[dataset],
        every_family=True,
        generator=stream(0, "drmguard", device=clean.device),
    )
    mixture = Mixture(tuple(one.trigger for one in found.recovered.values()), found.weights)
    ways = {
        "fine-tuning": lambda: fine_tune(suspect.model, clean, recipe, generator=g()),
        "fine-pruning": lambda: fine_pruning(suspect.model, clean, recipe, generator=g()),
        "NAD": lambda: nad(suspect.model, clean, recipe, generator=g()),
    }
    if slow:
        ways["ANP"] = lambda: anp(suspect.model, clean, recipe, generator=g())
    for name, trigger in {"recovered": found.trigger, "mixture": mixture, "true": suspect.trigger}.items():
        ways[f"unlearning, {name}"] = partial(unlearn, suspect.model, clean, trigger, recipe, generator=g())
    return ways


def row(name: str, way: str, figures: RegressorFigures) -> str:
    """A row of the table."""
    return f"| {name} | {way} | " + " | ".join(f"{one.value:.2f}" for one in figures) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="gaze", choices=list(WEIGHTS))
    parser.add_argument("--attacks", nargs="*", default=["random_patch", "wanet", "input_aware"])
    parser.add_argument("--models", type=int, default=3, help="of each attack")
    parser.add_argument("--slow", action="store_true", help="ANP too, 2,000 iterations a model")
    parser.add_argument("--profile", default="quick", choices=list(victims.PROFILES))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    source = victims.material(given.dataset, given.profile, seed=0, device=session.device(given.device))
    for attack in given.attacks:
        for seed in range(given.models):
            suspect = suspects.backdoored(attack, source, profile=given.profile, seed=seed)
            assert suspect.trigger is not None and suspect.target is not None and suspect.figures is not None
            print(row(suspect.name, "before", suspect.figures), flush=True)
            for way, repair in repairs(suspect, source, given.dataset, slow=given.slow).items():
                repaired = measure_regressor(repair(), source.test, suspect.trigger, ConstantVector(suspect.target))
                print(row(suspect.name, way, repaired), flush=True)


if __name__ == "__main__":
    main()
