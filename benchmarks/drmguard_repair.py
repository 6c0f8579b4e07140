"""What a trigger that DRMGuard recovers is worth for repair: `python -m benchmarks.drmguard_repair --models 3`.

A row for every backdoored gaze or head-pose model, each with a target of its own, and every way to repair it with the
same 500 clean labelled images: unlearning with the one trigger of the search, with a mixture of all families', and,
which no defender can, with the true one; beside them repairs of the bench by name. Errors in degrees.
"""

import argparse
from collections.abc import Iterator

from benchmarks.drmguard_detection import WEIGHTS
from drmlib import session
from drmlib.attacks.measure import RegressorFigures, measure_regressor
from drmlib.attacks.poison import Trigger
from drmlib.attacks.targets import ConstantVector
from drmlib.inversion.drmguard import drmguard
from drmlib.lab import repairs, suspects, victims
from drmlib.lab.repairs import Repaired, Suspected
from drmlib.mitigation.fine_tune import repair_recipe
from drmlib.mitigation.unlearn import Mixture


def ways(suspected: Suspected, true: Trigger, dataset: str, names: list[str]) -> Iterator[tuple[str, Repaired]]:
    """The repairs `names`, then unlearning with recovered triggers and with the true one."""
    for name in names:
        yield name, repairs.repair(name, suspected)
    found = drmguard(
        suspected.model,
        suspected.clean.images,
        objective=lambda: WEIGHTS[dataset],
        every_family=True,
        generator=suspected.stream("drmguard"),
    )
    mixture = Mixture(tuple(one.trigger for one in found.recovered.values()), found.weights)
    for name, trigger in {"recovered": found.trigger, "mixture": mixture, "true": true}.items():
        yield f"unlearning, {name}", repairs.unlearn_with(suspected, trigger)


def row(name: str, way: str, figures: RegressorFigures) -> str:
    """A row of the table."""
    return f"| {name} | {way} | " + " | ".join(f"{one.value:.2f}" for one in figures) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="gaze", choices=list(WEIGHTS))
    parser.add_argument("--attacks", nargs="*", default=["random_patch", "wanet", "input_aware"])
    parser.add_argument("--methods", nargs="*", default=["fine-tuning", "fine-pruning", "NAD"])
    parser.add_argument("--models", type=int, default=3, help="of each attack")
    parser.add_argument("--profile", default="quick", choices=list(victims.PROFILES))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    source = victims.material(given.dataset, given.profile, seed=0, device=session.device(given.device))
    for attack in given.attacks:
        for seed in range(given.models):
            suspect = suspects.backdoored(attack, source, profile=given.profile, seed=seed)
            assert suspect.trigger is not None and suspect.target is not None and suspect.figures is not None
            print(row(suspect.name, "before", suspect.figures), flush=True)
            suspected = Suspected(suspect.model, source.defender, repair_recipe(source.recipe), 0)
            for way, repaired in ways(suspected, suspect.trigger, given.dataset, given.methods):
                after = measure_regressor(repaired.model, source.test, suspect.trigger, ConstantVector(suspect.target))
                print(row(suspect.name, way, after), flush=True)


if __name__ == "__main__":
    main()
