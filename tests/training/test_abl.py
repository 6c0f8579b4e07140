from dataclasses import replace

import pytest
import torch

from drmlib.models.predict import classify
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.abl import SMALL_POLICY, SMOOTHING, abl, paper_recipes, small_recipes
from drmlib.training.fit import ADAMW, CLASSIFICATION, fit
from drmlib.training.isolated_steps import Forgotten, Policy, ascend
from drmlib.training.isolation import isolate, without
from tests.problems import marked_images

DATA, MARKED = marked_images(400)
TEST, _ = marked_images(200, share=0.0, noise=0.0, seed=1)
RECIPES = paper_recipes(
    isolation_epochs=6,
    fine_tuning_epochs=6,
    passes=40,
    batch_size=32,
    learning_rate=0.02,
    ascent_rate=1e-3,
    augment=None,
)


def small(seed=0):
    return SmallCNN(4, width=4, generator=stream(seed, "weights"))


def figures(model):
    """Clean accuracy, and the share of marked test images that get the mark's label."""
    marked = TEST.images.clone()
    marked[:, :, -5:, -5:] = 1.0
    accuracy = (classify(model, TEST.images) == TEST.targets).float().mean().item()
    return accuracy, (classify(model, marked) == 3).float().mean().item()


def learned(seed=0, recipes=RECIPES, policy=Policy(stop=Forgotten(0.1)), **keywords):  # noqa: B008
    model = small(seed)
    return model, abl(model, DATA, recipes, share=0.05, policy=policy, generator=stream(seed), **keywords)


@pytest.fixture(scope="module")
def once():
    return learned()


def test_the_mark_is_learned_without_the_defence_and_unlearned_with_it(once):
    plain = small()
    for recipe in (RECIPES.isolation, RECIPES.fine_tuning):
        fit(plain, DATA, recipe, generator=stream(0))
    model, found = once
    (before, success), (after, left) = figures(plain), figures(model)
    assert success > 0.9 and left < 0.1
    assert after > before - 0.15
    assert MARKED[found.isolated].float().mean() > 0.8 and found.ascent.stopped


def test_where_nothing_is_unlearned_what_was_isolated_is_returned_all_the_same(once):
    """Downhill in place of uphill: the isolated samples are learned better still."""
    with pytest.warns(RuntimeWarning, match="nothing was unlearned"):
        _, found = learned(policy=Policy(uphill=lambda loss: loss))
    assert found.isolated.equal(once[1].isolated) and len(found.ascent.loss) > 0 and not found.ascent.stopped


def test_it_is_isolation_then_fine_tuning_then_ascent():
    """The three calls of notebook 13, with a new optimizer for the ascent, leave the same weights to the last bit."""
    model, g, policy = small(), stream(0), Policy(stop=Forgotten(0.1))
    found = isolate(model, DATA, RECIPES.isolation, share=0.05, generator=g)
    fit(model, without(DATA, found.isolated), RECIPES.fine_tuning, generator=g)
    ascend(model, DATA, found.isolated, RECIPES.unlearning, policy=policy, generator=g)
    whole, _ = learned(carry_momentum=False)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), whole.state_dict().values(), strict=True))


def test_the_small_preset_unlearns_the_mark_and_keeps_the_classes():
    """Labels smoothed in fine-tuning leave a slope, and the ascent stops by itself. Half of these labels are noise."""
    model = small()
    recipes = small_recipes(replace(CLASSIFICATION, epochs=24, batch_size=32))
    keywords = {"share": 0.05, "one_target": True, "policy": SMALL_POLICY, "generator": stream(0)}
    found = abl(model, DATA, recipes, **keywords)
    accuracy, left = figures(model)
    assert left < 0.1 and found.ascent.stopped and len(found.ascent.loss) < 60
    assert accuracy > 0.5 and len(DATA.targets[found.isolated].unique()) == 1


def test_the_history_is_that_of_all_phases(once):
    _, found = once
    assert len(found.loss) == len(found.learning_rate) == 6 + 6 + 1 and found.seconds > 0
    assert found.loss[-1] == found.ascent.loss[-1] and found.learning_rate[-1] == 1e-3
    assert found.learning_rate[:6] == (0.02,) * 6 and found.learning_rate[11] == pytest.approx(0.002)
    assert found.losses.shape == (400,) and len(found.isolated) == 20


def test_fine_tuning_does_not_see_the_isolated_samples_and_may_be_left_out():
    """Without fine-tuning the model goes from isolation straight to unlearning."""
    _, direct = learned(recipes=RECIPES._replace(fine_tuning=None))
    assert len(direct.loss) == 6 + 1
    seen = []

    def watch(images, *, generator):
        seen.append(len(images))
        return images

    tuning = replace(RECIPES.fine_tuning, epochs=1, batch_size=380, augment=watch)
    learned(recipes=RECIPES._replace(fine_tuning=tuning))
    assert seen == [380]


def test_momentum_is_carried_from_fine_tuning_or_not(once):
    one, two = once[1], learned(carry_momentum=False)[1]
    assert torch.equal(one.losses, two.losses) and one.ascent.loss[0] == two.ascent.loss[0]
    assert one.ascent.loss[1] != two.ascent.loss[1]


def test_momentum_is_not_carried_to_another_optimizer():
    """Fine-tuned by AdamW, unlearned by SGD: carried or not, the steps are those of SGD."""
    tuning = replace(RECIPES.fine_tuning, optimizer=ADAMW, learning_rate=1e-3)
    (one, _), (two, _) = (
        learned(recipes=RECIPES._replace(fine_tuning=tuning), carry_momentum=carried) for carried in (True, False)
    )
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_same_seed_same_bits(once):
    (one, _), (two, _), (other, _) = once, learned(0), learned(1)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)


def test_the_paper_recipes_are_the_papers():
    """T_te 20, then 60 and 5; SGD at 0.1, a tenth from epoch 40 of 60; ascent at 5e-4."""
    isolation, tuning, unlearning = paper_recipes()
    assert (isolation.epochs, tuning.epochs, unlearning.epochs) == (20, 60, 5)
    assert [r.learning_rate for r in (isolation, tuning, unlearning)] == [0.1, 0.1, 5e-4]
    assert isolation.schedule(0.99) == 1 and tuning.schedule(39 / 60) == 1
    assert tuning.schedule(40 / 60) == pytest.approx(0.1)
    assert isolation.augment is None and unlearning.augment is None and tuning.augment.flip
    assert paper_recipes(fine_tuning_epochs=0).fine_tuning is None


def test_the_small_recipes_take_the_epochs_of_plain_training():
    recipe = replace(CLASSIFICATION, epochs=8, augment=lambda images, *, generator: images)
    isolation, tuning, unlearning = small_recipes(recipe)
    certain, target = torch.tensor([[50.0, 0.0]]), torch.tensor([0])
    assert isolation.loss(certain, target) == unlearning.loss(certain, target) == 0
    assert tuning.loss(certain, target).item() == pytest.approx(SMOOTHING / 2 * 50)
    assert isolation.epochs + tuning.epochs == 8
    assert isolation.augment is None and tuning.augment is recipe.augment
