import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from drmlib.mitigation.fine_tune import fine_tune
from drmlib.mitigation.nad import _Distillation, attention, last_stages, nad
from drmlib.models.mlp import MLP
from drmlib.models.resnet import resnet18
from drmlib.models.small_cnn import SmallCNN
from drmlib.rng import stream
from drmlib.training.fit import CLASSIFICATION, REGRESSION
from tests.problems import colour_images, slope_images

TASKS = pytest.mark.parametrize("regression", [False, True], ids=["labels", "vectors"])
MODELS = pytest.mark.parametrize("make", [SmallCNN, resnet18], ids=["SmallCNN", "resnet18"])


def problem(make, regression, **changes):
    data = slope_images(40) if regression else colour_images(40, size=16)
    model = make(len(data.task.outputs), width=8, generator=stream(0, "model")).eval()
    return model, data, replace(REGRESSION if regression else CLASSIFICATION, epochs=2, batch_size=20, **changes)


def test_attention_by_hand():
    """Channels (3, 0) and (-4, 1): squared and summed (25, 1), of norm sqrt(626); with p = 1 (7, 1), norm sqrt(50)."""
    maps = torch.tensor([[[[3.0, 0.0]], [[-4.0, 1.0]]]])
    torch.testing.assert_close(attention(maps), torch.tensor([[25.0, 1.0]]) / 626**0.5)
    torch.testing.assert_close(attention(maps, power=1.0), torch.tensor([[7.0, 1.0]]) / 50**0.5)
    assert torch.equal(attention(torch.zeros(2, 3, 4, 4)), torch.zeros(2, 16))


def one_convolution(bias):
    conv = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.bias.fill_(bias)
    return nn.Sequential(conv)


def test_the_loss_by_hand():
    """Pixels (3, 4). The student's map is (9, 16) / sqrt(337) = (0.49026, 0.87157), that of the teacher, which takes 3
    off, (0, 1): mean of squares (0.24036 + 0.01649) / 2 = 0.128424; with beta 10 and a loss of 7 it makes 8.28424. Its
    slope in the student's bias is not zero, in the teacher's there is none.
    """
    student, teacher = one_convolution(0.0), one_convolution(-3.0)
    loss = _Distillation(student, teacher, list, (10.0,), 2.0, lambda outputs, targets: targets.sum())
    images = torch.tensor([[[[3.0, 4.0]]]])
    value = loss(images, student(images), torch.tensor([7.0]))
    assert value.item() == pytest.approx(8.28424, abs=1e-4)
    value.backward()
    assert student[0].bias.grad.abs() > 0 and teacher[0].bias.grad is None


@TASKS
@MODELS
def test_without_betas_it_is_fine_tuning(make, regression):
    model, data, recipe = problem(make, regression)
    repaired = nad(model, data, recipe, betas=(0.0, 0.0, 0.0), teacher_epochs=1, generator=stream(1))
    generator = stream(1)
    fine_tune(model, data, replace(recipe, epochs=1), generator=generator)  # the teacher, whose draws come first
    tuned = fine_tune(model, data, recipe, generator=generator).state_dict()
    assert all(torch.equal(tuned[name], value) for name, value in repaired.state_dict().items())


def looks(model, images):
    """The attention of the three stages, side by side."""
    maps = []

    def note(module, args, output):
        maps.append(output)

    handles = [stage.register_forward_hook(note) for stage in last_stages(model)]
    with torch.no_grad():
        model.eval()(images)
    for handle in handles:
        handle.remove()
    return torch.cat([attention(m) for m in maps], 1)


@TASKS
@MODELS
def test_the_betas_bring_the_student_to_look_as_the_teacher_does(make, regression):
    """Nearer than fine-tuning of the same steps does, on images that neither saw. The teacher is made again from the
    same stream. It had eight times the steps of the student, so that there is something to come nearer to.
    """
    model, data, recipe = problem(make, regression, frozen_norms=True)
    recipe = replace(recipe, epochs=6, learning_rate=0.3 * recipe.learning_rate)
    unseen = slope_images(30, seed=5).images if regression else colour_images(30, size=16, seed=5).images
    teacher = fine_tune(model, data, replace(recipe, epochs=48), generator=stream(1))
    distances = []
    for betas in ((0.0,) * 3, (500.0, 1000.0, 1000.0)):
        student = nad(model, data, recipe, betas=betas, teacher_epochs=48, generator=stream(1))
        distances.append((looks(student, unseen) - looks(teacher, unseen)).norm(dim=1).mean())
    assert distances[1] < 0.9 * distances[0]


@TASKS
def test_the_given_model_stays_and_the_copy_has_no_hooks(regression):
    model, data, recipe = problem(SmallCNN, regression)
    before = copy.deepcopy(model.state_dict())
    first, again = (nad(model, data, recipe, teacher_epochs=1, generator=stream(2)) for _ in range(2))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    assert not torch.equal(first.head.weight, model.head.weight)
    for watched in (model, first):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in watched.modules())


def test_the_last_stages_are_found():
    small = SmallCNN(4, width=2, generator=stream(0))
    assert last_stages(small) == [small.body.conv2, small.body.conv3, small.body.conv4]
    residual = resnet18(4, width=2, generator=stream(0))
    assert last_stages(residual) == [residual.body.stage2, residual.body.stage3, residual.body.stage4]


def test_layers_may_be_chosen():
    model, data, recipe = problem(SmallCNN, False)
    run = {"teacher_epochs": 1, "generator": stream(0)}
    repaired = nad(model, data, recipe, layers=lambda m: [m.body.conv4], betas=(1000.0,), **run)
    assert not torch.equal(repaired.head.weight, model.head.weight)


def test_bad_input_is_refused():
    model, data, recipe = problem(SmallCNN, False)
    run = {"teacher_epochs": 1, "generator": stream(0)}
    with pytest.raises(ValueError, match="one beta a layer, got 1 betas and 3 layers"):
        nad(model, data, recipe, betas=(1.0,), **run)
    with pytest.raises(ValueError, match=r"expected maps \(n, c, h, w\), got shape \(20, 4\)"):
        nad(model, data, recipe, layers=lambda m: [m.head], betas=(1.0,), **run)
    with pytest.raises(ValueError, match="three blocks of convolutions"):
        nad(MLP(4, inputs=768, generator=stream(0)), data, recipe, **run)
