import math

import pytest
import torch
from torch.nn import functional as F

from drmlib.attacks.adversarial import pgd
from drmlib.attacks.badnets import square
from drmlib.attacks.label_consistent import LabelConsistent, distance_to
from drmlib.attacks.per_image import choice
from drmlib.attacks.poison import poison
from drmlib.attacks.targets import keep
from drmlib.rng import stream
from tests.problems import SIZE, Flat, colour_images, noise_images, slope_images

MODEL = Flat(3 * SIZE * SIZE, 4, generator=stream(0, "flat"))
PATCH = square((1.0, 0.0, 0.0), side=2, height=SIZE, width=SIZE)


def test_the_images_are_weakened_and_then_get_the_trigger():
    images = noise_images(5)
    made = LabelConsistent(MODEL, PATCH, torch.tensor(2), epsilon=0.1, step=0.05, steps=3)(images)
    weakened = pgd(MODEL, images, torch.full((5,), 2), epsilon=0.1, step=0.05, steps=3)
    assert torch.equal(made, PATCH(weakened))
    assert F.cross_entropy(MODEL(weakened), torch.full((5,), 2)) > F.cross_entropy(MODEL(images), torch.full((5,), 2))


def test_with_decoys_each_image_is_pushed_towards_its_own():
    images, decoys = noise_images(6), torch.tensor([0, 1, 3])
    made = LabelConsistent(MODEL, PATCH, torch.tensor(2), epsilon=0.1, step=0.05, steps=3, decoys=decoys)(images)
    own = decoys[choice(images, 3, seed=0)]
    assert F.cross_entropy(MODEL(made), own) < F.cross_entropy(MODEL(PATCH(images)), own)
    towards = pgd(MODEL, images, own, loss=lambda o, t: -F.cross_entropy(o, t), epsilon=0.1, step=0.05, steps=3)
    assert torch.equal(made, PATCH(towards))


def test_without_a_step_it_is_the_trigger_alone():
    images = noise_images(3)
    assert torch.equal(LabelConsistent(MODEL, PATCH, torch.tensor(0), steps=0)(images), PATCH(images))


def test_a_poisoned_set_keeps_its_labels_and_touches_the_target_class_only():
    data = colour_images(40)
    weakened = LabelConsistent(MODEL, PATCH, torch.tensor(1), steps=2)
    result = poison(data, weakened, keep, rate_of_eligible=0.5, eligible=data.targets == 1, generator=stream(0))
    assert torch.equal(result.dataset.targets, data.targets) and (data.targets[result.poison] == 1).all()


def test_for_regression_the_target_is_a_vector_and_the_nearest_are_poisoned():
    data = slope_images(30, size=SIZE)
    model = Flat(3 * SIZE * SIZE, 2, generator=stream(1, "flat"))
    weakened = LabelConsistent(model, PATCH, torch.tensor([0.1, 0.0]), loss=F.l1_loss, steps=2)
    ranking = distance_to(data, (0.1, 0.0))
    result = poison(data, weakened, keep, rate=0.2, ranking=ranking, generator=stream(0))
    assert ranking[result.poison].max() <= ranking[~result.poison].min()
    assert torch.equal(result.dataset.targets, data.targets)


def test_the_distance_is_the_task_error_by_hand():
    """The first target is the vector itself, and the absolute error of a target 0.3 off in one of two is 0.15."""
    data = slope_images(4, size=SIZE)
    first = tuple(data.targets[0].tolist())
    distance = distance_to(data, first)
    assert distance[0] == 0
    expected = (data.targets[1] - data.targets[0]).abs().mean().item()
    assert math.isclose(distance[1].item(), expected, rel_tol=1e-5)
    with pytest.raises(ValueError, match="use eligible="):
        distance_to(colour_images(5), (0.0,))
