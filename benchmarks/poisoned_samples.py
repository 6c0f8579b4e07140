"""How well every detector finds every attack: `python -m benchmarks.poisoned_samples signs --attacks grid tact`.

Not speed but effect: each attack is carried out as lab/attacks.py has it, a victim is trained, and each detector of
lab/detectors.py looks at it; the rows of a markdown table are printed as they come. With --retrain a new model is
trained on what a detector keeps, where it scores all samples and flags some, at most half. --every-sample has the slow
detectors score all samples too. --repairs adds what else a defender may do, and says what is left of the attack then.
Photographs are read from the folder DRMLIB_DATA. A method gets its rows here when it gets a name in detectors.METHODS.
"""

import argparse
import time
from collections.abc import Container

import torch
from torch import nn

from drmlib import session
from drmlib.attacks.measure import ClassifierFigures
from drmlib.attacks.targets import AllToOne
from drmlib.data.dataset import Dataset
from drmlib.lab import attacks, confused, detectors, isolated, repairs, victims
from drmlib.lab.detectors import Figures, Findings
from drmlib.lab.inspection import Inspection, Training
from drmlib.lab.repairs import Suspected
from drmlib.lab.staging import Staged
from drmlib.lab.victims import Material
from drmlib.mitigation.fine_tune import repair_recipe

DATASETS = ("signs", "digits", "cifar10", "cifar100", "gtsrb", "fashion_mnist")
ATTACKS = ("grid", "blend", "tact", "adaptive_blend", "wanet", "sig")
ABL = "ABL"
REPAIRS = ("fine-pruning", "unlearning", "NAD, rate by clean error", ABL)  # unlearning: Neural Cleanse's trigger
MOST_REMOVED = 0.5  # of the training set; who takes more for poison is of no use, and is not retrained


def rows(
    dataset: str,
    names: list[str],
    methods: list[str],
    repaired_by: list[str],
    profile: str,
    seed: int,
    device: str,
    *,
    retrain: Container[str],
    every_sample: bool,
) -> None:
    """Prints a row for each of the attacks `names` and each of the detectors `methods` on one data set.

    repaired_by: of REPAIRS, with a row each; retrain: the detectors whose findings a new model is trained without;
    every_sample: whether slow detectors score all samples, or 600.
    """
    data = victims.material(dataset, profile, seed=seed, device=session.device(device))
    effort = detectors.EFFORT[profile]
    network = detectors.learn_network(data.defender, effort, seed=seed)
    training = Training(victims.untrained(data, seed=seed + 1000), data.recipe, confused.SETTINGS[profile])
    print(f"\n## {dataset}, {profile}, seed {seed}, {len(data.train)} training images", flush=True)
    print(
        "| attack | poison + covers, victim | method | AUROC | TPR at 5 % FPR | TPR / FPR of its rule | seconds |",
        end="",
    )
    print(" retrained |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        staged = attacks.stage(name, data, AllToOne(0), profile=profile, seed=seed)
        model = victims.victim(data, staged.poisoned.dataset, seed=seed, name=name)
        about = f"{name} | {attack_in_words(staged, staged.measure(model, data.test))}"
        sample = detectors.sample_of(staged.poisoned.poison, poisoned=200, clean=400, seed=seed)
        sample = torch.arange(len(staged.poisoned.poison), device=sample.device) if every_sample else sample
        given = Inspection(
            model,
            staged.poisoned.dataset,
            data.defender,
            sample,
            network,
            effort,
            oracle_poison_count=int(staged.poisoned.poison.sum()),
            seed=seed,
            training=training,
        )
        for method in methods:
            found, figures = detectors.inspect(method, given, staged.poisoned.poison)
            after = retrained(found, staged, data, seed) if method in retrain else "–"
            print(f"| {about} | {method} | {in_words(figures)} | {after} |", flush=True)
        for repair in repaired_by:
            start = time.perf_counter()
            after = accuracy_and_success(staged.measure(repaired(repair, model, staged, data, seed), data.test))
            print(f"| {about} | {repair} | – | – | – | {time.perf_counter() - start:.1f} | {after} |", flush=True)


def attack_in_words(staged: Staged, figures: object) -> str:
    """Shares of poison and covers in per cent, clean accuracy, and how often the attack succeeds."""
    poison, cover = (100 * mask.float().mean().item() for mask in (staged.poisoned.poison, staged.poisoned.cover))
    return f"{poison:.1f} + {cover:.1f} %, {accuracy_and_success(figures)}"


def accuracy_and_success(figures: object) -> str:
    """Clean accuracy and attack success rate."""
    assert isinstance(figures, ClassifierFigures)  # regression data sets are no choice here
    return f"clean {figures.clean_accuracy.value:.3f}, success {figures.attack_success_rate.value:.3f}"


def in_words(figures: Figures) -> str:
    """AUROC, TPR at 5 % FPR, TPR and FPR of the method's own rule, seconds."""
    area = f"{figures.auroc.value:.3f} [{figures.auroc.low:.2f}, {figures.auroc.high:.2f}]"
    own = f"{figures.tpr.value:.2f} / {figures.fpr.value:.2f}"
    return f"{area} | {figures.tpr_at_5.value:.2f} | {own} | {figures.seconds:.1f}"


def retrained(found: Findings, staged: Staged, data: Material, seed: int) -> str:
    """The figures of a model trained on what is not flagged, or why there is none."""
    train: Dataset = staged.poisoned.dataset
    if len(found.flagged) < len(train):
        return "scores a part only"
    removed = found.flagged.float().mean().item()
    if not 0 < removed <= MOST_REMOVED:
        return f"flags {removed:.0%}"
    kept = torch.ones(len(train), dtype=torch.bool, device=train.device)
    kept[found.samples[found.flagged]] = False
    model = victims.victim(data, train[kept], seed=seed, name="on what is kept")
    return accuracy_and_success(staged.measure(model, data.test))


def repaired(repair: str, model: nn.Module, staged: Staged, data: Material, seed: int) -> nn.Module:
    """The victim after a repair by clean samples, or a model that ABL trained on the poisoned set in its place."""
    if repair == ABL:
        tuned = isolated.tuned(data, staged.poisoned.dataset, seed=seed)
        return isolated.unlearned(data, staged.poisoned.dataset, tuned, ABL, seed=seed)
    return repairs.repair(repair, Suspected(model, data.defender, repair_recipe(data.recipe), seed)).model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS), choices=list(attacks.CLASSIFIER))
    parser.add_argument("--methods", nargs="*", default=list(detectors.METHODS), choices=list(detectors.METHODS))
    parser.add_argument("--profile", default="quick", choices=list(victims.PROFILES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--retrain", nargs="*", metavar="METHOD", help="methods to retrain without; none named: all")
    parser.add_argument("--every-sample", action="store_true", help="slow detectors score all samples, not 600")
    parser.add_argument("--repairs", nargs="*", choices=REPAIRS, help="rows of these repairs too; none named: all")
    given = parser.parse_args()
    rows(
        given.dataset,
        given.attacks,
        given.methods,
        list(REPAIRS) if given.repairs == [] else given.repairs or [],
        given.profile,
        given.seed,
        given.device,
        retrain=given.methods if given.retrain == [] else given.retrain or (),
        every_sample=given.every_sample,
    )


if __name__ == "__main__":
    main()
