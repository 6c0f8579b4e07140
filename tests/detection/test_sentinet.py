import pytest
import torch

from drmlib.detection.sentinet import Answers, curve, distance_above, regions_of, sentinet, transplanted
from drmlib.metrics import auroc
from drmlib.models.maps import conv_blocks
from drmlib.rng import stream
from tests.problems import PIXEL, PlantedChannel, PlantedClassifier, dim_images, mid_grey_images


def test_curve_by_hand():
    """Points at confidence 0, 1/2 and 1, two of them in one bin: the parabola through (0, 0), (1/2, 1/4) and (1, 1) is
    c^2, for of the two at 1/2 the higher counts."""
    clean = Answers(torch.tensor([0.0, 0.25, 0.1, 1]), torch.tensor([0.0, 0.5, 0.5, 1]))
    torch.testing.assert_close(curve(clean), torch.tensor([0.0, 0, 1]).double(), atol=1e-6, rtol=0)


def test_a_curve_of_two_bins_is_a_line_and_of_one_a_level():
    two = curve(Answers(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.4])))
    torch.testing.assert_close(two, torch.tensor([-0.1, 1, 0]).double(), atol=1e-6, rtol=0)
    one = curve(Answers(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.2])))
    torch.testing.assert_close(one, torch.tensor([0.3, 0, 0]).double(), atol=1e-6, rtol=0)


def test_distance_by_hand():
    """From the line fooled = confidence: (0.2, 0.6) lies 0.4 / sqrt 2 above it, (0.6, 0.2) as far below."""
    found = distance_above(
        Answers(torch.tensor([0.6, 0.2]), torch.tensor([0.2, 0.6])), torch.tensor([0, 1.0, 0]).double()
    )
    torch.testing.assert_close(found, torch.tensor([1.0, -1]) * 0.4 / 2**0.5, atol=1e-3, rtol=0)


def test_grad_cam_finds_the_planted_pixel():
    """Class 3 comes from channel 3 alone, which answers at the white pixel alone."""
    model, images = PlantedChannel(regression=False), dim_images(6, regression=False).images
    images[:, :, 2, 5] = 1.0
    regions = regions_of(model, images, layer=model.relu, share=1 / 64)
    assert regions[:, 0, 2, 5].all() and (regions.sum((1, 2, 3)) == 1).all()


def test_a_planted_pixel_takes_its_label_along():
    """All of it: everything is fooled; noise in its place makes no class 3."""
    channel, row, column = PIXEL
    images = mid_grey_images(1)
    images[0, channel, row, column] = 1.0
    regions = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    regions[0, 0, row, column] = True
    grounds = mid_grey_images(5, seed=1)
    found = transplanted(PlantedClassifier(), images, regions, grounds, torch.full_like(grounds, 0.4))
    assert found.fooled.item() == 1
    grounds[:, :, row, column] = 0.4
    expected = PlantedClassifier()(grounds).softmax(1).amax(1).mean()
    torch.testing.assert_close(found.confidence, expected[None])


@pytest.mark.parametrize("oracle", [False, True])
def test_poison_lies_above_the_curve(colours, oracle):
    images = torch.cat([colours.train.images[colours.poison], colours.train.images[~colours.poison][:60]])
    poison = torch.arange(100) < 40
    masks = torch.zeros(100, 1, 16, 16, dtype=torch.bool)
    masks[:, :, -4:, -4:] = True
    scores = sentinet(
        colours.model,
        images,
        colours.clean.images,
        count=20,
        oracle_masks=masks if oracle else None,
        generator=stream(0),
    )
    assert auroc(scores, poison).value > 0.9


def test_a_score_is_a_function_of_its_image(colours):
    images = colours.train.images[:20]
    order = torch.randperm(20, generator=stream(1))

    def scored(images, **options):
        return sentinet(colours.model, images, colours.clean.images[:40], count=10, generator=stream(0), **options)

    one = scored(images)
    torch.testing.assert_close(one[order], scored(images[order]), atol=1e-5, rtol=0)
    torch.testing.assert_close(one, scored(images, batch_size=30), atol=1e-5, rtol=0)
    assert torch.equal(one, scored(images))


def test_too_few_clean_images_are_refused(colours):
    with pytest.raises(ValueError, match="at least 103 clean images"):
        sentinet(colours.model, colours.train.images[:2], colours.clean.images[:50], generator=stream(0))


def test_blocks_of_convolutions(colours):
    body = colours.model.body
    assert conv_blocks(colours.model) == [body.conv1, body.conv2, body.conv3, body.conv4]
    with pytest.raises(ValueError, match="three blocks of convolutions"):
        conv_blocks(PlantedClassifier())
