"""The attacker who knows DRMGuard: `python -m benchmarks.drmguard_adaptive --models 3`.

For every weight lambda, gaze models that the attacker trains to keep the trigger's RAV at 1
(attacks/drmguard_adaptive.py), and what DRMGuard makes of them. A row for each: what the attack achieves, what the true
trigger leaves of the angles' variance, the score, the verdict at drmguard.THRESHOLD. Benign models are those of
benchmarks/drmguard_detection.py.
"""

import argparse

from drmlib import session
from drmlib.attacks.drmguard_adaptive import drmguard_adaptive
from drmlib.attacks.measure import angle_variance_ratio
from drmlib.inversion.drmguard import THRESHOLD, drmguard
from drmlib.lab import attacks, suspects, victims
from drmlib.rng import stream

WEIGHTS = (0.0, 0.002, 0.02, 0.2)  # the paper's is 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attacks", nargs="*", default=["random_patch", "wanet"])
    parser.add_argument("--weights", nargs="*", type=float, default=WEIGHTS)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--profile", default="quick", choices=list(victims.PROFILES))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    source = victims.material("gaze", given.profile, seed=0, device=session.device(given.device))
    device = source.train.device
    for attack in given.attacks:
        for weight in given.weights:
            for seed in range(given.models):
                target = suspects.random_target(source.train, seed=seed)
                staged = attacks.stage(attack, source, target, profile=given.profile, seed=seed)
                model = victims.untrained(source, seed=seed)
                drmguard_adaptive(
                    model,
                    staged.poisoned.dataset,
                    source.train,
                    staged.trigger,
                    source.recipe,
                    weight=weight,
                    generator=stream(seed, "adaptive", device=device),
                )
                figures = staged.measure(model, source.test)
                ratio = angle_variance_ratio(model, source.test, staged.trigger).tolist()
                found = drmguard(model, source.defender.images, generator=stream(0, "drmguard", device=device))
                verdict = "caught" if found.score < THRESHOLD else "missed"
                print(
                    f"| {attack} | {weight:g} | {seed} | "
                    + " | ".join(f"{one.value:.2f}" for one in figures)
                    + f" | {', '.join(f'{one:.3f}' for one in ratio)} | {found.score:.3f} | {verdict} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
