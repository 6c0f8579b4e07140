"""MLP: hidden layers of one width with ReLU and one linear output layer; the course's model of tables.

Severi et al. (2021) attack a wider one on Ember (4000, 2000, 100), with batch norm and dropout. Rows come standardised
from the data (data/table.py), for no constant mean and deviation fit the columns of every table; those of a known
function (data/functions.py) are in [0, 1], and its networks centre them by `centre` and `scale`.
"""

from torch import Generator, Tensor, nn

from drmlib import rng
from drmlib.data.dataset import as_float


class MLP(nn.Module):
    """Maps rows (n, inputs), or images that have as many values, to (n, outputs).

    inputs is by default that of a 32 x 32 colour image. depth hidden layers; features are (n, width), not negative.
    Rows enter as (row - centre) / scale; with depth 0 the model is linear and these are its features.
    """

    def __init__(
        self,
        outputs: int,
        *,
        inputs: int = 3 * 32 * 32,
        width: int = 64,
        depth: int = 2,
        centre: float = 0.0,
        scale: float = 1.0,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.centre, self.scale = centre, scale
        if depth < 0:
            raise ValueError(f"expected a depth of at least 0, got {depth}; 0 is a linear model")
        if not scale > 0:
            raise ValueError(f"expected a scale above 0, got {scale}; rows are divided by it")
        widths = [inputs, *[width] * depth]
        with rng.seeded_layers(generator):
            hidden = [layer for i, o in zip(widths, widths[1:], strict=False) for layer in (nn.Linear(i, o), nn.ReLU())]
            self.body = nn.Sequential(nn.Flatten(), *hidden)
            self.head = nn.Linear(widths[-1], outputs)

    def features(self, rows: Tensor) -> Tensor:
        """Penultimate features (n, width)."""
        return self.body((as_float(rows) - self.centre) / self.scale)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.features(rows))
