from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.abl import paper_recipes
from drmlib.training.isolation import (
    Flooding,
    LocalAscent,
    SampleAscent,
    isolate,
    lowest,
    of_one_label,
    sample_losses,
    without,
)
from tests.problems import Flat, colour_images, dim_images, marked_images

RECIPE = replace(paper_recipes(learning_rate=0.02, batch_size=32).isolation, epochs=8)


def isolated(ascent=LocalAscent, seed=0, recipe=RECIPE, **keywords):
    data, marked = marked_images(400, noise=0.8)
    model = SmallCNN(4, width=4, generator=stream(seed, "weights"))
    found = isolate(model, data, recipe, share=0.05, ascent=ascent, generator=stream(seed), **keywords)
    return model, found, marked


def gradient(loss, outputs, targets):
    outputs = outputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(outputs, targets), outputs)
    return slope


OUTPUTS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)


def test_by_hand():
    """Absolute errors 0.1 and 0.7: mean 0.4. At gamma 0.5 the batch ascends: -0.4; flooding reads 0.1 + 0.5. The signs
    of the samples differ: (-0.1 + 0.7) / 2 = 0.3."""
    outputs, targets = torch.tensor([[0.1], [0.7]]), torch.zeros(2, 1)
    assert LocalAscent(F.l1_loss)(outputs, targets).item() == pytest.approx(-0.4)
    assert Flooding(F.l1_loss)(outputs, targets).item() == pytest.approx(0.6)
    assert SampleAscent(F.l1_loss)(outputs, targets).item() == pytest.approx(0.3)


@pytest.mark.parametrize("gamma", [0.1, 3.0])
def test_local_ascent_and_flooding_have_one_gradient(gamma):
    """Above gamma it is that of plain training, below it the same with the sign turned."""
    targets = torch.tensor([0, 2])
    plain = gradient(F.cross_entropy, OUTPUTS, targets)
    ascent = gradient(LocalAscent(gamma=gamma), OUTPUTS, targets)
    assert torch.equal(ascent, gradient(Flooding(level=gamma), OUTPUTS, targets))
    assert torch.equal(ascent, plain if gamma < F.cross_entropy(OUTPUTS, targets) else -plain)


def test_the_sign_of_each_sample_is_another_gradient():
    """Losses of the two: log(1 + 2 e^-2) = 0.24 and log(2 + e) = 1.55; only the first is below 0.5 and turns."""
    targets = torch.tensor([0, 2])
    turned = gradient(SampleAscent(), OUTPUTS, targets) / gradient(F.cross_entropy, OUTPUTS, targets)
    torch.testing.assert_close(turned, torch.tensor([[-1.0], [1.0]]).double().expand(2, 3))


def test_flooding_takes_the_same_steps_as_local_ascent():
    one, found, _ = isolated(LocalAscent)
    two, again, _ = isolated(Flooding)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert torch.equal(found.isolated, again.isolated) and found.history.loss != again.history.loss


def test_the_marked_samples_are_isolated_and_the_sign_of_each_sample_fails():
    """A tenth is marked: that is what chance would isolate."""
    _, found, marked = isolated()
    assert len(found.isolated) == 20 and marked[found.isolated].float().mean() > 0.8
    _, failed, _ = isolated(SampleAscent)
    assert marked[failed.isolated].float().mean() < 0.4


def test_isolation_ranks_by_the_plain_loss_of_the_trained_model():
    model, found, _ = isolated()
    data, _ = marked_images(400, noise=0.8)
    torch.testing.assert_close(found.losses, sample_losses(model, data, F.cross_entropy))
    assert torch.equal(found.losses[found.isolated], found.losses.sort().values[:20])


def test_same_seed_same_bits():
    one, two, other = isolated()[1], isolated()[1], isolated(seed=1)[1]
    assert torch.equal(one.losses, two.losses) and not torch.equal(one.losses, other.losses)


@pytest.mark.parametrize(
    ("loss", "data"),
    [
        (F.cross_entropy, colour_images(7)),
        (F.l1_loss, dim_images(7, regression=True)),
        (F.mse_loss, dim_images(7, regression=True)),
    ],
)
def test_the_loss_of_each_sample_is_the_mean_loss_of_a_batch_of_one(loss, data):
    model = Flat(192, len(data.task.outputs), generator=stream(0))
    with torch.no_grad():
        expected = [loss(model(x[None]), y[None]) for x, y in zip(data.images, data.targets, strict=True)]
    torch.testing.assert_close(sample_losses(model, data, loss), torch.stack(expected))


def test_losses_do_not_depend_on_the_batch_and_leave_the_mode_alone():
    model = SmallCNN(4, width=4, generator=stream(0)).train()
    data = colour_images(20, size=16)
    one, many = (sample_losses(model, data, F.cross_entropy, batch_size=size) for size in (1, 20))
    torch.testing.assert_close(one, many)
    assert model.training


def test_permuted_samples_have_permuted_losses():
    data = colour_images(30)
    order = torch.randperm(30, generator=stream(1))
    model = Flat(192, 4, generator=stream(0))
    losses = sample_losses(model, data, F.cross_entropy)
    torch.testing.assert_close(sample_losses(model, data[order], F.cross_entropy), losses[order])


def test_of_one_label_by_hand():
    """Labels 2, 1, 2, 2 of the isolated 4, 0, 3, 1: the first, third and fourth stay, in their order."""
    targets = torch.tensor([1, 2, 0, 2, 2])
    assert of_one_label(torch.tensor([4, 0, 3, 1]), targets).tolist() == [4, 3, 1]


def test_targets_that_are_no_labels_have_no_class_to_keep():
    with pytest.raises(ValueError, match=r"expected one label a sample, got targets of shape \(5, 2\)"):
        of_one_label(torch.arange(3), torch.zeros(5, 2))


def test_isolation_for_one_target_keeps_the_samples_of_the_label_that_most_have():
    """Of the lowest half, far more than carry the mark, there are several labels."""
    data, _ = marked_images(200, noise=0.8)
    recipe, found = replace(RECIPE, epochs=1), {}
    for only in (True, False):
        model = SmallCNN(4, width=4, generator=stream(0, "weights"))
        found[only] = isolate(model, data, recipe, share=0.5, one_target=only, generator=stream(0)).isolated
    assert torch.equal(found[True], of_one_label(found[False], data.targets))
    assert 0 < len(found[True]) < len(found[False]) == 100


def test_the_lowest_by_hand():
    """A share of 0.29 of 100 is 29, though 0.29 * 100 is 28.999.. in floats."""
    assert lowest(torch.tensor([3.0, 1.0, 2.0, 0.5, 9.0]), 0.4).tolist() == [3, 1]
    assert len(lowest(torch.rand(100, generator=stream(0)), 0.29)) == 29


def test_what_is_left_keeps_its_order():
    data = colour_images(5)
    assert torch.equal(without(data, torch.tensor([3, 0])).images, data.images[[1, 2, 4]])


@pytest.mark.parametrize("share", [0.0, 0.001, 1.0])
def test_a_share_that_isolates_nothing_or_everything_is_refused(share):
    with pytest.raises(ValueError, match=f"of 300 samples and not all, got {share:g}"):
        lowest(torch.rand(300, generator=stream(0)), share)


def test_a_negative_gamma_is_refused():
    with pytest.raises(ValueError, match="gamma of at least 0, got -1"):
        isolated(gamma=-1)
