import pytest
import torch

from drmlib.attacks.roaming_patch import RoamingPatch
from drmlib.inversion.point_triggers import point_triggers
from drmlib.models.predict import classify
from drmlib.rng import stream
from tests.inversion.test_mesa import IMAGES, Roaming


def test_every_restart_finds_a_potent_patch():
    patches = point_triggers(
        Roaming(), IMAGES, 3, restarts=4, size=2, steps=150, batch_size=20, learning_rate=1.0, generator=stream(0)
    )
    assert patches.shape == (4, 3, 2, 2) and patches.min() >= 0 and patches.max() <= 1
    for patch in patches:
        assert (classify(Roaming(), RoamingPatch(patch)(IMAGES)) == 3).float().mean() > 0.9


def test_restarts_side_by_side_are_those_one_after_another():
    """The loss is summed over restarts, each a mean over its own images: one step from the same patch on the same
    images is the same with another restart beside it."""
    both = point_triggers(Roaming(), IMAGES[:1], 3, restarts=2, size=2, steps=0, generator=stream(0))
    assert both.shape == (2, 3, 2, 2) and not torch.equal(both[0], both[1])

    def corner(images, patches, place):
        return torch.cat([torch.cat([patches, images[:, :, :2, 2:]], 3), images[:, :, 2:]], 2)

    one, two = (
        point_triggers(Roaming(), IMAGES[:1], 3, restarts=n, size=2, steps=1, rule=corner, generator=stream(0))
        for n in (1, 2)
    )
    start = torch.rand(1, 3, 2, 2, generator=stream(0))
    first = torch.rand(2, 3, 2, 2, generator=stream(0))[:1]
    assert torch.equal(start, first), "the first restart starts at the same patch"
    torch.testing.assert_close(one[0], two[0])


def test_a_generator_on_the_images_device_is_asked_for():
    with pytest.raises(TypeError):
        point_triggers(Roaming(), IMAGES, 3)
