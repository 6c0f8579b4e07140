"""A table for attacks on rows: the handwritten digits that scikit-learn ships, as 64 columns, labelled even or odd.

Alpaydin and Kaynak (1998), "Optical recognition of handwritten digits", UCI, https://doi.org/10.24432/C50P49: 1797
scans of 8 x 8 pixels with values 0 to 16. Nothing is fetched.

It stands in for a table of malware features such as Ember: two classes of several families each, and columns of few
distinct values, so that it means something to call a value rare. scikit-learn's breast cancer table (569 x 30) does
not serve: nearly every value of its columns occurs once, and a watermark of eight columns is not learned at poison
rates up to 10 %; the model of the clean table is taken in by it as often.
"""

from dataclasses import replace

import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor

from drmlib.data.dataset import Dataset, Task

TASK = Task("digit parity", ("even", "odd"))
SIDE = 8


def digit_parity(*, test_size: int = 449, generator: Generator) -> tuple[Dataset, Dataset]:
    """Training and test set of a random split: rows (n, 64) float32, labels 0 even and 1 odd, on generator's device.

    Each column is standardised by mean and standard deviation of the training rows, as Severi et al. (2021) do for
    their network; columns constant there are only centred. Column 8 i + j is the pixel at row i, column j.
    """
    pixels, digits = load_digits(return_X_y=True)
    rows = torch.as_tensor(pixels, dtype=torch.float32, device=generator.device)
    labels = torch.as_tensor(digits, dtype=torch.int64, device=generator.device) % 2
    train, test = Dataset(rows, labels, TASK).split(len(rows) - test_size, test_size, generator=generator)
    mean, std = train.images.mean(0), train.images.std(0, correction=0)
    std = torch.where(std > 0, std, 1)
    return replace(train, images=(train.images - mean) / std), replace(test, images=(test.images - mean) / std)


def margin() -> Tensor:
    """Mask (64,) bool of the 28 columns at the edge of the scan: what an attacker can write on beside the digit."""
    edge = torch.ones(SIDE, SIDE, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    return edge.flatten()
