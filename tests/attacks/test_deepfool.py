import pytest
import torch

from drmlib.attacks.carlini_wagner import carlini_wagner
from drmlib.attacks.deepfool import deepfool
from drmlib.models.predict import classify
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from tests.problems import Flat, noise_images

MODEL = Flat(3 * 8 * 8, 4, generator=stream(0, "flat")).eval()
IMAGES = noise_images(6, low=0.3, high=0.7)
FIRST = classify(MODEL, IMAGES)


def ways(entered):
    """Projections (n, c, h, w) to the boundary with class `entered` (n,): (f_a - f_b) / |w_a - w_b|^2 (w_b - w_a)."""
    direction = MODEL.head.weight[entered] - MODEL.head.weight[FIRST]
    gap = -(direction * IMAGES.flatten(1)).sum(1) / direction.square().sum(1)
    return (direction * gap[:, None]).view_as(IMAGES).detach()


def test_on_a_linear_model_one_step_is_the_projection_to_the_nearest_boundary():
    """The closed form: min_k |f_k - f_k0| / |w_k - w_k0|, overshot by 2 %."""
    found = deepfool(MODEL, IMAGES)
    lengths = torch.stack([ways((FIRST + k) % 4).flatten(1).norm(dim=1) for k in (1, 2, 3)]).amin(0)
    torch.testing.assert_close((found - IMAGES).flatten(1).norm(dim=1), 1.02 * lengths, rtol=1e-4, atol=1e-6)
    assert (classify(MODEL, found) != FIRST).all()
    torch.testing.assert_close(deepfool(MODEL, IMAGES, steps=1), found)


def test_targeted_goes_to_the_boundary_with_that_class():
    """Against the class that leads; where no third one comes between, the closed form again."""
    wanted = (FIRST + 2) % 4
    found = deepfool(MODEL, IMAGES, targets=wanted)
    assert torch.equal(classify(MODEL, found), wanted)
    straight = IMAGES + 1.02 * ways(wanted)
    direct = classify(MODEL, straight) == wanted
    assert direct.sum() >= 2
    torch.testing.assert_close(found[direct], straight[direct], rtol=1e-4, atol=1e-5)


def test_targets_that_are_reached_and_no_steps_are_the_identity():
    assert torch.equal(deepfool(MODEL, IMAGES, targets=FIRST), IMAGES)
    assert torch.equal(deepfool(MODEL, IMAGES, steps=0), IMAGES)


def test_on_a_network_all_are_misled_in_range_and_batches_do_not_matter():
    network = SmallCNN(4, width=8, generator=stream(0, "weights")).eval()
    torch.nn.init.zeros_(network.head.bias)  # else one class wins in the whole range of an untrained network
    images = 0.25 + 0.5 * torch.rand(6, 3, 16, 16, generator=stream(0, "images"))
    found = deepfool(network, images)
    assert (classify(network, found) != classify(network, images)).all()
    assert found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(deepfool(network, images, batch_size=2), found, rtol=1e-3, atol=1e-4)
    best = carlini_wagner(network, images, classify(network, images), constant=1.0, searches=4, steps=200)
    near, nearest = ((x - images).flatten(1).norm(dim=1).mean() for x in (found, best))
    assert near < 1.5 * nearest


def test_fewer_candidates_look_at_the_highest_classes_only():
    """With two candidates the only boundary is that with the runner-up."""
    runner_up = MODEL(IMAGES).topk(2).indices[:, 1]
    found = deepfool(MODEL, IMAGES, candidates=2, steps=1)
    torch.testing.assert_close(found, IMAGES + 1.02 * ways(runner_up), rtol=1e-4, atol=1e-5)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="candidates >= 2 and steps >= 0, got 1 and 50"):
        deepfool(MODEL, IMAGES, candidates=1)
