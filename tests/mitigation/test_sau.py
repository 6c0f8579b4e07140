import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from drmlib.mitigation.fine_tune import fine_tune
from drmlib.mitigation.sau import Weights, _learning_loss, _search_loss, divergence, sau, shared_perturbation
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, REGRESSION
from tests.mitigation.victim import RECIPE, figures
from tests.problems import colour_images, slope_images

MODELS = pytest.mark.parametrize("make", [SmallCNN, resnet18], ids=["SmallCNN", "resnet18"])
SMALL = {"budget": 0.1, "step": 0.1}  # half of what would turn one colour into another


def problem(make):
    data = colour_images(40, size=16)
    model = make(4, width=8, generator=stream(0, "model")).eval()
    return model, data, replace(CLASSIFICATION, epochs=2, batch_size=20, frozen_norms=True)


def test_the_divergence_by_hand():
    """(1/2, 1/2) and (1, 0) with middle (3/4, 1/4): 1/2 (1/2 ln 2/3 + 1/2 ln 2) + 1/2 ln 4/3 = 0.2158. Of a
    distribution with itself it is 0, of two that share nothing ln 2.
    """
    even, sure, other = torch.zeros(1, 2), torch.tensor([[50.0, -50.0]]), torch.tensor([[-50.0, 50.0]])
    assert divergence(even, sure).item() == pytest.approx(0.2158, abs=1e-4)
    assert divergence(sure, even).item() == pytest.approx(0.2158, abs=1e-4)
    assert divergence(even, even).item() == pytest.approx(0, abs=1e-6)
    assert divergence(sure, other).item() == pytest.approx(0.6931, abs=1e-4)


def test_the_loss_of_the_search_by_hand():
    """Three images of class 0. The first holds in both networks, (0.5, 0.5) each with class 0 the argmax: adversarial
    part -(ln 2 + ln 2) / 2. The second misleads the first network alone: of the other's half, p = 0.8, ln 0.8 / 2 is
    left, and the divergence of (0.2, 0.8) from (0.8, 0.2), 0.1927. The third misleads both to class 1: nothing.
    """
    first = torch.tensor([[0.5, 0.5], [0.2, 0.8], [0.1, 0.9]]).log()
    second = torch.tensor([[0.5, 0.5], [0.8, 0.2], [0.3, 0.7]]).log()
    answers, targets = (torch.zeros(3).long(),) * 2, torch.zeros(3).long()
    parts = [_search_loss((first, second), answers, targets, Weights(*weights)) for weights in ((1, 0), (0, 1))]
    assert parts[0].item() == pytest.approx((-0.6931 - 0.2231 / 2) / 3, abs=1e-4)
    assert parts[1].item() == pytest.approx(0.1927 / 3, abs=1e-4)


def test_the_loss_of_the_learning_by_hand():
    """Two images of class 0 that f0 calls 1 when changed; of the second it said so before. Outputs on clean ones
    (0.5, 0.5): ln 2. On changed ones p_1 = 0.75: -ln 0.25 / 2 = 0.6931 for the first. robust: -ln 0.25 for each.
    """
    outputs, changed = torch.zeros(2, 2), torch.tensor([[0.25, 0.75]] * 2).log()
    targets = torch.zeros(2).long()
    says, said = torch.tensor([[0.0, 1.0]] * 2), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    values = [
        _learning_loss(outputs, changed, targets, says, said, Weights(clean=c, robust=r, divergent=d)).item()
        for c, r, d in ((1, 0, 0), (0, 0, 1), (0, 1, 0))
    ]
    assert values == pytest.approx([0.6931, 0.6931, 1.3863], abs=1e-4)


def test_the_search_moves_both_to_one_class_within_the_budget(backdoored):
    """The network and its copy: what misleads one misleads the other, and 0.1 in every pixel is enough for most."""
    data = colour_images(30, size=16, seed=3)
    model, images = backdoored.eval().requires_grad_(False), data.images
    d = shared_perturbation(model, copy.deepcopy(model), images, data.targets, **SMALL)
    model.requires_grad_(True)
    assert d.abs().max() <= 0.1 + 1e-6 and not d.requires_grad
    misled = [(model(x).argmax(1) != data.targets).float().mean().item() for x in (images, images + d, images + 0.1)]
    assert misled[0] < 0.1 and misled[1] > 0.5 and misled[1] > misled[2]


@MODELS
def test_without_the_divergent_part_it_is_fine_tuning(make):
    model, data, recipe = problem(make)
    repaired = sau(model, data, recipe, weights=Weights(divergent=0.0), generator=stream(1)).state_dict()
    tuned = fine_tune(model, data, recipe, generator=stream(1)).state_dict()
    for name, value in tuned.items():
        torch.testing.assert_close(repaired[name], value)


def test_a_learned_backdoor_is_unlearned_and_the_clean_task_stays(backdoored):
    """With 60 clean samples; this small victim forgets its backdoor under fine-tuning of that rate as well."""
    clean, recipe = colour_images(60, size=16, seed=1), replace(RECIPE, learning_rate=1e-3, frozen_norms=True)
    accuracy, success = figures(sau(backdoored, clean, recipe, **SMALL, generator=stream(1)))
    assert figures(backdoored)[1] > 0.9 and success < 0.1 and accuracy > 0.95


@MODELS
def test_the_given_model_stays_and_the_copy_is_whole(make):
    model, data, recipe = problem(make)
    before = copy.deepcopy(model.state_dict())
    first, again = (sau(model, data, recipe, steps=1, generator=stream(2)) for _ in range(2))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    assert not torch.equal(first.head.weight, model.head.weight)
    assert all(p.requires_grad for p in first.parameters()) and not first.training
    assert not any(m._forward_pre_hooks for m in first.modules() if isinstance(m, nn.Module))


def test_a_regressor_is_refused():
    data = slope_images(20)
    with pytest.raises(ValueError, match="pair is a regression task"):
        sau(SmallCNN(2, width=4, generator=stream(0)), data, REGRESSION, generator=stream(0))
