import torch

from drmlib.attacks.per_image import choice, uniform
from drmlib.rng import stream

IMAGES = torch.randint(256, (1000, 3, 8, 8), dtype=torch.uint8, generator=stream(0, "images"))


def test_the_numbers_are_uniform_and_independent():
    """Mean 1/2 and deviation 1/sqrt(12) within 4 standard errors; numbers of two places or images do not correlate."""
    drawn = uniform(IMAGES, 20, 10, seed=0)
    assert drawn.shape == (1000, 20, 10) and drawn.min() >= 0 and drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 4 * 12**-0.5 / 200_000**0.5 and abs(drawn.std() * 12**0.5 - 1) < 0.01
    for numbers in (drawn.flatten(1).T, drawn.flatten(1)[:200]):
        assert torch.corrcoef(numbers).fill_diagonal_(0).abs().max() < 5.5 / numbers.shape[1] ** 0.5


def test_they_belong_to_the_image_and_not_to_its_neighbours_or_its_dtype():
    drawn = uniform(IMAGES, 5, seed=0)
    assert torch.equal(uniform(IMAGES[7:9], 5, seed=0), drawn[7:9])
    assert torch.equal(uniform(IMAGES.float() / 255, 5, seed=0), drawn)


def test_one_level_of_one_pixel_or_another_seed_changes_all():
    image = IMAGES[:1]
    other = image.clone()
    other[0, 2, 7, 7] ^= 1
    first = uniform(image, 100, seed=0)
    for drawn in (uniform(other, 100, seed=0), uniform(image, 100, seed=1)):
        assert (drawn != first).all() and abs(torch.corrcoef(torch.cat([drawn, first]))[0, 1]) < 0.4


def test_choices_are_equally_likely():
    counts = choice(IMAGES, 4, seed=0).bincount(minlength=4)
    assert counts.sum() == 1000 and ((counts - 250).abs() < 5 * (1000 * 3 / 16) ** 0.5).all()
