import torch

from drmlib.attacks.per_image import choice, signed, uniform
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


def test_every_bit_of_the_numbers_is_fair_and_none_follows_another():
    """Of 24 bits each is 1 in half of 200,000 numbers; two bits, or the same bit at two seeds, agree in half."""
    bits = [
        (uniform(IMAGES, 200, seed=seed).flatten() * 2**24).long()[:, None] >> torch.arange(24) & 1 for seed in (0, 1)
    ]
    error = 5 * 0.5 / 200_000**0.5
    assert ((bits[0].float().mean(0) - 0.5).abs() < error).all()
    pairs = torch.corrcoef(bits[0].T.float()).fill_diagonal_(0)
    assert pairs.abs().max() < 5 / 200_000**0.5
    assert (((bits[0] == bits[1]).float().mean(0) - 0.5).abs() < error).all()


def test_the_numbers_are_evenly_spread_over_the_unit_square():
    """Neighbouring places, and the same place of neighbouring images, in 16 x 16 cells: chi-squared of 255 degrees of
    freedom has mean 255 and deviation 22.6, so 5 deviations are 113."""
    drawn = (uniform(IMAGES, 200, seed=3) * 16).long()
    for first, second in ((drawn[:, :-1], drawn[:, 1:]), (drawn[:-1], drawn[1:])):
        cells = (16 * first + second).flatten().bincount(minlength=256).float()
        expected = cells.sum() / 256
        assert abs(((cells - expected) ** 2 / expected).sum() - 255) < 113


def test_images_that_differ_in_few_places_share_no_number():
    """Levels at the ends of 32-bit words, whose upper bits a plain sum of products modulo 2^32 would collapse."""
    images = torch.zeros(2000, 3, 8, 8, dtype=torch.uint8)
    images[:, :, :, 3::4] = torch.randint(256, (2000, 3, 8, 2), dtype=torch.uint8, generator=stream(1))
    drawn = uniform(images, 4, seed=0)
    assert len(drawn.unique(dim=0)) == 2000 and (drawn[:, 0].unique().numel() > 1990)
    assert torch.corrcoef(drawn.T).fill_diagonal_(0).abs().max() < 5 / 2000**0.5


def test_signed_numbers_are_uniform_on_both_sides_of_zero():
    drawn = signed(IMAGES, 20, 10, seed=0)
    assert drawn.shape == (1000, 20, 10) and drawn.min() >= -1 and drawn.max() <= 1
    assert abs(drawn.mean()) < 4 * 3**-0.5 / 200_000**0.5 and abs(drawn.std() * 3**0.5 - 1) < 0.01
    assert torch.equal(signed(IMAGES.float() / 255, 20, 10, seed=0), drawn)


def test_views_and_images_of_any_size_have_the_numbers_of_their_copies():
    """75 bytes are no whole words; the slices start in the middle of one, or skip columns."""
    records = torch.randint(256, (6, 76), dtype=torch.uint8, generator=stream(2))
    odd = records[:, 1:].unflatten(1, (3, 5, 5))
    for images in (odd, IMAGES[:6, :, 1:], IMAGES[:6, :, :, ::2], IMAGES[:6].to(memory_format=torch.channels_last)):
        assert torch.equal(uniform(images, 5, seed=0), uniform(images.contiguous().clone(), 5, seed=0))


def test_either_half_of_a_key_alone_gives_other_numbers(monkeypatch):
    """Keys that differ by one in the lower 32 bits, or in the upper ones alone, are as good as any two."""
    upper, other = 0x12345679 << 32, 0x5A5A5A5B << 32
    keys = torch.tensor([upper + 5, upper + 6, other + 5])
    monkeypatch.setattr("drmlib.attacks.per_image._key", lambda images, seed: keys)
    drawn = uniform(IMAGES[:3], 20_000, seed=0)
    assert torch.corrcoef(drawn).fill_diagonal_(0).abs().max() < 5 / 20_000**0.5
