"""How well every attack works, as rows of a table: `python -m benchmarks.attacks signs gaze --only wanet bpp`.

Not speed but effect: each attack is carried out as lab/attacks.py has it, a victim is trained, and the figures are
printed beside those of the benign model of the same seed. Photographs are read from the folder DRMLIB_DATA.
"""

import argparse
import time

from torch import nn

from drmlib import session
from drmlib.attacks.measure import ClassifierFigures
from drmlib.attacks.targets import AllToOne, ConstantVector, degrees
from drmlib.data.dataset import Dataset
from drmlib.lab import attacks, victims
from drmlib.lab.staging import Staged

TARGETS = {"gaze": ConstantVector(degrees(12, -15)), "head_pose": ConstantVector(degrees(-30, 15, 10))}


def rows(dataset: str, names: list[str], profile: str, seed: int, device: str) -> None:
    """Prints a row for each of the attacks `names`, all there are by default, on one data set."""
    data = victims.material(dataset, profile, seed=seed, device=session.device(device))
    retarget = TARGETS.get(dataset, AllToOne(0))
    table = attacks.REGRESSOR if data.train.task.is_regression else attacks.CLASSIFIER
    benign = victims.victim(data, data.train, seed=seed, name="benign")
    print(f"\n## {dataset}, {profile}, seed {seed}, {len(data.train)} training images", flush=True)
    for name in names or table:
        start = time.perf_counter()
        staged = attacks.stage(name, data, retarget, profile=profile, seed=seed)
        learned = time.perf_counter() - start
        model = victims.victim(data, staged.poisoned.dataset, seed=seed, name=name)
        seconds = time.perf_counter() - start
        poisoned, covers = (mask.float().mean().item() for mask in (staged.poisoned.poison, staged.poisoned.cover))
        print(
            f"| {name} | {poisoned:.4f} + {covers:.4f} | {figures(staged, model, data.test)} "
            f"| benign {figures(staged, benign, data.test)} | {learned:.0f} s + {seconds - learned:.0f} s |",
            flush=True,
        )


def figures(staged: Staged, model: nn.Module, test: Dataset) -> str:
    """Clean figure and attack figure in words."""
    found = staged.measure(model, test)
    if isinstance(found, ClassifierFigures):
        return f"clean {found.clean_accuracy.value:.3f}, success {found.attack_success_rate.value:.3f}"
    return f"clean {found.clean_error.value:.2f}, attack {found.attack_error.value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+", choices=list(victims.DATASETS))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--profile", default="quick", choices=list(victims.PROFILES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    for dataset in given.datasets:
        rows(dataset, given.only, given.profile, given.seed, given.device)


if __name__ == "__main__":
    main()
