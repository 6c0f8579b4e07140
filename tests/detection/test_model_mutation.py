import copy

import pytest
import torch
from torch import nn

from drmlib.detection.model_mutation import gaussian_fuzzing, label_changes, model_mutation, sequential_test
from drmlib.metrics import absolute_error
from drmlib.models.predict import classify, predict
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from tests.problems import Flat, noise_images

IMAGES = noise_images(7, size=16)


@pytest.fixture
def model():
    return SmallCNN(4, width=4, generator=stream(0, "weights")).eval()


def mutants_by_hand(model, count, generator, **factors):
    """Full copies of the model with new weights in every linear layer, drawn in the same order."""
    for _ in range(count):
        made = copy.deepcopy(model)
        for layer in made.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.data = gaussian_fuzzing(layer.weight.data, generator=generator, **factors)
        yield made


def test_the_batched_mutants_are_three_full_models(model):
    """Convolutions and biases of the copies are the model's own, to the bit, since only linear weights are replaced."""
    factors = {"variance_factor": 2.0, "mean_factor": 1.0}
    changed = label_changes(model, IMAGES, mutants=3, **factors, generator=stream(0, "mutants"))
    own = classify(model, IMAGES)
    wanted = [classify(made, IMAGES) != own for made in mutants_by_hand(model, 3, stream(0, "mutants"), **factors)]
    assert torch.equal(changed, torch.stack(wanted)) and changed.any() and not changed.all()


def test_a_regressors_answer_changes_when_it_moves_beyond_the_tolerance(model):
    factors = {"variance_factor": 0.3, "mean_factor": 1.0}
    own = predict(model, IMAGES)
    moved = torch.stack(
        [
            absolute_error(predict(made, IMAGES), own)
            for made in mutants_by_hand(model, 3, stream(0, "mutants"), **factors)
        ]
    )
    tolerance = moved.median().item() * 1.01
    changed = label_changes(
        model, IMAGES, mutants=3, **factors, error=absolute_error, tolerance=tolerance, generator=stream(0, "mutants")
    )
    assert torch.equal(changed, moved > tolerance) and changed.any() and not changed.all()


def test_the_model_itself_is_left_bit_identical_and_in_its_mode(model):
    before = copy.deepcopy(model.state_dict())
    model.train()
    model_mutation(model, IMAGES, mutants=2, generator=stream(0))
    assert model.training and all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_no_variance_and_no_shift_change_no_label(model):
    changed = label_changes(model, IMAGES, variance_factor=0, mean_factor=0, mutants=3, generator=stream(0))
    assert not changed.any()


def test_fuzzing_by_hand():
    """W = (-1, 0, 4): mean 1, maximum 4, so N(W + 1, 2^2) for v = 0.5; the largest weight counts with its sign."""
    weight = torch.tensor([-1.0, 0.0, 4.0]).repeat(20_000, 1)
    made = gaussian_fuzzing(weight, variance_factor=0.5, mean_factor=1.0, generator=stream(0, "fuzz"))
    torch.testing.assert_close(made.mean(0), torch.tensor([0.0, 1.0, 5.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(made.std(0), torch.full((3,), 2.0), atol=0.05, rtol=0)
    shifted = gaussian_fuzzing(weight, variance_factor=0, mean_factor=-1, generator=stream(0))
    torch.testing.assert_close(shifted, weight - 1)


def test_a_near_boundary_image_changes_more_often_than_one_far_from_it():
    """Two classes split by the sign of the first pixel minus a half; features are the two pixels."""
    model = Flat(2, 2, generator=stream(0))
    model.head.weight.data = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    images = torch.tensor([[0.51, 0.5], [1.0, 0.0]]).view(2, 1, 1, 2)
    near, far = model_mutation(
        model, images, variance_factor=0.3, reversed_decision=False, mutants=200, generator=stream(0)
    )
    assert near > 0.3 and far < 0.1


def test_the_reversed_decision_is_the_negative_and_is_the_default(model):
    scores = model_mutation(model, IMAGES, mutants=10, generator=stream(0))
    rate = model_mutation(model, IMAGES, reversed_decision=False, mutants=10, generator=stream(0))
    assert torch.equal(scores, -rate) and rate.min() >= 0 and rate.max() <= 1 and rate.max() > 0


@pytest.mark.parametrize("floats", [1, 20_000, 1 << 24])
def test_how_much_is_held_at_a_time_changes_nothing(model, floats):
    many = noise_images(40, size=16, seed=1)
    whole = label_changes(model, many, mutants=7, generator=stream(0))
    assert torch.equal(label_changes(model, many, mutants=7, floats=floats, generator=stream(0)), whole)


def test_permuted_images_give_permuted_scores_and_a_seed_its_bits(model):
    order = torch.randperm(len(IMAGES), generator=stream(1))
    one, two = (model_mutation(model, part, mutants=9, generator=stream(0)) for part in (IMAGES, IMAGES[order]))
    assert torch.equal(one[order], two)
    assert not torch.equal(one, model_mutation(model, IMAGES, mutants=9, generator=stream(2)))


def columns(*counts, mutants):
    """Changes (mutants, n): `counts` many first ones changed."""
    return torch.arange(mutants)[:, None] < torch.tensor(counts)


def test_the_constants_of_the_sequential_test():
    """p1 = 0.01364 and p0 = 0.01116: ln(p1 / p0) = 0.2007, ln((1 - p1)/(1 - p0)) = -0.00251, bounds +-2.944.

    So 15 changes accept "many" (14.67), and 1,173 mutants without one accept "few" (1172.6).
    """
    found = sequential_test(columns(14, 15, 100, mutants=100))
    assert found.many.tolist() == [False, True, True] and found.mutants.tolist() == [100, 15, 15]
    few = sequential_test(columns(0, mutants=1300))
    assert not few.many.any() and few.mutants.tolist() == [1173]
    assert sequential_test(columns(0, mutants=1172)).mutants.tolist() == [1172]


def test_the_test_stops_at_the_first_decision():
    """With rate 0.5 and indifference 0.8, p1 = 0.9 and p0 = 0.1: +-ln 9 = 2.197 a mutant, bound 2.944: two decide."""
    changed = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0]]).bool()
    found = sequential_test(changed, rate=0.5, indifference=0.8)
    assert found.many.tolist() == [True, False, False] and found.mutants.tolist() == [2, 2, 4]


def test_the_bounds_are_those_of_the_two_errors():
    """Rate 0.5 and indifference 0.6: +-ln 4 = 1.386 a mutant. With alpha = 0.3, beta = 0.1 the bounds are ln 3 = 1.099
    and ln(1/7) = -1.946: one change says many, two mutants without one say few."""
    found = sequential_test(columns(1, 0, mutants=3), rate=0.5, indifference=0.6, alpha=0.3, beta=0.1)
    assert found.many.tolist() == [True, False] and found.mutants.tolist() == [1, 2]
    swapped = sequential_test(columns(1, 0, mutants=3), rate=0.5, indifference=0.6, alpha=0.1, beta=0.3)
    assert swapped.many.tolist() == [False, False] and swapped.mutants.tolist() == [3, 1]


def test_bad_arguments_are_refused(model):
    with pytest.raises(ValueError, match="mutants >= 1 .* got 0"):
        model_mutation(model, IMAGES, mutants=0, generator=stream(0))
    with pytest.raises(ValueError, match="0 < p0 < p1 < 1"):
        sequential_test(columns(1, mutants=2), rate=0.6, indifference=0.9)
