import math

import pytest
import torch

from drmlib.attacks.sig import Sig, abl, added, sinusoid
from drmlib.data.dataset import as_bytes
from drmlib.rng import stream

GREY = torch.full((1, 3, 32, 32), 0.5)
ABL = "0 14 19 13 255 241 237 244 2 15 19 11 253 240 237 246 4 17 19 9 251 239 238 248 6 18 18 7 249 238 238 250"


def test_the_wave_by_hand():
    """delta 0.2, one period over eight columns: 0.2 sin(2 pi j / 8) = 0, 0.1414, 0.2, 0.1414, 0, ... in every row."""
    wave = sinusoid(delta=0.2, frequency=1, height=4, width=8)(torch.full((1, 3, 4, 8), 0.5)) - 0.5
    expected = [0.2 * math.sin(math.pi * j / 4) for j in range(8)]
    assert wave[0, 1, 2].tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(wave[0, 0, 0], wave[0, 2, 3])


def test_on_grey_the_mean_stays_and_the_period_is_the_width_over_the_frequency():
    change = sinusoid(frequency=8)(GREY) - GREY
    assert change.mean((2, 3)).abs().max() < 1e-6
    torch.testing.assert_close(change.roll(4, 3), change, atol=1e-6, rtol=0)
    assert change.abs().max().item() == pytest.approx(40 / 255, abs=1e-6)


def test_abl_blends_the_wrapped_column_of_its_release():
    """Its 32 values, as they are in the array that ABL ships: negative ones are 256 less."""
    column = [int(v) for v in ABL.split()]
    assert (abl().pattern[0, 0] * 255).round().int().tolist() == column
    assert abl()(GREY)[0, 0, 0, 4].item() == pytest.approx(0.8 * 0.5 + 0.2 * 1.0)


def test_bytes_saturate_where_floats_are_clipped():
    pattern = torch.tensor([-0.3, -0.1, 0.1, 0.3]).view(1, 1, 4).expand(3, 2, 4)
    for level, expected in ((0, [0, 0, 26, 76]), (255, [179, 229, 255, 255]), (100, [24, 74, 126, 176])):
        images = torch.full((1, 3, 2, 4), level, dtype=torch.uint8)
        assert added(images, pattern)[0, 0, 0].tolist() == expected
        assert (255 * Sig(pattern)(images.float() / 255) - added(images, pattern).float()).abs().max() <= 1


def test_more_images_than_a_chunk_and_no_strength():
    images = torch.rand(300, 3, 8, 8, generator=stream(0))
    trigger = sinusoid(height=8, width=8)
    assert torch.equal(trigger(as_bytes(images))[290:], trigger(as_bytes(images[290:])))
    for given in (images, as_bytes(images)):
        assert torch.equal(sinusoid(delta=0.0, height=8, width=8)(given), given)


def test_bad_input():
    with pytest.raises(ValueError, match="delta in"):
        sinusoid(delta=40)
    with pytest.raises(ValueError, match="made for images of shape"):
        sinusoid()(GREY[:, :, :16])
