import math

import pytest
import torch

from drmlib.inversion import neural_cleanse_regression as module
from drmlib.inversion.neural_cleanse_regression import adapted, neural_cleanse_regression, objective
from drmlib.metrics import absolute_error, gaze_error
from drmlib.models.predict import predict
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from tests.problems import PIXEL, PlantedRegressor, mid_grey_images, noise_images

STATE = (torch.Size((3, 8, 8)), 3, 1e-3, stream(0))
SHORT = {"tolerance": 0.3, "restarts": 3, "steps": 10, "batch_size": 4}


@pytest.fixture(scope="module")
def cleansed():
    models = [PlantedRegressor(backdoored=backdoored, generator=stream(0)) for backdoored in (False, True)]
    images = mid_grey_images(100)
    return models, [
        neural_cleanse_regression(model, images, absolute_error, tolerance=0.3, generator=stream(1)) for model in models
    ]


def test_the_planted_pixel_and_target_are_found(cleansed):
    (_, model), (_, found) = cleansed
    channel, row, column = PIXEL
    assert found.reached and found.success[found.norms.argmin()] > 0.9
    assert found.trigger.mask[0].argmax() == row * found.trigger.mask.shape[2] + column
    assert found.trigger.pattern[channel, row, column] > 0.55, "the planted pixel is made bright"
    target = model.head(torch.linspace(-2, 3, 16)).detach()
    assert (found.target - target).abs().max() < 0.3
    fresh = predict(model, found.trigger(mid_grey_images(50, seed=1)))
    assert (absolute_error(fresh, found.target.expand_as(fresh)) < 0.3).float().mean() > 0.9


def test_a_benign_model_needs_a_larger_mask(cleansed):
    _, (benign, backdoored) = cleansed
    assert backdoored.score < benign.score / 3


def test_objective_by_hand():
    """One restart, y = (1, 0), outputs (1, 2) and (0, -1): |.|_1 is 0 + 2 and 1 + 1, mean 2; 2 + 0.1 x 3 = 2.3."""
    outputs = torch.tensor([[[1.0, 2.0], [0.0, -1.0]]])
    found = objective(outputs, torch.tensor([[1.0, 0.0]]), torch.tensor([3.0]), torch.tensor([0.1]))
    torch.testing.assert_close(found, torch.tensor([2.3]))


def test_costs_by_hand():
    """4^1.5 = 8: from 8, 32 if good enough and 1 if not."""
    assert adapted(torch.tensor([8.0, 8.0]), torch.tensor([True, False]), factor=4.0).tolist() == [32.0, 1.0]


def test_starts_lie_in_the_range_of_the_clean_outputs():
    model, images = PlantedRegressor(backdoored=False, generator=stream(0)), noise_images(40)
    outputs = predict(model, images)
    found = neural_cleanse_regression(
        model, images, absolute_error, tolerance=0.3, restarts=20, steps=0, generator=stream(0)
    )
    low, high = outputs.aminmax(dim=0)
    assert ((found.targets >= low) & (found.targets <= high)).all()
    assert ((found.targets.amax(0) - found.targets.amin(0)) > 0.6 * (high - low)).all(), "and fill it"


def test_restarts_in_one_batch_move_as_each_would_alone():
    """The first restart with and without two more beside it, through two changes of its cost."""
    model, images = PlantedRegressor(backdoored=True, generator=stream(0)), mid_grey_images(40)
    few, more = (
        neural_cleanse_regression(model, images, absolute_error, **{**SHORT, "restarts": restarts}, generator=stream(0))
        for restarts in (1, 3)
    )
    for field in ("masks", "patterns", "targets", "norms", "success"):
        torch.testing.assert_close(getattr(more, field)[:1], getattr(few, field), atol=1e-4, rtol=1e-4)
    assert not torch.equal(more.masks[0], more.masks[1])


def test_a_restart_that_never_works_does_not_win():
    """A tolerance that nothing meets: the smallest mask is reported, and that it does not work."""
    model, images = PlantedRegressor(backdoored=True, generator=stream(0)), mid_grey_images(40)
    found = neural_cleanse_regression(model, images, absolute_error, **{**SHORT, "tolerance": 0.0}, generator=stream(0))
    assert not found.reached and not found.held.any() and not found.success.any()
    assert found.score == found.norms.min().item()


def test_a_smaller_mask_that_does_not_work_loses():
    """Three restarts with masks of 64 sigmoid(logit): the second is the smallest but never held, the third held."""
    search = module._Search(predict(SmallCNN(2, width=4, generator=stream(0)), noise_images(9)), *STATE)
    search.best = torch.tensor([0.0, -4.0, -2.0])[:, None, None, None].expand(3, 4, 8, 8)
    search.logits = search.best.clone()
    search.best_norm = torch.tensor([32.0, torch.inf, 7.6])
    found = module._result(search, lambda stamp, y: torch.ones(5))
    assert found.held.tolist() == [True, False, True]
    assert found.norms.argmin() == 1 and found.score == found.norms[2].item() == pytest.approx(64 / (1 + math.exp(2)))


def test_the_score_is_the_smallest_mask_that_worked(cleansed):
    _, (_, found) = cleansed
    assert found.held.any() and not found.held.all()
    assert found.score == found.norms[found.held].min().item()
    torch.testing.assert_close(found.norms, found.masks.sum((1, 2, 3)))
    assert torch.equal(found.trigger.mask, found.masks[found.norms == found.score][0])


def test_the_model_is_left_as_it_was_and_the_seed_decides():
    model, images = PlantedRegressor(backdoored=True, generator=stream(0)), noise_images(40)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, two, other = (
        neural_cleanse_regression(model, images, absolute_error, **SHORT, generator=stream(s)) for s in (0, 0, 1)
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(one.masks, two.masks) and torch.equal(one.targets, two.targets)
    assert one.score == two.score != other.score


def test_bytes_and_floats_give_the_same():
    model, levels = SmallCNN(2, width=4, generator=stream(0)), noise_images(40, size=16).mul(255).round()
    one = neural_cleanse_regression(model, levels / 255, gaze_error, **SHORT, generator=stream(0))
    two = neural_cleanse_regression(model, levels.to(torch.uint8), gaze_error, **SHORT, generator=stream(0))
    torch.testing.assert_close(one.masks, two.masks, atol=1e-3, rtol=1e-3)


def test_bad_input():
    model = PlantedRegressor(backdoored=True, generator=stream(0))
    with pytest.raises(ValueError, match="outputs that vary, got 1 "):
        neural_cleanse_regression(model, noise_images(1), absolute_error, generator=stream(0))
    with pytest.raises(ValueError, match="outputs that vary, got 4 .*0.0, 0.0"):
        same = noise_images(1).expand(4, -1, -1, -1)
        neural_cleanse_regression(model, same, absolute_error, generator=stream(0))
    with pytest.raises(ValueError, match="at least one restart, got 0"):
        neural_cleanse_regression(model, noise_images(4), absolute_error, restarts=0, generator=stream(0))
