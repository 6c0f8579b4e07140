"""What MESA finds and removes, pattern by pattern: `python -m benchmarks.mesa --patterns 170 21 99 14 186 --colours 3`.

For each roaming patch: the attack, the class that the generators point to, and attack success and clean accuracy after
retraining with each arm of drmlib.lab.mesa_arms.
"""

import argparse

from drmlib.attacks.poison import poison
from drmlib.attacks.roaming_patch import binary, coloured
from drmlib.attacks.targets import AllToOne
from drmlib.inversion.mesa import class_success
from drmlib.lab import mesa_arms, session, victims
from drmlib.rng import stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="signs")
    parser.add_argument("--patterns", nargs="*", type=int, default=[170, 21, 99, 14, 186])
    parser.add_argument("--colours", type=int, default=3)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--share", type=float, default=0.1, help="of each retraining batch that carries a trigger")
    parser.add_argument("--restarts", type=int, default=3, help="of points and of distributions")
    parser.add_argument("--detect", type=int, default=2, help="patterns on which the class is searched for too")
    parser.add_argument("--profile", default="quick", choices=list(victims.PROFILES))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    source = victims.material(given.dataset, given.profile, seed=0, device=session.device(given.device))
    images, settings = source.defender.images, mesa_arms.SETTINGS[given.profile]
    hidden = {str(code): binary(code) for code in given.patterns}
    hidden |= {f"colour {k}": coloured(generator=stream(k, "colour")) for k in range(given.colours)}
    for number, (name, trigger) in enumerate(hidden.items()):
        g = stream(0, "poison", device=images.device)
        poisoned = poison(source.train, trigger, AllToOne(0), rate=given.rate, generator=g)
        model = victims.victim(source, poisoned.dataset, seed=0, name=name)
        if number < given.detect:
            g = stream(0, "scan", device=images.device)
            success = class_success(model, images, len(source.train.task.outputs), generator=g, **settings)
            print(f"| {name} | generators | {success[0]:.2f} | others {success[1:].max():.2f} |", flush=True)
        triggers = mesa_arms.arms(model, images, trigger, 0, restarts=given.restarts, seed=0, **settings)
        found = mesa_arms.retrained(model, source, triggers, trigger, 0, share=given.share, seed=0)
        for arm, figures in found.items():
            rates = ", ".join(f"{f.attack_success_rate.value:.3f}" for f in figures)
            print(f"| {name} | {arm} | {rates} | {min(f.clean_accuracy.value for f in figures):.3f} |", flush=True)


if __name__ == "__main__":
    main()
