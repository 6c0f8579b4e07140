"""Networks trained side by side end where each would have ended alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from drmlib import rng
from drmlib.data.augment import Augmentation
from drmlib.models.predict import predict
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, NESTEROV, fit
from drmlib.training.population import fit_population
from tests.problems import colour_images

# SGD, because its step is proportional to the gradient. Adam's first steps are the gradient's sign times the learning
# rate, so a gradient whose rounding decides its sign moves a weight by two whole steps; outputs hardly notice it.
RECIPE = replace(CLASSIFICATION, epochs=2, batch_size=8, learning_rate=0.02, optimizer=NESTEROV)


def network(seed, width=4):
    return SmallCNN(4, width=width, generator=stream(seed, "weights"))


def both(recipe, count=3, *, shared=False):
    """The models and histories of one population, and those of the same models each trained alone."""
    data = [colour_images(24, size=16, seed=0 if shared else j) for j in range(count)]
    data = [data[0]] * count if shared else data
    together, alone = ([network(j) for j in range(count)] for _ in range(2))
    histories = fit_population(together, data, recipe, generator=stream(0, "population"))
    g = stream(0, "population")
    alone_histories = [fit(m, d, recipe, generator=rng.spawn(g)) for m, d in zip(alone, data, strict=True)]
    return together, alone, histories, alone_histories


@pytest.mark.parametrize("shared", [False, True])
def test_side_by_side_is_each_alone(shared):
    """Weights, running statistics and losses, up to the order of float32 sums, which six steps carry to below 1e-4."""
    for one, other, history, history_alone in zip(*both(RECIPE, shared=shared), strict=True):
        states = one.state_dict(), other.state_dict()
        assert all(torch.allclose(states[0][k], states[1][k], atol=1e-4, rtol=1e-4) for k in states[0])
        assert states[0]["body.conv1.1.num_batches_tracked"] == 6
        assert history.loss == pytest.approx(history_alone.loss, rel=1e-4)
        assert history.learning_rate == history_alone.learning_rate
        assert not one.training


def test_the_models_stay_different():
    one, other = both(RECIPE, count=2, shared=True)[0]
    assert not torch.allclose(one.head.weight, other.head.weight, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        (
            {"optimizer": CLASSIFICATION.optimizer, "learning_rate": 1e-3, "weight_decay": 0.1},
            2e-3,
        ),  # signs, see RECIPE
        ({"weight_decay": 1.0}, 1e-3),
        ({"augment": Augmentation(flip=True, padding=2)}, 1e-3),
        ({"frozen_norms": True}, 1e-3),
        ({"autocast": torch.bfloat16}, 0.1),  # eight bits of mantissa, and sums in another order
    ],
)
def test_the_recipe_means_the_same(change, tolerance):
    images = colour_images(12, size=16, seed=9).images
    for one, other, *_ in zip(*both(replace(RECIPE, **change)), strict=True):
        assert torch.allclose(predict(one, images), predict(other, images), atol=tolerance)


def test_a_model_trained_before_keeps_its_statistics_when_norms_are_frozen():
    model, data = network(0), colour_images(24, size=16)
    before = model.body.conv1[1].running_mean.clone()
    fit_population([model], [data], replace(RECIPE, frozen_norms=True), generator=stream(0, "population"))
    assert torch.equal(model.body.conv1[1].running_mean, before)


def test_what_does_not_fit_together_is_said():
    data, g = colour_images(24, size=16), stream(0, "population")
    with pytest.raises(ValueError, match="a data set for each model, got 2 and 1"):
        fit_population([network(0), network(1)], [data], RECIPE, generator=g)
    with pytest.raises(ValueError, match=r"one length, got \[20, 24\]"):
        fit_population([network(0), network(1)], [data, data[:20]], RECIPE, generator=g)
    with pytest.raises(RuntimeError, match="random operation"):
        drawing = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(768, 4))
        fit_population([drawing], [data], RECIPE, generator=g)


def test_a_loss_that_is_not_finite_names_its_model():
    models, data = [network(0), network(1)], colour_images(24, size=16)
    with torch.no_grad():
        models[1].head.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="loss of model 1 is nan in epoch 1"):
        fit_population(models, [data, data], RECIPE, generator=stream(0, "population"))
