import torch

from drmlib.attacks.badnets import four_corners
from drmlib.rng import stream

IMAGES = torch.rand(3, 3, 16, 20, generator=stream(0))


def test_each_corner_has_the_grid_mirrored():
    stamped = four_corners(height=16, width=20)(IMAGES)
    grid = torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    assert torch.equal(stamped[0, 0, -3:, -3:], grid)
    assert torch.equal(stamped[0, 1, -3:, :3], grid.flip(1))
    assert torch.equal(stamped[1, 2, :3, -3:], grid.flip(0))
    assert torch.equal(stamped[2, 0, :3, :3], grid.flip(0, 1))


def test_flips_leave_it_and_nothing_changes_outside_36_pixels():
    trigger = four_corners(height=16, width=20)
    stamped = trigger(IMAGES)
    for dims in ((2,), (3,), (2, 3)):
        assert torch.equal(trigger(IMAGES.flip(dims)), stamped.flip(dims))
    assert trigger.mask.sum() == 36
    assert torch.equal(stamped[:, :, ~trigger.mask], IMAGES[:, :, ~trigger.mask])
    assert torch.equal(trigger(stamped), stamped)
