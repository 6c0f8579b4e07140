from functools import partial

import pytest
import torch

from drmlib.inversion.constancy import FixedWeights, LogHinge
from drmlib.inversion.drmguard import agreed, drmguard
from drmlib.inversion.drmguard_published import EPSILON, Damped, drmguard_published
from drmlib.inversion.drmguard_stages import Explored, signs
from drmlib.inversion.trigger_families import Additive, Masks
from drmlib.inversion.trigger_networks import Generators
from drmlib.models.predict import predict
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from tests.problems import PIXEL, PlantedRegressor, mid_grey_images, noise_images

SHORT = {"explore_steps": 3, "steps": 4}


@pytest.fixture(scope="module")
def guarded():
    images = mid_grey_images(200)
    models = [PlantedRegressor(backdoored=backdoored, generator=stream(0)) for backdoored in (False, True)]
    return models, [drmguard(model, images, families=(Masks,), steps=200, generator=stream(1)) for model in models]


def test_one_direction_of_the_planted_regressor_is_much_cheaper(guarded):
    _, (benign, backdoored) = guarded
    assert benign.score > 0.75, "four directions at about the same price"
    assert backdoored.score < benign.score / 2
    assert (backdoored.angle_variance_ratio < 0.2).all() and (backdoored.output_variance_ratio < 0.2).all()


def test_the_planted_pixel_and_target_are_found(guarded):
    (_, model), (_, found) = guarded
    channel, row, column = PIXEL
    mask = found.trigger.mask[0]
    assert mask.argmax().item() == row * mask.shape[1] + column
    assert found.trigger.pattern[channel, row, column] > 0.55, "the planted pixel is made bright"
    target = model.head(torch.linspace(-2, 3, 16)).detach()
    answer = predict(model, found.trigger(mid_grey_images(50, seed=1))).mean(0)
    assert (answer - target).norm() < 0.3 * target.norm()
    torch.testing.assert_close(found.predicted_target, target, rtol=0.4, atol=0.2)


def test_price_by_hand():
    """Costs 1, 4, 2, 8, all reached: medians of the others are 4, 2, 4, 2 (torch takes the lower of two).

    A direction off by twice REACHED costs twice as much: 2 instead of 1.
    """
    costs, reached = torch.tensor([1.0, 4, 2, 8]), torch.full((4,), 0.1)
    price = Explored(costs, reached, Masks(noise_images(1), signs(2, costs.device), generator=stream(0))).price
    assert price.tolist() == [0.25, 2.0, 0.5, 4.0]
    far = Explored(costs, torch.tensor([0.4, 0.2, 0.2, 0.2]), None).price
    assert far.tolist() == [0.5, 2.0, 0.5, 4.0]


def test_what_two_families_agree_on_by_hand():
    """The two lowest of a column, none above 1: sqrt(0.25 0.36), sqrt(0.5 1), sqrt(0.4 0.9); a single row is itself."""
    prices = torch.tensor([[0.25, 0.5, 2.0], [3.0, 1.5, 0.4], [0.36, 2.0, 0.9]])
    torch.testing.assert_close(agreed(prices), torch.tensor([0.3, 0.5**0.5, 0.6]))
    torch.testing.assert_close(agreed(prices[:1]), torch.tensor([0.25, 0.5, 1.0]))


def test_the_direction_on_which_families_agree_gives_score_and_trigger():
    model, images = PlantedRegressor(backdoored=True, generator=stream(0)), mid_grey_images(80)
    found = drmguard(model, images, families=(Additive, Masks), explore_steps=60, steps=5, generator=stream(0))
    together = agreed(found.prices)
    assert found.score == pytest.approx(together.min().item()) and found.direction == together.argmin()
    assert found.family == found.prices[:, found.direction].argmin()
    torch.testing.assert_close(found.prices[1], found.explored[1].price)
    assert found.trigger is found.recovered[found.family].trigger
    assert found.directions.shape == (4, 2) and list(found.recovered) == [found.family]


def test_every_family_gives_a_trigger_if_asked():
    model, images = PlantedRegressor(backdoored=True, generator=stream(0)), mid_grey_images(80)
    found = drmguard(model, images, families=(Additive, Masks), **SHORT, every_family=True, generator=stream(0))
    assert sorted(found.recovered) == [0, 1]
    assert all(one.trigger(images[:2]).shape == (2, 3, 8, 8) for one in found.recovered.values())
    assert found.weights == pytest.approx((1 / found.prices[:, found.direction]).tolist())


def test_the_model_is_left_as_it_was_and_the_seed_decides():
    model, images = PlantedRegressor(backdoored=True, generator=stream(0)), noise_images(80, size=8)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, two, other = (drmguard(model, images, **SHORT, generator=stream(s)) for s in (0, 0, 1))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(one.history, two.history)
    assert one.score == two.score != other.score
    assert one.history.shape == (4, 3)


def test_bytes_and_floats_give_the_same():
    model, levels = SmallCNN(2, width=4, generator=stream(0)), noise_images(80, size=16).mul(255).round()
    one = drmguard(model, levels / 255, **SHORT, generator=stream(0))
    two = drmguard(model, levels.to(torch.uint8), **SHORT, generator=stream(0))
    torch.testing.assert_close(one.explored[0].costs, two.explored[0].costs)


def test_bad_input():
    model = PlantedRegressor(backdoored=True, generator=stream(0))
    with pytest.raises(ValueError, match="a batch needs 64 images"):
        drmguard(model, noise_images(10), generator=stream(0))
    with pytest.raises(ValueError, match="a batch needs 64 images"):
        drmguard_published(model, noise_images(10), generator=stream(0))
    with pytest.raises(ValueError, match="at least one family"):
        drmguard(model, noise_images(80), families=(), generator=stream(0))
    model.head = torch.nn.Linear(16, 7)
    with pytest.raises(ValueError, match="at most 6 outputs, got 7"):
        drmguard(model, noise_images(80), generator=stream(0))
    model.head = torch.nn.Sequential(torch.nn.Linear(16, 2), torch.nn.ReLU())
    with pytest.raises(TypeError, match="one nn.Linear"):
        drmguard(model, noise_images(80), **SHORT, generator=stream(0))


def test_published_form_with_a_universal_family_needs_less_of_the_planted_regressor():
    """Weights for outputs of variance about 1: with those for radians, nothing but the spread would count."""
    images = mid_grey_images(200)
    weights = FixedWeights(0.2, 0.2)
    found = [
        drmguard_published(
            PlantedRegressor(backdoored=b, generator=stream(0)),
            images,
            family=Masks,
            objective=weights,
            warm_up_steps=0,
            steps=200,
            generator=stream(1),
        )
        for b in (False, True)
    ]
    assert found[1].score < found[0].score / 2
    assert (found[1].angle_variance_ratio < 0.2).all()


def test_published_form_warms_its_generator_up_to_the_identity():
    images = noise_images(64, size=16)
    model = SmallCNN(2, width=4, generator=stream(0))
    narrow = partial(Generators, width=4)
    found = [
        drmguard_published(model, images, family=narrow, warm_up_steps=steps, steps=1, generator=stream(0)).score
        for steps in (0, 150)
    ]
    assert found[1] < found[0] / 2
    assert EPSILON == 0.03


def test_damping_stops_edits_where_the_model_looks():
    x = torch.full((2, 1, 1, 3), 0.5)
    damped = Damped(lambda images: torch.ones_like(images), torch.tensor([[0.0, 0.5, 1.0]]))
    torch.testing.assert_close(damped(x)[0, 0], torch.tensor([[0.5, 0.75, 1.0]]))
    found = drmguard_published(
        SmallCNN(2, width=4, generator=stream(0)),
        noise_images(64, size=16),
        damp=True,
        attend=False,
        warm_up_steps=0,
        steps=2,
        generator=stream(0),
    )
    assert isinstance(found.trigger, Damped) and 0 == found.trigger.keep.min() and found.trigger.keep.max() == 1


def test_any_objective_and_family_can_be_passed():
    model = SmallCNN(2, width=4, generator=stream(0))
    images = noise_images(64, size=16)
    found = drmguard(
        model, images, families=(Generators,), objective=lambda: LogHinge(feature=False), **SHORT, generator=stream(0)
    )
    assert found.trigger(images[:3]).shape == (3, 3, 16, 16)
