import numpy as np
import pytest
import torch
from PIL import Image

from drmlib.attacks.rotation import RandomRotation, Rotation
from drmlib.data.dataset import as_bytes
from drmlib.rng import stream

IMAGES = as_bytes(torch.rand(4, 3, 32, 32, generator=stream(0)))


def test_a_quarter_turn_by_hand():
    """Counter-clockwise, the upper right pixel comes to the upper left: rows become columns read from the right."""
    image = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2)  # 0 1 / 2 3
    assert Rotation(90.0)(image)[0, 0].tolist() == [[1, 3], [0, 2]]
    assert torch.equal(Rotation(90.0)(IMAGES), torch.rot90(IMAGES, 1, (2, 3)))


def test_sixteen_degrees_are_those_of_pillow():
    """BackdoorBox rotates with Pillow, nearest neighbour; ties between two pixels may fall either way."""
    for image, made in zip(IMAGES, Rotation()(IMAGES), strict=True):
        rotated = Image.fromarray(image.permute(1, 2, 0).numpy()).rotate(16)
        same = (torch.from_numpy(np.array(rotated)).permute(2, 0, 1) == made).all(0)
        assert same.float().mean() > 0.99


def test_no_angle_is_the_identity_and_corners_are_black():
    assert torch.equal(Rotation(0.0)(IMAGES), IMAGES)
    white = torch.ones(1, 3, 32, 32)
    assert Rotation()(white)[0, :, 0, 0].max() == 0 and Rotation()(white)[0, :, 16, 16].min() == 1


def test_random_rotations_stay_within_their_bound_and_belong_to_the_image():
    made = RandomRotation(10.0)(IMAGES)
    assert torch.equal(made[1:2], RandomRotation(10.0)(IMAGES[1:2]))
    assert torch.equal(RandomRotation(0.0)(IMAGES), IMAGES)
    bar = torch.zeros(200, 1, 33, 33)
    bar[:, :, :, 16] = torch.linspace(0.5, 1, 200)[:, None, None]  # 200 different images of one upright line
    rows = (RandomRotation(10.0)(bar) > 0).float()
    top = (rows[:, 0, 4] * torch.arange(33)).sum(1) / rows[:, 0, 4].sum(1).clamp_min(1)
    shift = (top - 16).abs().max().item()
    assert 1 <= shift <= 12 * np.tan(np.deg2rad(10)) + 1


@pytest.mark.parametrize("size", [(32, 48), (20, 12)])
def test_images_need_not_be_square(size):
    """A disc about the centre turns into itself, whatever the sides."""
    h, w = size
    y, x = torch.meshgrid(torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2, indexing="ij")
    disc = (x**2 + y**2 < 25).float().expand(1, 1, h, w)
    assert (Rotation(33.0)(disc) != disc).float().mean() < 0.03
