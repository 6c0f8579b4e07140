import pytest
import torch

from drmlib.attacks.trojan import PATCH, random_square, reversed_patch
from drmlib.rng import stream

GREY = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8)


def test_the_sum_wraps_by_hand():
    """100 + 207 = 307, that is 51 modulo 256; 100 + 29 = 129 does not wrap; clipped, the first is 255."""
    wrapped, clipped = reversed_patch()(GREY), reversed_patch(wrap=False)(GREY)
    assert wrapped[0, 0, 25, 25:28].tolist() == [51, 19, 129]
    assert clipped[0, 0, 25, 25:28].tolist() == [255, 255, 129]


def test_nothing_changes_outside_the_block_and_one_of_its_values_is_zero():
    changed = (reversed_patch()(GREY) != GREY)[0]
    assert changed.sum() == 26 and sum(v == 0 for c in PATCH for row in c for v in row) == 1
    changed[:, 25:28, 25:28] = False
    assert not changed.any()


@pytest.mark.parametrize("wrap", [True, False])
def test_floats_agree_with_bytes_and_keep_what_is_below_a_level(wrap):
    images = torch.rand(4, 3, 32, 32, generator=stream(0))
    made, levels = reversed_patch(wrap=wrap)(images), (images * 255).round().to(torch.uint8)
    assert torch.equal(made[:, :, :25], images[:, :, :25])
    assert (made * 255 - reversed_patch(wrap=wrap)(levels).float()).abs().max() <= 0.51


def test_on_larger_images_it_keeps_its_distance_to_the_corner():
    changed = (reversed_patch(height=64, width=48)(torch.zeros(1, 3, 64, 48, dtype=torch.uint8)) > 0)[0].any(0)
    assert changed.nonzero().amin(0).tolist() == [57, 41] and changed.nonzero().amax(0).tolist() == [59, 43]


def test_the_random_square_is_opaque_at_rows_21_to_28():
    trigger = random_square(generator=stream(0))
    assert trigger.mask.sum() == 64 and trigger.mask[21:29, 21:29].all()
    assert torch.equal(trigger(GREY)[:, :, trigger.mask], trigger(255 - GREY)[:, :, trigger.mask])


def test_grey_images_are_refused():
    with pytest.raises(ValueError, match="3 channels"):
        reversed_patch(channels=1)
