"""How well DRMGuard and its baselines tell backdoored regression models from benign ones, by their scores:
`python -m benchmarks.drmguard_detection gaze head_pose`.

Not speed but effect. For each attack `--models` backdoored models, each with a seed, target and trigger of its own, as
many benign ones, and `--reference` more benign ones on which alone the threshold is chosen. Models are trained, or come
from the cache; what was measured is printed line by line as JSON, the verdicts as rows of a table. DRMGuard's second
stage has the paper's weights. With --methods, Neural Cleanse and FeatureRE for regression see the same models.
"""

import argparse
import json
import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

from torch import Generator

from drmlib import metrics, session
from drmlib.inversion.constancy import GAZE_WEIGHTS, HEAD_POSE_WEIGHTS
from drmlib.inversion.drmguard import drmguard
from drmlib.inversion.feature_re_regression import feature_re_regression
from drmlib.inversion.neural_cleanse_regression import neural_cleanse_regression
from drmlib.lab import suspects, victims
from drmlib.lab.suspects import Suspect
from drmlib.lab.victims import Material
from drmlib.rng import stream

ATTACKS = ("random_patch", "wanet", "input_aware", "clean_label")
WEIGHTS = {"gaze": GAZE_WEIGHTS, "head_pose": HEAD_POSE_WEIGHTS}
ERRORS = {"gaze": metrics.gaze_error, "head_pose": metrics.head_pose_error}


def _drmguard(suspect: Suspect, source: Material, dataset: str, generator: Generator) -> dict[str, Any]:
    found = drmguard(suspect.model, source.defender.images, objective=lambda: WEIGHTS[dataset], generator=generator)
    return {
        "score": found.score,
        "prices": found.prices.tolist(),
        "direction": found.directions[found.direction].tolist(),
        "family": found.family,
        "change": found.recovered[found.family].change,
        "predicted": _degrees(found.predicted_target.tolist()),
    }


def _neural_cleanse(suspect: Suspect, source: Material, dataset: str, generator: Generator) -> dict[str, Any]:
    found = neural_cleanse_regression(suspect.model, source.defender.images, ERRORS[dataset], generator=generator)
    return {"score": found.score, "predicted": _degrees(found.target.tolist())}


def _feature_re(suspect: Suspect, source: Material, dataset: str, generator: Generator) -> dict[str, Any]:
    found = feature_re_regression(
        suspect.model, source.defender.images, ERRORS[dataset], restarts=2, generator=generator
    )
    return {"score": found.score, "predicted": _degrees(found.target.tolist())}


METHODS: dict[str, Callable[[Suspect, Material, str, Generator], dict[str, Any]]] = {
    "drmguard": _drmguard,
    "neural_cleanse": _neural_cleanse,
    "feature_re": _feature_re,
}


def compare(
    dataset: str, methods: list[str], attacks: list[str], models: int, reference: int, profile: str, device: str
) -> None:
    """Prints a line for every model and method, then for every method a row for each attack and for all together."""
    source = victims.material(dataset, profile, seed=0, device=session.device(device))
    scores: dict[str, dict[str, dict[str, float]]] = {method: {} for method in methods}

    def inspect(kind: str, suspected: Iterable[Suspect]) -> None:
        for suspect in suspected:
            for method in methods:
                g = stream(0, method, device=source.defender.device)
                found = METHODS[method](suspect, source, dataset, g)
                scores[method].setdefault(kind, {})[suspect.name] = found["score"]
                print(json.dumps({"dataset": dataset, "method": method, **known(suspect), **found}), flush=True)

    inspect("reference", (suspects.benign(source, seed=suspects.REFERENCE + k) for k in range(reference)))
    inspect("benign", (suspects.benign(source, seed=k) for k in range(models)))
    for attack in attacks:
        inspect(attack, (suspects.backdoored(attack, source, profile=profile, seed=k) for k in range(models)))
    for method, found in scores.items():
        limit = suspects.threshold(list(found["reference"].values()))
        benign = found["benign"]
        kinds = {attack: found[attack] for attack in attacks}
        for attack, backdoored in {**kinds, "all": {k: v for one in kinds.values() for k, v in one.items()}}.items():
            print(f"| {dataset} | {method} | {attack} | {_row(benign, backdoored, limit)} |", flush=True)


def known(suspect: Suspect) -> dict[str, Any]:
    """What is known of a model, for its line."""
    known: dict[str, Any] = {"model": suspect.name}
    if suspect.figures is not None and suspect.angle_variance_ratio is not None:
        known |= {name: estimate.value for name, estimate in suspect.figures._asdict().items()}
        known["ratio"] = suspect.angle_variance_ratio.tolist()
        known["first order"] = suspect.first_order_ratio.tolist()  # type: ignore[union-attr]
        known["target"] = _degrees(suspect.target or ())
    return known


def _row(benign: dict[str, float], backdoored: dict[str, float], limit: float) -> str:
    verdict = suspects.judge(benign | backdoored, backdoored.__contains__, limit)
    spread = f"{_range(benign.values())} | {_range(backdoored.values())}"
    return f"{spread} | {verdict.auroc} | {limit:.3f} | {verdict.accuracy}"


def _range(values: Collection[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def _degrees(angles: Iterable[float]) -> list[float]:
    return [round(math.degrees(angle), 2) for angle in angles]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+", choices=list(WEIGHTS))
    parser.add_argument("--methods", nargs="*", default=["drmguard"], choices=list(METHODS))
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS))
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--reference", type=int, default=4)
    parser.add_argument("--profile", default="quick", choices=list(victims.PROFILES))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    for dataset in given.datasets:
        compare(dataset, given.methods, given.attacks, given.models, given.reference, given.profile, given.device)


if __name__ == "__main__":
    main()
