"""What MESA finds and removes, pattern by pattern: `python -m benchmarks.mesa --patterns 170 21 99 14 186 --colours 3`.

For each roaming patch: the attack, the class that the generators point to, and attack success and clean accuracy after
retraining with each arm of drmlib.lab.mesa_arms. The paper's sizes on CIFAR-10, and its attacker who fine-tunes a clean
model, are `--dataset cifar10 --profile standard --train 50000 --clean 8000 --test 2000 --fine-tuned --rate 0.01
--rounds 10 --epochs 10 --batch 100 --share 0.01`.
"""

import argparse
from dataclasses import replace

import torch

from drmlib import session
from drmlib.attacks.roaming_patch import binary, coloured
from drmlib.inversion.mesa import class_success
from drmlib.lab import mesa_arms, victims
from drmlib.lab.victims import Material
from drmlib.mitigation.fine_tune import BATCH_SIZE, EPOCHS, repair_recipe
from drmlib.rng import stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="signs", choices=[*victims.DATASETS])
    parser.add_argument("--patterns", nargs="*", type=int, default=[170, 21, 99, 14, 186])
    parser.add_argument("--colours", type=int, default=3)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=20, help="epochs of the attacker's training")
    parser.add_argument("--fine-tuned", action="store_true", help="the attacker starts from a clean model, not anew")
    parser.add_argument("--attack-batch", type=int, help="of the clean and the attacker's training; the recipe's else")
    parser.add_argument("--bfloat16", action="store_true", help="train in mixed precision")
    parser.add_argument("--train", type=int, help="training samples; the profile's unless given")
    parser.add_argument("--clean", type=int, help="the defender's samples")
    parser.add_argument("--test", type=int, help="test samples")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of retraining")
    parser.add_argument("--batch", type=int, default=BATCH_SIZE, help="of retraining")
    parser.add_argument("--share", nargs="+", type=float, default=[0.1], help="of each retraining batch with a trigger")
    parser.add_argument("--learning-rate", type=float, help="peak of retraining; else a repair's")
    parser.add_argument("--live-norms", action="store_true", help="batch norm learns from the defender's samples too")
    parser.add_argument("--restarts", type=int, default=3, help="of points and of distributions")
    parser.add_argument("--few-arms", action="store_true", help="without single levels and the unknown size")
    parser.add_argument("--detect", type=int, default=2, help="patterns on which the class is searched for too")
    parser.add_argument("--profile", default="quick", choices=list(victims.PROFILES))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    source = _material(given)
    images, settings = source.defender.images, mesa_arms.SETTINGS[given.profile]
    recipe = replace(
        repair_recipe(source.recipe), epochs=given.epochs, batch_size=given.batch, frozen_norms=not given.live_norms
    )
    if given.learning_rate:
        recipe = replace(recipe, learning_rate=given.learning_rate)
    hidden = {str(code): binary(code) for code in given.patterns}
    hidden |= {f"colour {k}": coloured(generator=stream(k, "colour")) for k in range(given.colours)}
    start = victims.victim(source, source.train, seed=0, name="clean") if given.fine_tuned else None
    attack = {"rate": given.rate, "rounds": given.rounds, "seed": 0, "start": start}
    for number, (name, trigger) in enumerate(hidden.items()):
        model = mesa_arms.backdoored(source, trigger, 0, name=name, **attack)
        if number < given.detect:
            g = stream(0, "scan", device=images.device)
            success = class_success(model, images, len(source.train.task.outputs), generator=g, **settings)
            print(f"| {name} | generators | {success[0]:.2f} | others {success[1:].max():.2f} |", flush=True)
        triggers = mesa_arms.arms(model, images, trigger, 0, restarts=given.restarts, seed=0, **settings)
        if not given.few_arms:
            triggers |= mesa_arms.further_arms(model, images, trigger, 0, seed=0, **settings)
        for share in given.share:
            found = mesa_arms.retrained(model, source, triggers, trigger, 0, recipe=recipe, share=share, seed=0)
            for arm, figures in found.items():
                rates = ", ".join(f"{f.attack_success_rate.value:.3f}" for f in figures)
                clean = min(f.clean_accuracy.value for f in figures)
                print(f"| {name} | {share:g} | {arm} | {rates} | {clean:.3f} |", flush=True)


def _material(given: argparse.Namespace) -> Material:
    sizes = victims.PROFILES[given.profile]
    train, clean, test = given.train or sizes.train, given.clean or sizes.defender, given.test or sizes.test
    photo_train = given.train or sizes.photo_train
    sizes = sizes._replace(train=train, photo_train=photo_train, defender=clean, test=test)
    source = victims.DATASETS[given.dataset](sizes, 0, session.device(given.device))
    batch = given.attack_batch or source.recipe.batch_size
    autocast = torch.bfloat16 if given.bfloat16 else None
    return source._replace(recipe=replace(source.recipe, batch_size=batch, autocast=autocast))


if __name__ == "__main__":
    main()
