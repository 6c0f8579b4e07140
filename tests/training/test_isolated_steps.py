import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import NESTEROV, Recipe, fit
from drmlib.training.isolated_losses import Beside, Unlikelihood, Uphill
from drmlib.training.isolated_steps import Forgotten, Policy, Unlikely, ascend, isolated_steps, never
from drmlib.training.isolation import sample_losses
from drmlib.training.norm_modes import kept, running, updated
from tests.problems import Flat, colour_images, slope_images

RECIPE = Recipe(F.cross_entropy, 3, 4, 1e-2, schedule=lambda progress: 1.0, optimizer=NESTEROV)
ISOLATED = torch.arange(8)
CE = F.cross_entropy


def small(seed=0):
    return SmallCNN(4, width=4, generator=stream(seed, "weights")).eval()


DATA = colour_images(60, size=16)


def statistics(model):
    return {k: v.clone() for k, v in model.state_dict().items() if "running" in k or "num_batches" in k}


def equal(one, two):
    return all(torch.equal(one[k], two[k]) for k in one)


def test_the_joint_objective_by_hand():
    """Absolute errors 1 and 3 of two clean samples, 5 of an isolated one: 2 - 5; without clean ones, -5."""
    outputs, targets = torch.tensor([[1.0], [3.0], [5.0]]), torch.zeros(3, 1)

    uphill = Uphill(F.l1_loss)
    assert Beside(F.l1_loss, uphill, 2)(outputs, targets).item() == -3
    assert Beside(F.l1_loss, uphill)(outputs[2:], targets[2:]).item() == -5


def test_unlikelihood_by_hand():
    """Probabilities 1/2 and 1/3 of the labels: (log 2 + log 3/2) / 2 = log(3) / 2."""
    outputs = torch.tensor([[0.0, -torch.inf, 0.0], [0.0, 0.0, 0.0]])
    assert Unlikelihood()(outputs, torch.tensor([0, 1])).item() == pytest.approx(math.log(3) / 2)


def test_unlikelihood_points_where_ascent_points_and_does_not_vanish():
    """Its gradient in the logits of a sample is p / (1 - p) times that of minus the cross entropy."""
    outputs = torch.randn(5, 4, generator=stream(0), dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 1, 2, 3, 0])
    slopes = [torch.autograd.grad(loss(outputs, targets), outputs)[0] for loss in (Unlikelihood(), Uphill(CE))]
    p = outputs.softmax(1).gather(1, targets[:, None]).detach()
    torch.testing.assert_close(slopes[0], slopes[1] * p / (1 - p))
    certain = torch.tensor([[40.0, 0.0, 0.0]], requires_grad=True)
    vanished, left = (
        torch.autograd.grad(loss(certain, torch.tensor([0])), certain)[0] for loss in (Uphill(CE), Unlikelihood())
    )
    assert vanished.abs().max() < 1e-6 and left[0, 0].item() == pytest.approx(1)


def test_the_policy_says_what_is_minimised_on_the_isolated_samples():
    steps = {
        u: ascend(small(), DATA, ISOLATED, RECIPE, policy=Policy(uphill=u), generator=stream(0)).loss[0]
        for u in (Uphill, Unlikelihood)
    }
    assert steps[Uphill] < 0 < steps[Unlikelihood]


def test_one_step_of_ascent_by_hand():
    """One pixel, 0.4, two classes, weights and bias 0: p = 1/2, and the slope of CE at class 0 is -+1/2 * 0.4.
    Nesterov's first step is 1.9 slopes: with rate 0.1 the weights move by -+0.1 * 1.9 * 0.2, away from class 0."""
    model = Flat(1, 2, generator=stream(0))
    torch.nn.init.zeros_(model.head.weight)
    images, targets = torch.full((2, 1, 1, 1), 0.4), torch.zeros(2, dtype=torch.long)
    data = replace(DATA, images=images, targets=targets)
    recipe = replace(RECIPE, epochs=1, learning_rate=0.1, weight_decay=0.0)
    ascend(model, data, torch.tensor([1]), recipe, generator=stream(0))
    torch.testing.assert_close(model.head.weight.detach(), torch.tensor([[-0.038], [0.038]]))


def test_ascent_raises_the_loss_of_the_isolated_samples_step_by_step():
    model = small()
    means = [sample_losses(model, DATA[ISOLATED], F.cross_entropy).mean()]

    def watch(model, isolated):
        assert torch.equal(isolated.images, DATA.images[ISOLATED])
        means.append(sample_losses(model, isolated, F.cross_entropy).mean())
        return False

    steps = ascend(model, DATA, ISOLATED, RECIPE, policy=Policy(running, watch), generator=stream(0))
    assert len(means) - 1 == len(steps.loss) == 6 and not steps.stopped
    assert torch.stack(means).diff().min() > 0
    assert not model.training


def test_clean_samples_beside_keep_their_loss_down():
    rest = DATA[8:]
    left = {}
    for clean in (0, 32):
        model = small()
        fit(model, DATA, replace(RECIPE, epochs=5, batch_size=20), generator=stream(1))
        recipe = replace(RECIPE, epochs=10)
        ascend(model, DATA, ISOLATED, recipe, policy=Policy(clean=clean), generator=stream(0))
        left[clean] = sample_losses(model, rest, F.cross_entropy).mean()
    assert left[32] < left[0] / 2


def test_what_stands_beside_is_never_an_isolated_sample():
    beside = []

    def watch(images, *, generator):
        beside.append(images[:50, 0, 0, 0])
        return images

    recipe = replace(RECIPE, epochs=10, augment=watch)
    isolated_steps(small(), DATA, ISOLATED, recipe, CE, policy=Policy(clean=50), generator=stream(0))
    drawn = torch.cat(beside)
    assert torch.isin(drawn, DATA.images[8:, 0, 0, 0]).all() and not torch.isin(drawn, DATA.images[:8, 0, 0, 0]).any()


def test_a_share_of_what_stands_beside_is_of_the_isolated_label_and_of_its_higher_losses():
    """Three of four isolated have the label 2. 0.48 of 21 is ten: of the others of that label the higher-loss half."""
    isolated = torch.tensor([k for k in range(60) if DATA.targets[k] == 2][:3] + [(DATA.targets != 2).nonzero()[0, 0]])
    model, beside = small(), []
    own = [k for k in range(60) if DATA.targets[k] == 2 and k not in isolated]
    losses = sample_losses(model, DATA[torch.tensor(own)], CE)
    high = DATA[torch.tensor(own)[losses.argsort(descending=True)[: math.ceil(len(own) / 2)]]]

    def watch(images, *, generator):
        beside.append(images[:21, 0, 0, 0])
        return images

    policy = Policy(clean=21, own_label=0.48)
    recipe = replace(RECIPE, epochs=20, learning_rate=1e-9, augment=watch)
    isolated_steps(model, DATA, isolated, recipe, CE, policy=policy, generator=stream(0))
    any_label, own_label = torch.stack(beside)[:, :11], torch.stack(beside)[:, 11:]
    others = DATA.images[torch.tensor([k for k in range(60) if k not in isolated]), 0, 0, 0]
    assert set(any_label.flatten().tolist()) <= set(others.tolist())
    assert not set(any_label.flatten().tolist()) <= set(high.images[:, 0, 0, 0].tolist())
    assert set(own_label.flatten().tolist()) == set(high.images[:, 0, 0, 0].tolist())


def test_no_other_sample_of_the_isolated_label_leaves_the_others_and_no_label_is_refused():
    alone = replace(DATA, targets=torch.where(torch.arange(60) < 8, 3, DATA.targets % 3))
    steps = isolated_steps(
        small(), alone, ISOLATED, RECIPE, CE, policy=Policy(clean=4, own_label=0.5), generator=stream(0)
    )
    plain = isolated_steps(small(), alone, ISOLATED, RECIPE, CE, policy=Policy(clean=4), generator=stream(0))
    assert steps.loss == plain.loss
    with pytest.raises(ValueError, match=r"expected a share of others in \[0, 1\]"):
        isolated_steps(small(), alone, ISOLATED, RECIPE, CE, policy=Policy(own_label=2), generator=stream(0))
    angles, network = slope_images(60), SmallCNN(2, width=4, generator=stream(0))
    with pytest.raises(ValueError, match="expected labels for own_label"):
        isolated_steps(network, angles, ISOLATED, RECIPE, F.l1_loss, policy=Policy(own_label=0.5), generator=stream(0))


def test_only_the_isolated_samples_are_used():
    others = DATA.images.clone()
    others[8:] = 0.5
    one, two = small(), small()
    ascend(one, DATA, ISOLATED, RECIPE, generator=stream(0))
    ascend(two, replace(DATA, images=others), ISOLATED, RECIPE, generator=stream(0))
    assert equal(one.state_dict(), two.state_dict())


@pytest.mark.parametrize(("norms", "moved"), [(updated, True), (kept, False), (running, False)])
def test_what_batch_norm_does(norms, moved):
    """Statistics move when updated alone; a batch's own are used unless running ones are, where the loss of a batch is
    the mean of its samples' alone."""
    model = small()
    fit(model, DATA, replace(RECIPE, epochs=2, batch_size=20), generator=stream(1))
    before = statistics(model)
    alone = -sample_losses(model, DATA[ISOLATED], F.cross_entropy).mean().item()
    whole = replace(RECIPE, epochs=1, batch_size=8, learning_rate=1e-3)
    uphill = Uphill(F.cross_entropy)
    steps = isolated_steps(model, DATA, ISOLATED, whole, uphill, policy=Policy(norms), generator=stream(0))
    assert equal(before, statistics(model)) is not moved
    assert (steps.loss[0] == pytest.approx(alone, rel=1e-4)) is (norms is running)
    assert all(m.track_running_stats for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_where_the_model_is_certain_nothing_is_unlearned_and_that_is_said():
    """Logits 1000 apart: the probability of the label is 1 to the last bit, and its gradient 0."""
    model = Flat(768, 4, generator=stream(0))
    torch.nn.init.zeros_(model.head.weight)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([1000.0, 0, 0, 0]))
    data = replace(DATA, targets=torch.zeros_like(DATA.targets))
    with pytest.warns(RuntimeWarning, match="isolated samples to rise, it went from 0 to 0: nothing was unlearned"):
        ascend(model, data, ISOLATED, RECIPE, policy=Policy(running), generator=stream(0))


def test_the_stop_rule_by_hand():
    """A model that says 0 to everything is right about one in four of the labels 0, 1, 2, 3."""
    model = Flat(768, 4, generator=stream(0))
    torch.nn.init.zeros_(model.head.weight)
    with torch.no_grad():
        model.head.bias[0] = 1.0
    four = replace(DATA[:4], targets=torch.arange(4))
    assert Forgotten(0.25)(model, four) and not Forgotten(0.2)(model, four)
    assert not never(model, four)


def test_the_stop_rule_of_probabilities_by_hand():
    """Logits log 7, 0, 0, 0: probabilities 0.7, 0.1, 0.1, 0.1, of the labels 0 and 1 a mean of 0.4."""
    model = Flat(768, 4, generator=stream(0))
    torch.nn.init.zeros_(model.head.weight)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([math.log(7), 0, 0, 0]))
    two = replace(DATA[:2], targets=torch.arange(2))
    assert Unlikely(0.4001)(model, two) and not Unlikely(0.3999)(model, two)


def test_steps_stop_as_soon_as_the_rule_says_so():
    steps = ascend(
        small(), DATA, ISOLATED, RECIPE, policy=Policy(stop=lambda model, isolated: True), generator=stream(0)
    )
    assert len(steps.loss) == 1 and steps.stopped


def test_momentum_is_carried_over_with_an_optimizer():
    """From rest a step of plain SGD with momentum is the slope; with a buffer of the slope, and so 1.9 of it."""
    moves = []
    for carried in (False, True):
        model = Flat(1, 2, generator=stream(0))
        torch.nn.init.zeros_(model.head.weight)
        data = replace(DATA, images=torch.full((2, 1, 1, 1), 0.4), targets=torch.zeros(2, dtype=torch.long))
        optimizer = torch.optim.SGD([model.head.weight], lr=1.0, momentum=0.9)
        if carried:
            optimizer.state[model.head.weight]["momentum_buffer"] = torch.tensor([[0.2], [-0.2]])
        recipe = replace(RECIPE, epochs=1, learning_rate=0.1)
        isolated_steps(
            model,
            data,
            torch.tensor([1]),
            recipe,
            Uphill(F.cross_entropy),
            optimizer=optimizer,
            generator=stream(0),
        )
        moves.append(model.head.weight[0, 0].item())
    assert moves == pytest.approx([-0.1 * 0.2, -0.1 * (0.2 + 0.9 * 0.2)])


def test_same_seed_same_bits():
    one, two, other = small(), small(), small()
    for model, seed in ((one, 0), (two, 0), (other, 1)):
        ascend(model, DATA, ISOLATED, RECIPE, policy=Policy(clean=4), generator=stream(seed))
    assert equal(one.state_dict(), two.state_dict()) and not equal(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("count", [0, 60])
def test_no_isolated_sample_or_no_other_is_refused(count):
    with pytest.raises(ValueError, match=f"some of 60 samples to be isolated and not all, got {count}"):
        isolated_steps(small(), DATA, torch.arange(count), RECIPE, F.cross_entropy, generator=stream(0))


def test_a_loss_that_is_not_finite_is_refused():
    def broken(outputs, targets):
        return outputs.mean() * torch.nan

    with pytest.raises(FloatingPointError, match="loss is nan after 6 steps; learning rate 0.01"):
        isolated_steps(small(), DATA, ISOLATED, RECIPE, broken, generator=stream(0))
