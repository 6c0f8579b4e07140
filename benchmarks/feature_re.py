"""Whether FeatureRE finds the attacked class of a classifier of signs: `python -m benchmarks.feature_re benign grid`.

Not speed but effect. For each attack the mixed value of the attacked class, 0, and of --others, with the mask over the
last map before the pooling of SmallCNN. Models are trained, or come from the cache; a line of JSON for every model.
About a minute a class on one core. The figures are in the README's table.
"""

import argparse
import json

from torch import nn

from drmlib import session
from drmlib.attacks.targets import AllToOne
from drmlib.inversion.feature_re import feature_re
from drmlib.inversion.feature_re_search import Split
from drmlib.lab import attacks, victims
from drmlib.lab.victims import Material
from drmlib.rng import stream

RATES = {"grid": 0.05}  # notebook 09's; else the attack's own


def before_pooling(model: nn.Module) -> Split:
    """SmallCNN in two parts, where the authors cut their ResNet."""
    body = model.body
    return body[:6], lambda features: model.head(body[6:](features))  # type: ignore[index, operator]


def suspect(name: str, source: Material) -> nn.Module:
    """The classifier poisoned by the attack called `name`, or the benign one."""
    if name == "benign":
        return victims.victim(source, source.train, seed=0, name=name)
    staged = attacks.stage(name, source, AllToOne(0), profile="quick", seed=0, rate=RATES.get(name, 0.0))
    return victims.victim(source, staged.poisoned.dataset, seed=0, name=name)


def compare(names: list[str], others: list[int], steps: int, device: str) -> None:
    """Prints a line for every model."""
    source = victims.material("signs", "quick", seed=0, device=session.device(device))
    for name in names:
        model, g = suspect(name, source), stream(0, "feature_re", device=source.train.device)
        found = feature_re(
            model,
            source.defender.images,
            len(source.train.task.outputs),
            candidates=[0, *others],
            split=before_pooling(model),
            steps=steps,
            generator=g,
        )
        scores = dict(zip(found.candidates.tolist(), found.scores.tolist(), strict=True))
        terms = {key: value.item() for key, value in found.terms._asdict().items()}
        line = {"model": name, "scores": scores, "class": found.target, "flagged": found.flagged, "terms": terms}
        print(json.dumps({**line, "success alone": found.success}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--others", nargs="*", type=int, default=[3])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    compare(given.names, given.others, given.steps, given.device)
