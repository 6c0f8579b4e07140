import pytest
import torch
from torch.nn import functional as F

from drmlib.attacks.adversarial import pgd
from drmlib.rng import stream
from tests.problems import Flat, noise_images

MODEL = Flat(3 * 8 * 8, 4, generator=stream(0, "flat"))
IMAGES, LABELS = noise_images(6, low=0.3, high=0.7), torch.tensor([0, 1, 2, 3, 0, 1])


def test_on_a_linear_model_pgd_reaches_the_corner_of_the_ball():
    """One output w.x and the loss -output: the best perturbation is -epsilon sign(w) everywhere, known in advance."""
    moved = pgd(MODEL, IMAGES, LABELS, loss=lambda out, y: -out[:, 0].sum(), epsilon=0.05, step=0.02, steps=5)
    wanted = IMAGES - 0.05 * MODEL.head.weight[0].sign().view(1, 3, 8, 8)
    torch.testing.assert_close(moved, wanted.detach())


def test_pgd_raises_the_loss_and_stays_within_epsilon_and_range():
    moved = pgd(MODEL, IMAGES, LABELS, epsilon=0.1, step=0.03, steps=10)
    assert F.cross_entropy(MODEL(moved), LABELS) > F.cross_entropy(MODEL(IMAGES), LABELS) + 1
    assert (moved - IMAGES).abs().max() <= 0.1 + 1e-6 and moved.min() >= 0 and moved.max() <= 1
    dark = torch.zeros_like(IMAGES)
    assert pgd(MODEL, dark, LABELS, epsilon=0.1, steps=3).min() >= 0


def test_no_budget_or_no_step_is_the_identity_and_batches_do_not_matter():
    assert torch.equal(pgd(MODEL, IMAGES, LABELS, epsilon=0.0), IMAGES)
    assert torch.equal(pgd(MODEL, IMAGES, LABELS, steps=0), IMAGES)
    whole = pgd(MODEL, IMAGES, LABELS, steps=3)
    torch.testing.assert_close(pgd(MODEL, IMAGES, LABELS, steps=3, batch_size=4), whole)


def test_the_model_is_left_as_it_was():
    MODEL.train()
    pgd(MODEL, IMAGES, LABELS, steps=1)
    assert MODEL.training and all(p.requires_grad and p.grad is None for p in MODEL.parameters())


def test_a_negative_budget_is_refused():
    with pytest.raises(ValueError, match="at least 0, got -0.1"):
        pgd(MODEL, IMAGES, LABELS, epsilon=-0.1)
