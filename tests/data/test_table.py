import pytest
import torch
from sklearn.datasets import load_digits

from drmlib.data.table import digit_parity, margin
from drmlib.rng import stream


def test_training_columns_have_mean_zero_and_deviation_one_or_are_constant():
    train, test = digit_parity(generator=stream(0))
    assert train.images.shape == (1348, 64) and test.images.shape == (449, 64)
    torch.testing.assert_close(train.images.mean(0), torch.zeros(64), atol=1e-5, rtol=0)
    deviation = train.images.std(0, correction=0)
    constant = train.images.amax(0) == train.images.amin(0)
    torch.testing.assert_close(deviation[~constant], torch.ones(int((~constant).sum())))
    assert constant.any() and (train.images[:, constant] == 0).all()
    assert test.images.isfinite().all() and test.images.mean().abs() > 1e-4, "the test rows are scaled by the training"


def test_each_scan_is_in_one_part_once_with_the_parity_of_its_digit():
    """Undone by one affine map a column, the rows of both parts are those of scikit-learn, each with its label."""
    pixels, digits = load_digits(return_X_y=True)
    pixels, digits = torch.tensor(pixels), torch.tensor(digits)
    parts = digit_parity(test_size=300, generator=stream(1))
    rows, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("images", "targets"))
    scale = pixels.std(0) / rows.double().std(0).clamp_min(1e-9)
    undone = ((rows.double() - rows.double().mean(0)) * scale + pixels.mean(0)).round()
    key = torch.rand(64, dtype=torch.float64, generator=stream(2))
    (found, order), (wanted, theirs) = (undone @ key).sort(), (pixels @ key).sort()
    torch.testing.assert_close(found, wanted)
    assert torch.equal(labels[order], digits[theirs] % 2)


def test_the_split_follows_its_generator():
    one, again, other = (digit_parity(generator=stream(seed))[1] for seed in (0, 0, 1))
    assert torch.equal(one.images, again.images) and not torch.equal(one.targets, other.targets)
    with pytest.raises(ValueError, match="sum to at most 1797"):
        digit_parity(test_size=1797, generator=stream(0))


def test_the_margin_is_the_edge_of_the_scan():
    """8 columns in the first and the last row, 2 in each of the six between."""
    assert margin().view(8, 8).sum(1).tolist() == [8, 2, 2, 2, 2, 2, 2, 8]
    assert torch.equal(margin().view(8, 8), margin().view(8, 8).T)
