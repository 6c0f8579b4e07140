"""How well DRMGuard tells backdoored regression models from benign ones: `python -m benchmarks.drmguard gaze`.

Not speed but effect. For each attack `--models` backdoored models, each with a seed, target and trigger of its own, as
many benign ones, and `--reference` more benign ones on which alone the threshold is chosen. Models are trained, or come
from the cache; what was measured is printed line by line as JSON. The second stage has the paper's weights.
"""

import argparse
import json
import math

from drmlib.inversion.constancy import GAZE_WEIGHTS, HEAD_POSE_WEIGHTS
from drmlib.inversion.drmguard import DRMGuard, drmguard
from drmlib.lab import session, suspects, victims
from drmlib.lab.suspects import Suspect
from drmlib.rng import stream

ATTACKS = ("random_patch", "wanet", "input_aware", "clean_label")
WEIGHTS = {"gaze": GAZE_WEIGHTS, "head_pose": HEAD_POSE_WEIGHTS}


def rows(dataset: str, attacks: list[str], models: int, reference: int, profile: str, device: str) -> None:
    """Prints a line for every model, and for every attack how well scores tell its models from the benign ones."""
    source = victims.material(dataset, profile, seed=0, device=session.device(device))
    scores: dict[str, float] = {}

    def inspect(suspect: Suspect) -> None:
        g = stream(0, "drmguard", device=source.defender.device)
        found = drmguard(suspect.model, source.defender.images, objective=lambda: WEIGHTS[dataset], generator=g)
        scores[suspect.name] = found.score
        print(json.dumps(record(suspect, found)), flush=True)

    for seed in range(reference):
        inspect(suspects.benign(source, seed=suspects.REFERENCE + seed))
    limit = suspects.threshold(list(scores.values()))
    scores.clear()
    for seed in range(models):
        inspect(suspects.benign(source, seed=seed))
    benign = dict(scores)
    for attack in attacks:
        scores.clear()
        for seed in range(models):
            inspect(suspects.backdoored(attack, source, profile=profile, seed=seed))
        verdict = suspects.judge(benign | scores, lambda name: name not in benign, limit)
        print(f"## {dataset} {attack}: AUROC {verdict.auroc}, accuracy at {limit:.3f} {verdict.accuracy}", flush=True)


def record(suspect: Suspect, found: DRMGuard) -> dict:
    """What is known of a model and what was found, for one line."""
    record: dict = {
        "model": suspect.name,
        "score": found.score,
        "prices": found.prices.min(1).values.tolist(),
        "family": found.family,
        "change": found.recovered[found.family].change,
        "predicted": _degrees(found.predicted_target.tolist()),
    }
    if suspect.figures is not None and suspect.angle_variance_ratio is not None:
        record |= {name: estimate.value for name, estimate in suspect.figures._asdict().items()}
        record["ratio"] = suspect.angle_variance_ratio.tolist()
        record["first order"] = suspect.first_order_ratio.tolist()  # type: ignore[union-attr]
        record["target"] = _degrees(suspect.target)
    return record


def _degrees(angles) -> list[float]:
    return [round(math.degrees(angle), 2) for angle in angles]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+", choices=list(WEIGHTS))
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS))
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--reference", type=int, default=6)
    parser.add_argument("--profile", default="quick", choices=list(victims.PROFILES))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    for dataset in given.datasets:
        rows(dataset, given.attacks, given.models, given.reference, given.profile, given.device)


if __name__ == "__main__":
    main()
