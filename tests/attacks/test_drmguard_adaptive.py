from dataclasses import replace

import pytest
import torch

from drmlib.attacks.badnets import square
from drmlib.attacks.drmguard_adaptive import drmguard_adaptive
from drmlib.attacks.measure import angle_variance_ratio, measure_regressor
from drmlib.attacks.poison import poison
from drmlib.attacks.targets import ConstantVector
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import REGRESSION
from tests.problems import slope_images

TRIGGER = square((1.0, 0.0, 0.0), side=4, height=16, width=16)
TARGET = ConstantVector((0.9, -0.9))
DATA = slope_images(300)


def trained(weight, seed=0):
    bad = poison(DATA, TRIGGER, TARGET, rate=0.2, generator=stream(0)).dataset
    model = SmallCNN(2, width=4, generator=stream(0))
    recipe = replace(REGRESSION, epochs=4, batch_size=32)
    history = drmguard_adaptive(model, bad, DATA, TRIGGER, recipe, weight=weight, generator=stream(seed))
    return model, history


def test_the_attacker_buys_angle_variance_with_attack_error():
    """Without the term the trigger quiets the angles; a heavy one keeps them moving, and outputs with them."""
    plain, history = trained(0.0)
    adaptive, _ = trained(1.0)
    assert len(history.loss) == 4 and history.loss[-1] < history.loss[0]
    ratios = [angle_variance_ratio(model, DATA, TRIGGER).min() for model in (plain, adaptive)]
    errors = [measure_regressor(model, DATA, TRIGGER, TARGET).attack_error.value for model in (plain, adaptive)]
    assert ratios[1] > 2 * ratios[0]
    assert errors[1] > errors[0]


def test_the_seed_decides():
    one, two, other = (trained(0.02, seed)[0].head.weight for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_bad_input():
    model = SmallCNN(2, width=4, generator=stream(0))
    for wrong in ({"samples": 1}, {"weight": -1.0}):
        with pytest.raises(ValueError, match="at least 2 samples"):
            drmguard_adaptive(model, DATA, DATA, TRIGGER, REGRESSION, **wrong, generator=stream(0))
