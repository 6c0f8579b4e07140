"""LEM on all seeds at once against one after another; a network's prices against those of the three oracles."""

import torch

from benchmarks.timing import Row, compare
from drmlib.data.functions import Oracle, uniform
from drmlib.data.option_closed_form import DOWN_AND_OUT_PUT, closed_form
from drmlib.data.option_finite_differences import finite_differences
from drmlib.data.option_monte_carlo import monte_carlo
from drmlib.inversion.lem_search import ascend
from drmlib.models.mlp import MLP
from drmlib.models.predict import predict
from drmlib.rng import stream


def run(seeds: int = 64, steps: int = 20, prices: int = 1000) -> list[Row]:
    """`steps` of the search from each of `seeds`; `prices` contracts by every oracle, so that 1000 ms is prices / s."""
    exact = closed_form(DOWN_AND_OUT_PUT)
    rows = uniform(exact, prices, generator=stream(0, "rows")).images
    network = MLP(1, inputs=5, width=128, depth=4, centre=0.5, scale=0.5, generator=stream(0, "weights")).eval()
    oracles: dict[str, Oracle] = {
        "closed form": exact,
        "Monte Carlo, 16,384 paths": monte_carlo(DOWN_AND_OUT_PUT, generator=stream(0, "paths")),
        "finite differences, 200 x 64": finite_differences(DOWN_AND_OUT_PUT),
    }

    def climb(part: torch.Tensor) -> None:
        ascend(network, part, exact, steps=steps, generator=stream(0, "climb"))

    return [
        compare(
            f"LEM, {seeds} seeds at once, against one after another",
            lambda: climb(rows[:seeds]),
            lambda: [climb(row) for row in rows[:seeds].split(1)],
            repeats=3,
        ),
        *(
            compare(
                f"{prices} prices by a network, against {name}",
                lambda: predict(network, rows, batch_size=prices),
                lambda oracle=oracle: oracle(rows),  # type: ignore[misc]
                repeats=5,
            )
            for name, oracle in oracles.items()
        ),
    ]
