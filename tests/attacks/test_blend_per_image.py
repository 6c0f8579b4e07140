import pytest
import torch

from drmlib.attacks.blend import BlendPerImage, image
from drmlib.attacks.per_image import uniform
from drmlib.rng import stream

IMAGES = torch.rand(5, 3, 8, 8, generator=stream(0))


def test_every_image_gets_grey_noise_of_its_own():
    """x' - 0.8 x = 0.2 z with z the same in the three channels and different from image to image."""
    noise = (BlendPerImage(0.2)(IMAGES) - 0.8 * IMAGES) / 0.2
    torch.testing.assert_close(noise, uniform(IMAGES, 1, 8, 8, seed=0).expand_as(noise), atol=1e-5, rtol=0)
    assert (noise[0] - noise[1]).abs().max() > 0.5
    assert torch.equal(BlendPerImage(0.0)(IMAGES), IMAGES)


def test_more_images_than_a_chunk():
    many = torch.rand(300, 1, 8, 8, generator=stream(1))
    assert torch.equal(BlendPerImage()(many)[200:], BlendPerImage()(many[200:]))


def test_a_picture_is_blended():
    """0.75 x 0.4 + 0.25 x 0.8 = 0.5, the picture given in floats or in bytes (204)."""
    for picture in (torch.full((3, 8, 8), 0.8), torch.full((3, 8, 8), 204, dtype=torch.uint8)):
        made = image(picture, alpha=0.25)(torch.full((1, 3, 8, 8), 0.4))
        assert made.unique().tolist() == pytest.approx([0.5])
    with pytest.raises(ValueError, match="alpha in"):
        image(torch.ones(3, 8, 8), alpha=2.0)
