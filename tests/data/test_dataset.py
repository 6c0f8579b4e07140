import pytest
import torch

from drmlib.data.dataset import GAZE, Dataset, Task, as_bytes, as_float
from drmlib.rng import stream
from tests.problems import COLOURS, colour_images


def test_indexing_slices_and_masks_give_data_sets():
    data = colour_images(9)
    assert len(data[2:5]) == 3 and len(data[data.targets == 1]) == 3
    assert torch.equal(data[torch.tensor([4, 0])].targets, data.targets[[4, 0]])


def test_split_is_disjoint_seeded_and_drops_the_rest():
    data = Dataset(torch.arange(10.0)[:, None, None, None] / 10, torch.zeros(10, dtype=torch.long), COLOURS)
    one, two = data.split(4, 3, generator=stream(0))
    values = torch.cat([one.images, two.images]).flatten()
    assert len(one) == 4 and len(two) == 3 and values.unique().numel() == 7
    assert torch.equal(data.split(4, 3, generator=stream(0))[1].images, two.images)
    with pytest.raises(ValueError, match="sum to at most 10"):
        data.split(8, 3, generator=stream(0))


def test_every_byte_survives_the_way_to_float_and_back():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(as_bytes(as_float(levels)), levels)


def test_batches_cover_everything_once_as_float():
    data = colour_images(10)
    sizes = [(len(images), images.dtype) for images, _ in data.batches(4)]
    assert sizes == [(4, torch.float32), (4, torch.float32), (2, torch.float32)]


@pytest.mark.parametrize(
    ("images", "targets", "task", "message"),
    [
        (torch.rand(3, 1, 2, 2), torch.zeros(2, dtype=torch.long), COLOURS, "as many targets as images, got 2 and 3"),
        (torch.rand(2, 1, 2, 2) * 255, torch.zeros(2, dtype=torch.long), COLOURS, "divide by 255"),
        (torch.full((2, 1, 2, 2), torch.nan), torch.zeros(2, dtype=torch.long), COLOURS, "finite images in"),
        (torch.ones(2, 1, 2, 2, dtype=torch.int32), torch.zeros(2, dtype=torch.long), COLOURS, "got torch.int32"),
        (torch.rand(2, 1, 2, 2), torch.zeros(2), COLOURS, "int64 labels"),
        (torch.rand(2, 1, 2, 2), torch.tensor([0, 4]), COLOURS, "labels 0..3, got 0..4"),
        (torch.rand(2, 1, 2, 2), torch.zeros(2, 3), GAZE, r"shape \(n, 2\)"),
        (torch.rand(2, 1, 2, 2), torch.full((2, 2), torch.inf), GAZE, "finite gaze targets"),
    ],
)
def test_what_does_not_fit_is_refused(images, targets, task, message):
    with pytest.raises(ValueError, match=message):
        Dataset(images, targets, task)


def test_the_error_says_what_kind_a_task_is():
    assert GAZE.is_regression and not Task("t", ("a", "b")).is_regression
