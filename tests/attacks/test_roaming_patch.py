import pytest
import torch

from drmlib.attacks.roaming_patch import RoamingPatch, binary, binary_codes, coloured, paste
from drmlib.rng import stream
from tests.problems import noise_images


def test_paste_by_hand():
    """Rooms of 3 x 4 images for 2 x 2 patches are 2 and 3 windows: place (0.5, 0.7) is row 1, column 2."""
    images, patches = torch.zeros(2, 1, 3, 4), torch.ones(2, 1, 2, 2)
    pasted = paste(images, patches, torch.tensor([[0.0, 0.0], [0.5, 0.7]]))
    assert pasted[0, 0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert pasted[1, 0].tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert images.sum() == 0


def test_all_windows_are_equally_likely_and_the_last_is_among_them():
    """32 - 3 + 1 = 30 rows; 3,000 draws give each about 100 +- 10."""
    images = torch.zeros(3000, 1, 32, 32)
    place = torch.rand(3000, 2, generator=stream(0, "place"))
    tops = paste(images, torch.ones(3000, 1, 3, 3), place).amax((1, 3)).argmax(1)
    counts = tops.bincount(minlength=30)
    assert len(counts) == 30 and (counts - 100).abs().max() < 50


def test_gradients_reach_the_patch_and_not_the_window_below_it():
    patches = torch.rand(1, 1, 2, 2, generator=stream(0)).requires_grad_()
    images = torch.rand(1, 1, 4, 4, generator=stream(1)).requires_grad_()
    paste(images, patches, torch.zeros(1, 2)).sum().backward()
    assert patches.grad.sum() == 4 and images.grad.sum() == 12


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"expected patches \(2, 3, <= 8, <= 8\)"):
        paste(noise_images(2), torch.ones(2, 3, 9, 3), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="expected patches"):
        paste(noise_images(2), torch.ones(2, 1, 3, 3), torch.zeros(2, 2))


def test_each_image_has_a_place_of_its_own_that_it_keeps():
    images = noise_images(40, size=32)
    trigger = RoamingPatch(torch.ones(3, 3, 3))
    stamped = trigger(images)
    changed = (stamped != images).any(1)
    assert (changed.sum((1, 2)) == 9).all()
    assert len({tuple(c.nonzero()[0].tolist()) for c in changed}) > 30
    assert torch.equal(trigger(images[7:9]), stamped[7:9])
    assert not torch.equal(RoamingPatch(torch.ones(3, 3, 3), seed=1)(images), stamped)


def test_a_pattern_is_its_code_in_bits():
    """170 = 010101010: row by row 010, 101, 010."""
    patch = binary(170).patch
    assert patch.shape == (3, 3, 3) and patch[1].tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert binary(256).patch[0, 0, 0] == 1, "the most significant bit comes first"
    with pytest.raises(ValueError, match="0 to 511"):
        binary(512)


def test_there_are_51_patterns_of_which_none_is_another_turned_mirrored_or_inverted():
    """Burnside's lemma on the 16 symmetries of 512 patterns; the paper counts 51 too, 0 and 170 among them."""
    codes = binary_codes()
    assert len(codes) == 51 and codes[0] == 0 and codes[-1] == 186 and 170 in codes
    assert 511 not in codes and 128 not in codes, "all white is all black inverted; 128 is 2 turned"


def test_colours_follow_their_generator():
    one, again, other = (coloured(side=5, generator=stream(seed)).patch for seed in (0, 0, 1))
    assert one.shape == (3, 5, 5) and torch.equal(one, again) and not torch.equal(one, other)
