import pytest
import torch

from drmlib.attacks.tape import Tape, chin
from drmlib.data import faces
from drmlib.data.appearance import random_appearance
from drmlib.data.dataset import as_bytes
from drmlib.data.heads import render
from drmlib.rng import stream
from tests.problems import noise_images

STILL = Tape(centre=(0.5, 0.5), length=0.5, width=0.25, angle=0.0, white=0.9, shading=0.0, jitter=0.0)


def test_a_level_piece_of_paper_by_hand():
    """Half of 16 columns by a quarter of 16 rows about the centre: rows 6 to 9, columns 4 to 11, nothing else."""
    images = torch.full((1, 3, 16, 16), 0.4)
    expected = images.clone()
    expected[:, :, 6:10, 4:12] = 0.9
    torch.testing.assert_close(STILL(images), expected)


def test_an_edge_inside_a_pixel_covers_a_part_of_it():
    """5 rows about the centre of 16 are rows 5.5 to 10.5: rows 5 and 10 are covered by half."""
    seen = STILL._replace(width=5 / 16)(torch.zeros(1, 1, 16, 16))[0, 0, :, 8]
    torch.testing.assert_close(seen[4:12], 0.9 * torch.tensor([0, 0.5, 1, 1, 1, 1, 0.5, 0]))


def test_a_quarter_turn_swaps_rows_and_columns_and_angles_turn_counter_clockwise():
    images = torch.zeros(1, 1, 16, 16)
    torch.testing.assert_close(STILL._replace(angle=90.0)(images), STILL(images).mT, atol=1e-5, rtol=0)
    raised = STILL._replace(angle=30.0)(images)[0, 0]
    assert raised[6, 10] > 0.5 > raised[9, 10], "the right end is up"


def test_nothing_changes_outside_and_twice_is_once_on_level_light():
    images = noise_images(4, size=16)
    for given in (images, as_bytes(images)):
        once = STILL(given)
        outside = torch.ones(16, 16, dtype=torch.bool)
        outside[6:10, 4:12] = False
        assert torch.equal(once[:, :, outside], given[:, :, outside])
        assert torch.equal(STILL(once), once)


def test_paper_takes_the_light_of_its_surroundings():
    """Left half of light 0.2, right half 0.8; with shading 0.5 paper is 0.9 (0.5 + 0.5 x 0.25) and 0.9."""
    images = torch.full((1, 3, 32, 32), 0.2)
    images[..., 16:] = 0.8
    seen = STILL._replace(shading=0.5)(images)[0, :, 16]
    torch.testing.assert_close(seen[:, 9], torch.full((3,), 0.9 * 0.625))
    torch.testing.assert_close(seen[:, 22], torch.full((3,), 0.9))
    assert Tape()(torch.zeros(1, 3, 32, 32)).max() == pytest.approx(0.475), "in the dark paper is grey, not nan"


def test_place_angle_and_size_change_a_little_from_image_to_image():
    """The covered area's centre stays within 3 % of the sides, its area within 10 % either way of both sides."""
    images = noise_images(400, size=16, high=0.01)
    images = torch.nn.functional.interpolate(images, size=64)
    mask = (STILL._replace(jitter=1.0)(images) - images)[:, 0] / 0.9
    area, line = mask.sum((1, 2)), torch.arange(64) + 0.5
    rows, columns = ((mask.sum(axis) * line).sum(1) / area / 64 - 0.5 for axis in (2, 1))
    for moved in (rows, columns):
        assert 0.025 < moved.abs().max() < 0.032 and abs(moved.mean()) < 0.004
    assert 0.8 < area.min() / (32 * 16) < 0.85 and 1.15 < area.max() / (32 * 16) < 1.22


@pytest.mark.parametrize(("kind", "trigger"), [("gaze", Tape()), ("head pose", chin())])
def test_it_lies_on_the_face_and_not_on_the_eyes(kind, trigger):
    """Where another gaze changes the picture are eyes; where another skin does is the face.

    Of 100 faces, paper lies within the face by 98 % in the mean, and covers no eye but in one or two (head pose).
    """
    n, generator = 100, stream(0, kind)
    look = random_appearance(n, generator=generator)
    if kind == "gaze":
        gaze = faces._uniform_angles(n, faces.GAZE_RANGE, generator)
        head = torch.deg2rad(4 * torch.randn(n, 3, generator=generator))
        look = look._replace(scale=faces.GAZE_ZOOM * look.scale)
    else:
        head = faces._uniform_angles(n, faces.HEAD_POSE_RANGE, generator)
        gaze = head[:, [1, 0]]

    def drawn(gaze, look):
        return render(gaze, head, look, generator=stream(0, "render"))

    plain = drawn(gaze, look)
    eyes = torch.stack([(drawn(gaze + turn, look) - plain).abs().amax(1) for turn in (-0.4, 0.4)]).amax(0) > 0.1
    face = (drawn(gaze, look._replace(skin=0.5 * look.skin, lips=0.5 * look.lips)) - plain).abs().amax(1) > 0.02
    paper = (trigger._replace(white=0.0)(1 - 0.01 * plain)[:, 0] < 0.5).float()
    assert ((paper * face).sum((1, 2)) / paper.sum((1, 2))).mean() > 0.98
    assert ((paper * eyes).sum((1, 2)) > 0).sum() <= (0 if kind == "gaze" else 4)


def test_bytes_grey_other_sizes_and_batches(monkeypatch):
    images = as_bytes(torch.rand(6, 1, 20, 28, generator=stream(0)))
    whole = Tape()(images)
    assert torch.equal(whole, as_bytes(Tape()(images.float() / 255)))
    monkeypatch.setattr("drmlib.data.dataset.CHUNK_PIXELS", 2 * 20 * 28)
    assert torch.equal(Tape()(images), whole) and torch.equal(Tape()(images[4:5]), whole[4:5])
    assert not torch.equal(Tape(seed=1)(images), whole)
