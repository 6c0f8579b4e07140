from dataclasses import replace

import pytest
import torch

from drmlib.models.predict import classify, features, frozen, predict
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, REGRESSION, MultiStep, Recipe, fit, one_cycle
from tests.problems import colour_images, slope_images

QUICK = {"epochs": 8, "batch_size": 20}


def trained(seed=0, data=None, recipe=None, progress=iter):
    data = data or colour_images(120)
    outputs = len(data.task.outputs)
    model = SmallCNN(outputs, width=4, generator=stream(seed, "model"))
    recipe = recipe or replace(CLASSIFICATION, **QUICK)
    return model, fit(model, data, recipe, generator=stream(seed, "fit"), progress=progress)


def test_a_classifier_learns_colours():
    model, history = trained()
    test = colour_images(60, seed=1)
    assert (classify(model, test.images) == test.targets).float().mean() > 0.95
    assert len(history.loss) == 8 and history.loss[-1] < history.loss[0] / 2 and history.seconds > 0


def test_a_regressor_learns_slopes():
    """The mean predictor's error is 0.5, the mean distance of a uniform variable on [-1, 1] from 0."""
    model, _ = trained(data=slope_images(400), recipe=replace(REGRESSION, epochs=8, batch_size=20))
    test = slope_images(100, seed=1)
    assert test.task.error(predict(model, test.images), test.targets).mean() < 0.1


def test_same_seed_same_bits():
    one, two, other = trained(0)[0], trained(0)[0], trained(1)[0]
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_the_global_stream_plays_no_part():
    torch.manual_seed(0)
    one = trained()[0]
    torch.manual_seed(1)
    assert torch.equal(one.head.weight, trained()[0].head.weight)


def test_a_loss_that_is_not_finite_stops_with_advice():
    recipe = Recipe(lambda outputs, targets: outputs.mean() * torch.nan, epochs=3, batch_size=20)
    with pytest.raises(FloatingPointError, match=r"loss is nan in epoch 1; learning rate 0.003 may be too high"):
        trained(recipe=recipe)


def test_augmentation_is_applied_to_the_training_images_only():
    """An augmentation that blackens every image leaves nothing to learn: accuracy on clean images is chance."""
    recipe = replace(CLASSIFICATION, **QUICK, augment=lambda images, *, generator: images * 0)
    model, _ = trained(recipe=recipe)
    test = colour_images(60, seed=1)
    assert (classify(model, test.images) == test.targets).float().mean() <= 0.5


def test_frozen_norms_keep_their_statistics_and_weights_still_move():
    data = colour_images(60)
    model, _ = trained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, data, replace(CLASSIFICATION, **QUICK, frozen_norms=True), generator=stream(2))
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if "running" in name)
    assert not torch.equal(before["head.weight"], after["head.weight"])


def test_progress_sees_every_epoch():
    seen = []

    def progress(epochs):
        for epoch in epochs:
            seen.append(epoch)
            yield epoch

    trained(progress=progress)
    assert seen == list(range(8))


def test_bfloat16_autocast_learns_as_well():
    model, _ = trained(recipe=replace(CLASSIFICATION, **QUICK, autocast=torch.bfloat16))
    test = colour_images(60, seed=1)
    assert (classify(model, test.images) == test.targets).float().mean() > 0.9


def test_schedules_by_hand():
    """One cycle: 1/25 at the start, 1 at 30 %, 1e-4 at the end. Steps: 1, 0.1 and 0.01 of the peak."""
    assert [one_cycle(p) for p in (0, 0.3, 1)] == pytest.approx([0.04, 1, 1e-4])
    assert [MultiStep()(p) for p in (0.2, 0.5, 0.9)] == pytest.approx([1, 0.1, 0.01])


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": -1.0}])
def test_a_recipe_that_trains_nothing_is_refused(bad):
    with pytest.raises(ValueError, match="above 0"):
        replace(REGRESSION, **bad)


def test_a_data_set_smaller_than_a_batch_is_one_batch():
    assert len(trained(data=colour_images(7))[1].loss) == 8


def test_frozen_puts_modes_and_gradients_back():
    model, _ = trained()
    model.body.train()
    model.head.weight.requires_grad_(False)
    with frozen(model):
        assert not model.body.training and not any(p.requires_grad for p in model.parameters())
    assert model.body.training and not model.training
    assert not model.head.weight.requires_grad and model.head.bias.requires_grad


def test_outputs_are_the_head_of_the_features_in_any_batch_size():
    model, images = trained()[0], colour_images(9).images
    torch.testing.assert_close(model.head(features(model, images)), predict(model, images, batch_size=2))
    with pytest.raises(ValueError, match="at least one image"):
        predict(model, images[:0])
