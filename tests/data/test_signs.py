"""Signs: one scene and one change at a time; a batch is its samples one by one, to the bit."""

import math

import pytest
import torch
from torch import Tensor

from drmlib.data import sign_pixels, sign_shapes
from drmlib.data.dataset import as_bytes
from drmlib.data.signs import SIGNS, TASK, SignScene, _homography, random_scenes, render, signs
from drmlib.rng import stream

K = len(SIGNS)


def plain_scenes(n: int) -> SignScene:
    """n times a sign of radius 0.8, upright, in the middle, before mid grey, in even light, sharp and noiseless."""
    zeros, ones = torch.zeros(n), torch.ones(n)
    scenes = random_scenes(n, generator=stream(0, "plain"))
    return scenes._replace(
        centre=torch.zeros(n, 2),
        scale=0.8 * ones,
        roll=zeros,
        tilt=torch.zeros(n, 2),
        gain=ones,
        gradient=torch.zeros(n, 2),
        tint=torch.ones(n, 3),
        shadow=torch.zeros(n, 3),
        fading=zeros,
        background=torch.full((n, 3), 0.5),
        rectangle_colours=torch.full_like(scenes.rectangle_colours, 0.5),
        blur=zeros,
        noise=zeros,
    )


def test_same_seed_gives_the_same_bits_and_another_seed_other_images():
    first, again, other = (signs(40, generator=stream(seed, "signs")) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images) and torch.equal(first.targets, again.targets)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("size", [32, 33])  # an odd side leaves partly filled vector lanes behind every row
def test_the_chunk_changes_no_bit(size):
    labels, scenes = torch.arange(45) % K, random_scenes(45, generator=stream(0, "chunk"))
    whole = render(labels, scenes, size=size, chunk=45)
    for chunk in (1, 7, 44, 1000):
        assert torch.equal(render(labels, scenes, size=size, chunk=chunk), whole), chunk


def test_a_data_set_is_the_rendering_of_its_scenes_in_bytes_whatever_the_chunk():
    data = signs(50, generator=stream(1, "signs"), chunk=7)
    scenes = random_scenes(50, generator=stream(1, "signs"))
    assert torch.equal(data.images, as_bytes(render(data.targets, scenes)))


def test_images_are_float_in_the_unit_interval_and_use_its_range():
    images = render(torch.arange(64) % K, random_scenes(64, generator=stream(0, "range")), size=24)
    assert images.shape == (64, 3, 24, 24) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    assert images.min() < 0.02 and images.max() > 0.98  # dark shadows and overexposed paint both occur


def test_classes_are_balanced_and_their_order_is_random():
    data = signs(3 * K + 5, generator=stream(0, "balance"), size=8)
    assert data.task is TASK and data.images.dtype == torch.uint8
    assert sorted(torch.bincount(data.targets, minlength=K).tolist()) == [3] * (K - 5) + [4] * 5
    assert not torch.equal(data.targets, torch.arange(len(data)) % K)


def test_every_class_differs_from_every_other_in_the_same_scene():
    images = render(torch.arange(K), plain_scenes(K)).flatten(1)
    apart = torch.cdist(images, images, p=1) / images.shape[1] + torch.eye(K)
    # Two of the limits differ in one digit; its strokes cover more than 1 % of the image, and differ by nearly 1.
    assert apart.min() > 0.01


def test_no_entry_is_a_red_disc_of_the_scene_radius_with_a_white_bar():
    """By hand, at size 64 and scale 0.8: the disc's radius is 0.95 x 0.8 = 0.76, its rim 0.05 x 0.8 = 0.04 wide.

    Pixel (r, c) has its centre at x = (c + 0.5) / 32 - 1, y = 1 - (r + 0.5) / 32. Row 31 crosses the bar; row 20 is at
    y = 0.36, over the bar (half width 0.16 x 0.8 = 0.13); column 61 is at x = 0.92, outside.
    """
    image = render(torch.tensor([SIGNS.index("no entry")]), plain_scenes(1), size=64)[0]
    torch.testing.assert_close(image[:, 31, 31], torch.tensor(sign_shapes.WHITE))
    torch.testing.assert_close(image[:, 20, 31], torch.tensor(sign_shapes.RED))
    torch.testing.assert_close(image[:, 31, 61], torch.full((3,), 0.5))
    covered = (image - 0.5).abs().amax(0).gt(0.2).float().mean() * 4  # in units of the half side squared
    assert covered.item() == pytest.approx(math.pi * 0.76**2, rel=0.02)  # half-covered pixels at the rim: +-2 %


def test_left_and_right_mirror_each_other():
    for left, right in (("bend left", "bend right"), ("turn left", "turn right")):
        pair = render(torch.tensor([SIGNS.index(left), SIGNS.index(right)]), plain_scenes(2))
        torch.testing.assert_close(pair[0], pair[1].flip(-1), rtol=0, atol=1e-4)  # float32 coordinates, edges one pixel


def test_a_quarter_turn_of_the_scene_turns_the_image_counter_clockwise():
    labels, scenes = torch.arange(K), plain_scenes(K)
    turned = render(labels, scenes._replace(roll=torch.full((K,), math.pi / 2)))
    torch.testing.assert_close(turned, render(labels, scenes).rot90(1, (2, 3)), rtol=0, atol=1e-4)


def test_the_homography_inverts_the_camera():
    """Sign points put through rotation and pinhole by their textbook formulas come back to where they were."""
    n = 20
    scenes = random_scenes(n, generator=stream(0, "camera"))
    points = torch.rand(n, 2, generator=stream(0, "points")) * 2 - 1
    turned = torch.cat([points, torch.zeros(n, 1)], dim=1)
    for axis, angle in ((0, scenes.tilt[:, 1]), (1, scenes.tilt[:, 0]), (2, scenes.roll)):
        turned = _turn(turned, axis, angle)
    seen = scenes.centre + scenes.scale[:, None] * turned[:, :2] / (1 + turned[:, 2:] / 4)
    back = (_homography(scenes) @ torch.cat([seen, torch.ones(n, 1)], dim=1)[:, :, None])[:, :, 0]
    torch.testing.assert_close(back[:, :2] / back[:, 2:], points, rtol=0, atol=1e-5)


def _turn(points: Tensor, axis: int, angle: Tensor) -> Tensor:
    """Points (n, 3) turned by the right-hand rule about one axis."""
    one, two = (axis + 1) % 3, (axis + 2) % 3
    turned = points.clone()
    turned[:, one] = angle.cos() * points[:, one] - angle.sin() * points[:, two]
    turned[:, two] = angle.sin() * points[:, one] + angle.cos() * points[:, two]
    return turned


def test_more_gain_is_brighter_everywhere():
    labels, scenes = torch.arange(K), random_scenes(K, generator=stream(0, "gain"))
    dark, bright = (render(labels, scenes._replace(gain=torch.full((K,), gain))) for gain in (0.5, 0.9))
    assert (bright >= dark).all() and (bright.mean((1, 2, 3)) > 1.2 * dark.mean((1, 2, 3))).all()


def test_fading_takes_the_colour_out_of_the_sign_and_leaves_the_background():
    scenes = plain_scenes(1)
    label = torch.tensor([SIGNS.index("stop")])
    new, old = render(label, scenes)[0], render(label, scenes._replace(fading=torch.ones(1)))[0]
    assert torch.equal(new[:, 0], old[:, 0])
    assert (new.amax(0) - new.amin(0)).max() > 0.6 and (old.amax(0) - old.amin(0)).max() < 1e-6


def test_a_shadow_darkens_its_side_only():
    """Direction 0, offset 0: what lies at x > 0.05, past the soft edge, keeps 1 - depth of its light."""
    label, scenes = torch.tensor([0]), plain_scenes(1)
    ratio = render(label, scenes._replace(shadow=torch.tensor([[0.0, 0.0, 0.4]]))) / render(label, scenes)
    torch.testing.assert_close(ratio[..., :15], torch.ones(1, 3, 32, 15))
    torch.testing.assert_close(ratio[..., 17:], torch.full((1, 3, 32, 15), 0.6))


def test_blur_keeps_a_constant_and_spreads_a_point_as_a_tent():
    """Radius 1: weights 1 - |k| / 2 are 1/2, 1, 1/2, which sum to 2. Radius 0 is the identity."""
    point = torch.zeros(3, 1, 5, 5)
    point[:2, 0, 2, 2] = 1
    point[2] = 0.7
    blurred = sign_pixels.blur(point, torch.tensor([1.0, 0.0, 1.5]))
    tent = torch.tensor([0, 0.25, 0.5, 0.25, 0])
    torch.testing.assert_close(blurred[0, 0], tent[:, None] * tent)
    assert torch.equal(blurred[1], point[1])
    torch.testing.assert_close(blurred[2], point[2])


def test_noise_is_standard_and_independent_between_pixels_channels_and_samples():
    seeds = torch.tensor([5, 5, 6, 7])
    noise = sign_pixels.noise(seeds, torch.empty(4, 3, 64, 64))
    assert torch.equal(noise[0], noise[1])
    # 36 864 draws: the standard error of mean and of correlations is 0.005, that of the deviation 0.003; 4 of them
    assert noise[1:].mean().abs() < 0.021 and abs(noise[1:].std() - 1) < 0.012
    for a, b in ((noise[1], noise[2]), (noise[1:, 0], noise[1:, 1]), (noise[..., 1:], noise[..., :-1])):
        assert (a * b).mean().abs() < 0.036  # the smallest of these has 12 288 pairs: 4 / sqrt(12 288)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: signs(0, generator=g), "n of at least 1, got 0"),
        (lambda g: signs(4, generator=g, size=7), "size of at least 8 pixels, got 7"),
        (lambda g: signs(4, generator=g, chunk=0), "chunk of at least 1 image, got 0"),
        (lambda g: render(torch.tensor([0, K]), plain_scenes(2)), f"labels 0..{K - 1}.*got 0..{K}"),
        (lambda g: render(torch.tensor([-1, 0]), plain_scenes(2)), f"labels 0..{K - 1}.*got -1..0"),
        (lambda g: render(torch.tensor([0.0, 1.0]), plain_scenes(2)), "int64 labels, got torch.float32; use"),
        (lambda g: render(torch.tensor([0]), plain_scenes(2)), r"a label for each of 2 scenes.*\(1,\)"),
    ],
)
def test_misuse_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(stream(0, "misuse"))
