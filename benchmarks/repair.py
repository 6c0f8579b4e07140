"""What every repair does to every attack: `python -m benchmarks.repair signs --attacks grid blend wanet`.

A row for each attack, model and repair, all with the same clean samples: figures and seconds. For a classifier clean
accuracy, attack success rate, robust accuracy and the defence effectiveness rating (1/2: nothing changed); for a
regressor clean error, attack error and defended attack error in degrees. The rows "unlearning, true trigger" know what
no defender does. benchmarks/repair.md has what came of it; what the search for a regressor's trigger adds, with other
targets, is in benchmarks/drmguard.md.
"""

import argparse
from collections.abc import Iterator

from torch import isin, nn, tensor

from drmlib import session
from drmlib.attacks.measure import robust_accuracy
from drmlib.attacks.targets import AllToOne, ConstantVector, degrees
from drmlib.data.dataset import Dataset
from drmlib.lab import attacks, repairs, victims
from drmlib.lab.repairs import Repaired, Suspected
from drmlib.lab.staging import Staged
from drmlib.metrics import Estimate, defence_effectiveness_rating
from drmlib.mitigation.fine_tune import repair_recipe

TARGETS = {"gaze": ConstantVector(degrees(12, -15)), "head_pose": ConstantVector(degrees(-30, 15, 10))}
RATES = {("signs", "grid"): 0.05}  # as in the notebooks; others at their attack's own
TRUE = "unlearning, true trigger"


def ways(staged: Staged, suspected: Suspected, names: list[str]) -> Iterator[tuple[str, Repaired]]:
    """The model as it is, and after each of the repairs `names`."""
    yield "before", Repaired(suspected.model, 0.0)
    for name in names:
        if name == TRUE:
            yield name, repairs.unlearn_with(suspected, staged.trigger)
        else:
            yield name, repairs.repair(name, suspected)


def figures(staged: Staged, model: nn.Module, test: Dataset) -> list[Estimate]:
    """Clean figure, attack figure, and how right the model is on triggered inputs."""
    found = list(staged.measure(model, test))
    if not test.task.is_regression:
        sources = isin(test.targets, tensor(staged.sources, device=test.device)) if staged.sources else None
        found.append(robust_accuracy(model, test, staged.trigger, staged.retarget, sources=sources))
    return found


def cells(found: list[Estimate], before: list[Estimate], *, regression: bool) -> list[str]:
    """The figures with 95 % intervals; for a classifier also the rating of the repair."""
    digits = 2 if regression else 3
    texts = [f"{one.value:.{digits}f} ({one.low:.{digits}f}–{one.high:.{digits}f})" for one in found]
    if regression:
        return texts
    rating = defence_effectiveness_rating(
        accuracy_before=before[0].value,
        accuracy_after=found[0].value,
        success_before=before[1].value,
        success_after=found[1].value,
    )
    return [*texts, f"{rating:.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=list(victims.DATASETS))
    parser.add_argument("--attacks", nargs="*", default=["grid", "wanet"])
    parser.add_argument("--methods", nargs="*", default=[], help="names as in drmlib/lab/repairs.py; all by default")
    parser.add_argument("--models", type=int, default=1, help="of each attack, seeds 0, 1, ..")
    parser.add_argument("--profile", default="quick", choices=list(victims.PROFILES))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    for seed in range(given.models):
        source = victims.material(given.dataset, given.profile, seed=seed, device=session.device(given.device))
        names = given.methods or [*repairs.repairs_for(source.defender), TRUE]
        retarget = TARGETS.get(given.dataset, AllToOne(0))
        for attack in given.attacks:
            rate = RATES.get((given.dataset, attack), 0.0)
            staged = attacks.stage(attack, source, retarget, profile=given.profile, seed=seed, rate=rate)
            model = victims.victim(source, staged.poisoned.dataset, seed=seed, name=attack)
            suspected = Suspected(model, source.defender, repair_recipe(source.recipe), seed)
            before = figures(staged, model, source.test)
            for way, repaired in ways(staged, suspected, names):
                found = figures(staged, repaired.model, source.test)
                texts = cells(found, before, regression=source.test.task.is_regression)
                print(f"| {attack} {seed} | {way} | {' | '.join(texts)} | {repaired.seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
