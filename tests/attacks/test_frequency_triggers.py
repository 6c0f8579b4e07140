"""FTrojan, CTRL and the low-frequency trigger: where in the spectrum they put what they add."""

import math

import pytest
import torch

from drmlib.attacks.ctrl import ctrl
from drmlib.attacks.ftrojan import cosine, ftrojan
from drmlib.attacks.low_frequency import low_frequency
from drmlib.rng import stream

GREY = torch.full((1, 3, 32, 32), 0.5)
# RGB to luminance and to the two chroma planes of each trigger's colour space, inverse to what its file adds.
YCRCB = torch.tensor([[0.299, 0.587, 0.114], [0.500, -0.419, -0.081], [-0.169, -0.331, 0.500]])
YUV = torch.tensor([[0.299, 0.587, 0.114], [-0.147, -0.289, 0.436], [0.615, -0.515, -0.100]])


def coefficients(plane: torch.Tensor) -> torch.Tensor:
    """The orthonormal cosine transform (h, w) of a plane (h, w), by products with every cosine."""
    h, w = plane.shape
    return torch.stack([torch.stack([(plane * cosine(u, v, h, w)).sum() for v in range(w)]) for u in range(h)])


def test_the_cosines_are_orthonormal_and_the_first_is_flat():
    """cos 0 = 1 with the scale sqrt(1 / 4) in both directions: 1 / 4 everywhere on 4 x 4."""
    basis = torch.stack([cosine(u, v, 4, 4).flatten() for u in range(4) for v in range(4)])
    torch.testing.assert_close(basis @ basis.T, torch.eye(16), atol=1e-6, rtol=0)
    torch.testing.assert_close(basis[0], torch.full((16,), 0.25))


@pytest.mark.parametrize(
    "trigger, colours, magnitude", [(ftrojan(), YCRCB, 30), (ctrl(), YUV, 100)], ids=["ftrojan", "ctrl"]
)
def test_the_energy_is_in_two_bins_of_the_chroma_planes(trigger, colours, magnitude):
    planes = torch.einsum("pc,chw->phw", colours, (trigger(GREY) - GREY)[0])
    assert planes[0].abs().max() < 0.03 * planes[1:].abs().max(), "next to nothing in the luminance"
    for plane in planes[1:]:
        power = coefficients(plane).square()
        assert (power[15, 15] + power[31, 31]) / power.sum() > 0.999
        torch.testing.assert_close(power[15, 15].sqrt(), torch.tensor(magnitude / 255), rtol=0.02, atol=0)


def test_what_is_added_is_constant_up_to_clipping_and_nothing_at_magnitude_zero():
    images = 0.3 + 0.4 * torch.rand(4, 3, 32, 32, generator=stream(0))
    change = ftrojan()(images) - images
    torch.testing.assert_close(change, change[:1].expand_as(change), atol=1e-6, rtol=0)
    assert torch.equal(ftrojan(magnitude=0)(images), images)


def test_on_other_sizes_the_frequencies_are_the_middle_and_the_highest():
    plane = (ctrl(height=8, width=16)(torch.full((1, 3, 8, 16), 0.5)) - 0.5)[0, 2]
    power = coefficients(plane).square()
    assert (power[3, 7] + power[7, 15]) / power.sum() > 0.999


def test_low_frequency_noise_is_low_in_range_and_non_negative():
    pattern = low_frequency(generator=stream(0)).pattern
    assert pattern.amin((1, 2)).abs().max() < 1e-6 and pattern.amax((1, 2)).sub(0.2).abs().max() < 1e-6
    power = torch.fft.fft2(pattern).abs().square()
    low = torch.fft.fftfreq(32, 1 / 32).abs() <= 4
    assert power[:, low][:, :, low].sum() / power.sum() > 0.999
    assert low_frequency(strength=0.0, generator=stream(0))(GREY).equal(GREY)


@pytest.mark.parametrize("make", [ftrojan, ctrl])
def test_grey_images_have_no_chroma(make):
    with pytest.raises(ValueError, match="needs images of 3 channels, got 1"):
        make(channels=1)


def test_a_strength_out_of_range_is_refused():
    with pytest.raises(ValueError, match="strength in"):
        low_frequency(strength=math.pi, generator=stream(0))
