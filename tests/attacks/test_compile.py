"""torch.compile(trigger, fullgraph=True): one graph, no host sync, the same images, for every closed-form trigger."""

import shutil

import pytest
import torch

from tests.test_contracts import TRIGGERS, WITH_NETWORK, _images

# Not in closed form, or a loop over pixels by design (Floyd-Steinberg dithering).
NOT_COMPILED = WITH_NETWORK | {"attacks.bpp.Dithered", "inversion.neural_cleanse.MaskedPattern"}
BACKEND = "inductor" if shutil.which("g++") or shutil.which("clang++") else "aot_eager"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRIGGERS if name not in NOT_COMPILED])
def test_a_closed_form_trigger_compiles_into_one_graph(name):
    """Bytes through the whole compiler; of floats the graph alone is made, which is where a break would show."""
    for dtype, backend in ((torch.uint8, BACKEND), (torch.float32, "eager")):
        torch._dynamo.reset()
        trigger, images = TRIGGERS[name], _images(dtype)
        compiled = torch.compile(lambda images, trigger=trigger: trigger(images), fullgraph=True, backend=backend)(
            images
        )
        difference = (compiled.float() - trigger(images).float()).abs()
        # A warp's last bit may fall on the other side of a rounding step, and a nearest neighbour on the other pixel.
        assert difference.max() <= (1 if dtype == torch.uint8 else 1e-5) or (difference > 0).float().mean() < 0.01
