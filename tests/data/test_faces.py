import pytest
import torch

from drmlib.data import raster
from drmlib.data.appearance import person_of, random_appearance
from drmlib.data.dataset import as_float
from drmlib.data.faces import gaze_faces, head_pose_faces
from drmlib.data.heads import render, rotation
from drmlib.metrics import gaze_direction
from drmlib.rng import stream


def plain(n, **changes):
    """n equal appearances without noise, so that only what a test varies differs."""
    look = random_appearance(1, generator=stream(5, "look"))
    look = look._replace(noise=torch.zeros(1), centre=torch.zeros(1, 2), backdrop=torch.full((1, 2, 3), 0.5), **changes)
    return type(look)(*(field.expand(n, *field.shape[1:]) for field in look))


def draw(gaze, head, size=64, **changes):
    gaze, head = torch.deg2rad(torch.tensor(gaze)), torch.deg2rad(torch.tensor(head))
    return render(gaze, head, plain(len(gaze), **changes), generator=stream(0), size=size)


def test_a_head_turned_by_yaw_and_pitch_faces_the_gaze_direction():
    """rotation (0, 0, 1)^T = gaze_direction(pitch, yaw), whatever the roll."""
    pose = torch.deg2rad(torch.tensor([[30.0, 10, 0], [-20, 15, 25], [0, -30, 5]]))
    torch.testing.assert_close(rotation(pose)[:, :, 2], gaze_direction(pose[:, [1, 0]]))
    torch.testing.assert_close(rotation(pose) @ rotation(pose).mT, torch.eye(3).expand(3, 3, 3))


def test_looking_right_moves_the_irises_right_and_nothing_outside_the_eyes():
    images = draw([[0.0, -20.0], [0.0, 20.0]], [[0.0, 0, 0]] * 2)
    changed = (images[0] - images[1]).abs().amax(0) > 0.02
    rows, columns = changed.nonzero().T
    assert changed.any() and 20 <= rows.min() and rows.max() <= 36 and columns.min() >= 12 and columns.max() <= 52
    darker = images[0].mean(0) - images[1].mean(0)  # above 0 where the irises have gone, below where they were
    gone, were = (shade.clamp_min(0) for shade in (darker, -darker))
    column = torch.arange(64.0)
    assert (gone * column).sum() / gone.sum() > (were * column).sum() / were.sum() + 2


def test_looking_up_moves_the_irises_up():
    images = draw([[-15.0, 0.0], [15.0, 0.0]], [[0.0, 0, 0]] * 2, eye_opening=torch.tensor([0.16]))
    dark = (0.4 - images.mean(1)[:, 20:36, 12:52]).clamp_min(0)
    row = (dark * torch.arange(16)[:, None]).sum((1, 2)) / dark.sum((1, 2))
    assert row[1] < row[0]


def test_a_frontal_face_lit_from_the_front_is_its_own_mirror_image_and_yaw_mirrors():
    light = torch.tensor([[0.0, 0.0, 1.0]])
    frontal = draw([[0.0, 0.0]], [[0.0, 0, 0]], light=light)
    torch.testing.assert_close(frontal, frontal.flip(3), atol=1e-5, rtol=0)
    left, right = (draw([[0.0, s * 25.0]], [[s * 25.0, 0, s * 10.0]], light=light) for s in (-1.0, 1.0))
    torch.testing.assert_close(left, right.flip(3), atol=1e-4, rtol=0)


def test_light_from_the_right_makes_the_right_cheek_brighter():
    image = draw([[0.0, 0.0]], [[0.0, 0, 0]], light=torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0.5]])))
    cheeks = image[0, :, 36:44]
    assert cheeks[..., 40:48].mean() > cheeks[..., 16:24].mean() + 0.05


@pytest.mark.parametrize(("faces", "width", "limits"), [(gaze_faces, 2, (20, 25)), (head_pose_faces, 3, (50, 35, 25))])
def test_sets_hold_targets_in_radians_within_their_range(faces, width, limits):
    data = faces(300, generator=stream(0))
    assert data.images.dtype == torch.uint8 and data.images.shape == (300, 3, 32, 32)
    assert data.targets.shape == (300, width)
    reach = torch.rad2deg(data.targets.abs().amax(0))
    assert (reach <= torch.tensor(limits)).all() and (reach > 0.9 * torch.tensor(limits)).all()


@pytest.mark.parametrize("faces", [gaze_faces, head_pose_faces])
def test_same_seed_same_bits_other_seed_other_faces(faces):
    one, two, other = (faces(5, generator=stream(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.images, two.images) and torch.equal(one.targets, two.targets)
    assert not torch.equal(one.images, other.images)


def test_any_size_shows_the_same_face():
    """A 64-pixel face averaged down is the 32-pixel one up to blur and edges."""
    small, large = (draw([[5.0, 10.0]], [[10.0, 5, 0]], size=size) for size in (32, 64))
    difference = torch.nn.functional.avg_pool2d(large, 2) - small
    assert difference.abs().mean() < 0.02


def test_memory_is_bounded_by_chunks(monkeypatch):
    """A face is drawn alike whether it stands in a chunk of many or alone: only noise and backdrop may differ."""
    angles = [[float(a), float(a)] for a in range(6)]
    whole = draw(angles, [[0.0, 0, 0]] * 6)
    monkeypatch.setattr(raster, "CHUNK_PIXELS", 2 * 64 * 64)
    assert [part.stop - part.start for part in raster.chunks(6, 64)] == [2, 2, 2]
    torch.testing.assert_close(draw(angles, [[0.0, 0, 0]] * 6), whole)


def test_blur_of_a_constant_is_the_constant_and_keeps_the_sum():
    images = torch.full((2, 3, 16, 16), 0.25)
    torch.testing.assert_close(raster.blur(images, torch.tensor([0.5, 2.0])), images)
    images[:, :, 8, 8] = 1
    assert raster.blur(images, torch.tensor([0.5, 1.0])).sum().item() == pytest.approx(images.sum().item(), rel=1e-5)


def test_a_sphere_is_hit_where_it_is():
    """Unit sphere, rays through x = 0, 0.6, 2: depth 1, 0.8 and a miss; the normal at the centre faces the camera."""
    x = torch.tensor([[[0.0, 0.6, 2.0]]])
    surface = raster.ellipsoid(x, torch.zeros_like(x), torch.eye(3)[None], (0, 0, 0), (1, 1, 1))
    torch.testing.assert_close(surface.z[0, 0, :2], torch.tensor([1.0, 0.8]))
    assert (surface.distance[0, 0] < 0).tolist() == [True, True, False]
    assert [component[0, 0, 0].item() for component in surface.normal] == [0, 0, 1]


@pytest.mark.parametrize("bad", [{"n": 0}, {"n": 2, "size": 8}])
def test_nothing_to_draw_or_too_small_to_see_is_an_error(bad):
    with pytest.raises(ValueError, match="expected"):
        gaze_faces(**bad, generator=stream(0))


def test_images_are_in_range():
    assert 0 <= as_float(gaze_faces(50, generator=stream(0)).images).min()


def test_a_person_keeps_what_is_theirs_and_not_what_is_the_photograph_s():
    look = random_appearance(7, persons=3, generator=stream(0))
    assert person_of(7, 3).tolist() == [0, 1, 2, 0, 1, 2, 0]
    for name in ("skin", "hair", "iris", "width", "eye_spacing", "eye_opening"):
        field = getattr(look, name)
        assert torch.equal(field[:3], field[3:6]) and not torch.equal(field[0], field[1])
    for name in ("light", "backdrop", "centre", "smile", "shirt"):
        assert not torch.equal(getattr(look, name)[0], getattr(look, name)[3])


def test_two_generators_draw_different_people_and_one_image_each_is_a_person_each():
    one, two = (random_appearance(4, generator=stream(seed)) for seed in (0, 1))
    skins = torch.cat([one.skin, two.skin])
    assert len(skins.unique(dim=0)) == 8


@pytest.mark.parametrize("persons", [0, 6])
def test_more_persons_than_images_or_none_is_an_error(persons):
    with pytest.raises(ValueError, match=f"expected 1 to 5 persons in 5 images, got {persons}"):
        gaze_faces(5, persons=persons, generator=stream(0))


def test_frames_of_one_person_look_more_alike_than_frames_of_two():
    """Mean colour of the cheeks, which light changes but which skin decides."""
    images = as_float(gaze_faces(200, persons=2, generator=stream(0)).images)[:, :, 18:24, 8:24].mean((2, 3))
    first, second = images[0::2], images[1::2]
    assert (first.mean(0) - second.mean(0)).norm() > 3 * first.std(0).norm() / len(first) ** 0.5


def test_backdrops_and_hair_are_muted():
    """Channels of a backdrop lie within 0.2 of their mean, and no hair is greener than red."""
    look = random_appearance(500, generator=stream(0))
    assert (look.backdrop - look.backdrop.mean(2, keepdim=True)).abs().max() <= 0.2
    assert (look.hair[:, 1] <= look.hair[:, 0]).all()


def test_the_upper_lid_follows_the_pitch_and_the_catch_light_the_lamp():
    white = {"eye_opening": torch.tensor([0.11]), "ambient": torch.ones(1), "skin": torch.full((1, 3), 0.5)}
    images = draw([[-18.0, 0.0], [18.0, 0.0]], [[0.0, 0, 0]] * 2, size=128, **white)
    open_pixels = (images.mean(1)[:, 40:72] > 0.62).sum((1, 2))
    assert open_pixels[0] < open_pixels[1]
    lamps = [torch.nn.functional.normalize(torch.tensor([[x, 0.2, 0.8]])) for x in (-0.8, 0.8)]
    left, right = (draw([[0.0, 0.0]], [[0.0, 0, 0]], size=128, light=lamp, **white) for lamp in lamps)
    columns = torch.arange(128.0)

    def middle(image):
        bright = ((image - torch.minimum(left, right)).mean(1) > 0.2)[0, 48:64]
        return (bright.sum(0) * columns).sum() / bright.sum()

    assert middle(right) > middle(left)


def test_hair_stands_out_around_the_head():
    """Hair of more volume is wider at the temples, where the backdrop was, and leaves the face as it is."""
    thin, thick = (draw([[0.0, 0.0]], [[0.0, 0, 0]], size=96, volume=torch.tensor([v])) for v in (0.95, 1.15))
    changed = (thin - thick).abs().amax(1)[0] > 0.05
    columns = changed[40:60].nonzero()[:, 1]
    assert len(columns) and ((columns < 24) | (columns > 71)).all()
