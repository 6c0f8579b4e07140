"""Confusion training against one training of the same model; and what it finds, attack by attack and seed by seed:

python -m benchmarks.confusion --attacks grid blend adaptive_blend --seeds 0 1 2 --controls
"""

import argparse
from dataclasses import replace

from torch import Tensor

from benchmarks.timing import Row, compare
from drmlib import session
from drmlib.attacks.measure import ClassifierFigures
from drmlib.attacks.targets import AllToOne
from drmlib.data.signs import signs
from drmlib.detection.confusion_settings import SMALL
from drmlib.detection.confusion_training import confusion
from drmlib.lab import attacks, confused, victims
from drmlib.lab.confused import Found
from drmlib.metrics import auroc
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, fit


def run(n: int = 600) -> list[Row]:
    """On n signs with as large a share of the steps, of 6,000 in the quick profile."""
    data, reserved = (signs(k, generator=stream(k, "signs")) for k in (n, max(16, n // 12)))
    steps = tuple(now._replace(steps=max(1, now.steps * n // 6000)) for now in SMALL.rounds)
    settings, recipe = replace(SMALL, rounds=steps), replace(CLASSIFICATION, epochs=8)
    model = SmallCNN(16, generator=stream(0, "weights"))

    def detection() -> None:
        confusion(model, data, reserved, model, settings=settings, generator=stream(0, "confusion"))

    def training() -> None:
        fit(SmallCNN(16, generator=stream(0, "weights")), data, recipe, generator=stream(0, "fit"))

    return [compare("Confusion training, against training the model", detection, training, repeats=3)]


def main() -> None:
    """One row a run: true and false positives, AUROC, ratio of the target class and the largest other, what is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="signs")
    parser.add_argument("--attacks", nargs="*", default=["grid", "blend", "adaptive_blend"])
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--controls", action="store_true")
    parser.add_argument("--profile", default="quick", choices=list(victims.PROFILES))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    settings = confused.SETTINGS[given.profile]
    for seed in given.seeds:
        source = victims.material(given.dataset, given.profile, seed=seed, device=session.device(given.device))
        for attack in given.attacks:
            staged = attacks.stage(attack, source, AllToOne(0), profile=given.profile, seed=seed, rate=given.rate)
            model = victims.victim(source, staged.poisoned.dataset, seed=seed, name=attack)
            before = staged.measure(model, source.test)
            assert isinstance(before, ClassifierFigures)
            for name, arm in confused.arms(source, settings, controls=given.controls).items():
                found = confused.search(source, staged.poisoned, model, arm, seed=seed, name=name)
                after = confused.retrained(source, staged, found, seed=seed)
                print(
                    f"| {attack} | {seed} | {name} | {row(found, staged.poisoned.poison, before, after)} |", flush=True
                )


def row(found: Found, poison: Tensor, before: ClassifierFigures, after: ClassifierFigures) -> str:
    """The figures of one run, cells of a Markdown table."""
    log_ratio = found.confusion.test.log_ratio
    return " | ".join(
        [
            f"{found.true_positive_rate.value:.3f}",
            f"{found.false_positive_rate.value:.3f}",
            f"{auroc(found.confusion.scores, poison).value:.4f}",
            f"{log_ratio[0].exp():.3g}, {log_ratio[1:].max().exp():.3g}",
            ", ".join(f"{x:.2f}" for x in found.survival(poison)),
            ", ".join(f"{x:.2f}" for x in found.survival(~poison)),
            f"{before.attack_success_rate.value:.3f}, {after.attack_success_rate.value:.3f}",
            f"{before.clean_accuracy.value:.3f}, {after.clean_accuracy.value:.3f}",
        ]
    )


if __name__ == "__main__":
    main()
