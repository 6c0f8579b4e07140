import pytest
import torch

from drmlib.attacks.bpp import Bpp, BppNegative, Dithered
from drmlib.attacks.per_image import choice
from drmlib.data.dataset import as_bytes
from drmlib.rng import stream

IMAGES = torch.rand(6, 3, 12, 12, generator=stream(0))


def test_the_palette_by_hand():
    """Three levels 0, 1/2, 1: 0.2 goes to 0, 0.3 to 1/2, 0.8 to 1."""
    images = torch.tensor([0.2, 0.3, 0.8]).view(1, 3, 1, 1)
    assert Bpp(3)(images).flatten().tolist() == [0, 0.5, 1]


def test_at_most_eight_levels_a_channel_and_twice_is_once():
    for images in (IMAGES, as_bytes(IMAGES)):
        made = Bpp()(images)
        assert all(len(made[:, c].unique()) <= 8 for c in range(3))
        assert torch.equal(Bpp()(made), made)


def test_with_all_levels_bytes_do_not_change():
    assert torch.equal(Bpp(256)(as_bytes(IMAGES)), as_bytes(IMAGES))


def test_dithering_by_hand():
    """Two levels. 0.4 becomes 0, error 0.4: the right neighbour, 0.4, gets 7/16 of it, 0.575, and becomes 1."""
    assert Dithered(2)(torch.full((1, 1, 1, 2), 0.4)).flatten().tolist() == [0, 1]


def test_dithering_keeps_the_mean_where_rounding_does_not():
    flat = torch.full((1, 1, 24, 24), 0.3)
    assert abs(Dithered(2)(flat).mean() - 0.3) < 0.03 and Bpp(2)(flat).max() == 0
    assert len(Dithered()(IMAGES).unique()) <= 8


def test_a_negative_sample_carries_the_rounding_error_of_another_image():
    others = torch.rand(5, 3, 12, 12, generator=stream(1))
    made = BppNegative(Bpp(), others)(IMAGES)
    drawn = others[choice(IMAGES, 5, seed=0)]
    torch.testing.assert_close(made, (IMAGES + Bpp()(drawn) - drawn).clamp(0, 1))
    assert len(made[:, 0].unique()) > 8, "the image itself keeps its palette"


def test_one_level_is_refused():
    for trigger in (Bpp(1), Dithered(1)):
        with pytest.raises(ValueError, match="at least 2 levels, got 1"):
            trigger(IMAGES)
