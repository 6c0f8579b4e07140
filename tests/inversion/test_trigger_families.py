import pytest
import torch

from drmlib.inversion.drmguard import signs
from drmlib.inversion.trigger_families import Additive, Flows, Masks, changed_pixels
from drmlib.inversion.trigger_networks import Blurred, Generators, ShuffledUNets, UNets
from drmlib.rng import stream
from tests.problems import noise_images

UNIVERSAL = (Masks, Additive, Flows)
NETWORKS = (UNets, ShuffledUNets, Generators, Blurred)
IMAGES = noise_images(5, size=16)
DIRECTIONS = signs(2, IMAGES.device)


def made(family):
    return family(IMAGES, DIRECTIONS, generator=stream(0))


@pytest.mark.parametrize("family", UNIVERSAL + NETWORKS)
def test_every_candidate_edits_every_image(family):
    candidates = made(family)
    edited = candidates(IMAGES)
    assert edited.shape == (4, 5, 3, 16, 16)
    assert edited.min() >= 0 and edited.max() <= 1
    assert candidates.cost(IMAGES, edited, torch.ones(16, 16)).shape == (4,)
    edited.square().sum().backward()
    assert all(p.grad is not None for p in candidates.parameters())


@pytest.mark.parametrize("family", UNIVERSAL + NETWORKS)
def test_one_candidate_is_what_it_was_among_the_others_and_its_own(family):
    candidates = made(family)
    if family in NETWORKS:
        candidates.eval()
    before = candidates(IMAGES).detach()
    one = candidates.only(2)
    torch.testing.assert_close(one(IMAGES)[0], before[2])
    with torch.no_grad():
        for parameter in one.parameters():
            parameter += 1
    torch.testing.assert_close(candidates(IMAGES), before)


@pytest.mark.parametrize("family", UNIVERSAL + NETWORKS)
def test_the_trigger_does_what_the_candidate_did(family):
    one = made(family).only(1)
    if family in NETWORKS:
        one.eval()
    trigger = one.trigger()
    torch.testing.assert_close(trigger(IMAGES), one(IMAGES)[0].detach(), rtol=1e-4, atol=1e-5)
    levels = (IMAGES * 255).round().to(torch.uint8)
    assert (trigger(levels).float() - 255 * trigger(levels / 255)).abs().max() <= 1.01
    torch.testing.assert_close(trigger(IMAGES)[2:3], trigger(IMAGES[2:3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", UNIVERSAL)
def test_universal_families_write_the_same_on_every_image(family):
    """Two copies of one image beside another: equal edits, whatever the neighbours."""
    images = torch.cat([IMAGES[:1], IMAGES[1:2], IMAGES[:1]])
    edited = made(family)(images)
    torch.testing.assert_close(edited[:, 0], edited[:, 2])


def test_additive_by_hand():
    """x = 0.5, pattern 0.3 tanh(p): with p large, 0.8; where x is 0.9 it is clipped to 1."""
    candidates = Additive(torch.zeros(1, 1, 1, 2), DIRECTIONS[:1], generator=stream(0))
    with torch.no_grad():
        candidates.parameter.fill_(50.0)
    images = torch.tensor([[[[0.5, 0.9]]]])
    assert candidates(images).flatten().tolist() == pytest.approx([0.8, 1.0])


def test_a_flow_costs_its_displacement_in_sides_of_the_image():
    """All control points at (0.5, 0): every pixel looks 0.5 x reach 0.25 x half a side = 1/16 side to the right.

    The mean over the two components is half of that.
    """
    candidates = made(Flows)
    with torch.no_grad():
        candidates.parameter.zero_()
        assert torch.allclose(candidates(IMAGES), IMAGES[None].expand(4, -1, -1, -1, -1), atol=1e-6)
        candidates.parameter[:, 0] = 0.5
    cost = candidates.cost(IMAGES, candidates(IMAGES), torch.ones(16, 16))
    torch.testing.assert_close(cost, torch.full((4,), 1 / 32))


def test_changed_pixels_by_hand():
    """One pixel of four changed by 0.4 under attention 3, the others' attention 1/3: mean 3 * 0.4 / 4."""
    images, edited = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 2, 2)
    edited[..., 0, 1] = 0.4
    attention = torch.tensor([[1 / 3, 3.0], [1 / 3, 1 / 3]])
    torch.testing.assert_close(changed_pixels(images, edited, attention), torch.tensor([0.3]))


def test_shuffled_networks_write_on_the_next_image_while_they_learn():
    shuffled, plain = made(ShuffledUNets), made(UNets)
    plain.load_state_dict(shuffled.state_dict())
    torch.testing.assert_close(shuffled.train().residual(IMAGES), plain.train().residual(IMAGES).roll(1, 1))
    torch.testing.assert_close(shuffled.eval().residual(IMAGES), plain.eval().residual(IMAGES))


def test_blurred_cannot_see_what_averages_out():
    """Two images with the same means over 4 x 4 blocks get the same edit; UNets tell them apart."""
    stripes = torch.arange(16).remainder(2).float().expand(1, 3, 16, 16)
    grey = torch.full((1, 3, 16, 16), 0.5)
    blind, seeing = made(Blurred).eval(), made(UNets).eval()

    def edits(family):
        return [(family(x) - x)[:, 0] for x in (stripes * 0.2 + 0.4, grey)]

    torch.testing.assert_close(*edits(blind))
    assert (edits(seeing)[0] - edits(seeing)[1]).abs().max() > 1e-3


def test_directions_reach_the_network():
    edited = made(Blurred).eval()(IMAGES)
    assert (edited[0] - edited[3]).abs().max() > 1e-4
