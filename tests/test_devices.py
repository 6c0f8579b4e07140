"""Every kernel gives on one device what it gives on another, within a stated tolerance.

The same cases run here on the CPU against a CPU that rounds otherwise, and on a graphics card against the CPU.
"""

from contextlib import ExitStack

import pytest
import torch
from torch.overrides import TorchFunctionMode

from drmlib.rng import stream
from tests.device_cases import Case, cases
from tests.devices import METHODS, OtherRounding, PlacesAreSaid, SameDraws, apart, exact

CPU = torch.device("cpu")
ALL = cases()
NAMES = [case.name for case in ALL]
DRAWS = {
    "rand": lambda g: torch.rand(3, generator=g, device=g.device),
    "randint": lambda g: torch.randint(2**62, (1,), generator=g, device=g.device),
    "randperm": lambda g: torch.randperm(9, generator=g, device=g.device),
    "normal": lambda g: torch.normal(0.0, 1.0, (3,), generator=g),
    "uniform_": lambda g: torch.empty(3).uniform_(generator=g),
    "bernoulli": lambda g: torch.bernoulli(torch.full((9,), 0.5), generator=g),
    "multinomial": lambda g: torch.multinomial(torch.ones(9), 3, generator=g),
}


def check(case: Case, device: torch.device, *modes: TorchFunctionMode) -> None:
    """Raises AssertionError if the case's result on `device` is further from the CPU's than its tolerance."""
    with exact(), ExitStack() as stack:
        reference = case.run(CPU)
        for mode in (SameDraws(), *modes):
            stack.enter_context(mode)
        result = case.run(device)
    assert result.device.type == device.type
    assert apart(result, reference, share=case.share) <= case.tolerance, case.why


@pytest.mark.gpu
@pytest.mark.parametrize("case", ALL, ids=NAMES)
def test_the_card_agrees_with_the_processor(case):
    check(case, torch.device("cuda"))


@pytest.mark.parametrize("case", ALL, ids=NAMES)
def test_another_rounding_stays_within_the_tolerance_and_tensors_are_made_where_the_images_are(case):
    check(case, CPU, OtherRounding(), PlacesAreSaid())


def test_no_trigger_is_missing():
    """The list of benchmarks/poisoning.py, on bytes; on floats all but one whose partners are chosen by bytes."""
    assert len([name for name in NAMES if name.startswith("trigger")]) == 2 * 19 - 1


def test_the_distance_by_hand():
    """Differences 0, 1, 0 and 4 of values up to 8: 4 / 8, and 1 / 8 without the largest quarter."""
    one, other = torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, 1, 3, 8])
    assert apart(one, other) == 0.5
    assert apart(one, other, share=0.25) == 0.125
    assert apart(one, other.double()) == apart(one, other[:3]) == float("inf")
    assert apart(torch.tensor([torch.nan, 1]), torch.tensor([1, torch.nan])) == float("inf")


def test_a_tensor_without_a_place_is_found():
    code = compile("def made(images): return images + torch.ones(2)", METHODS[0], "exec")
    scope: dict = {"torch": torch}
    exec(code, scope)
    with PlacesAreSaid(), pytest.raises(RuntimeError, match="meta"):
        scope["made"](torch.ones(2))


@pytest.mark.parametrize("draw", DRAWS.values(), ids=list(DRAWS))
def test_a_draw_elsewhere_is_that_of_the_processor(draw):
    """A generator that is said to stand elsewhere is left alone: its twin draws, what a CPU generator of its seed does,
    and goes on from there at the next draw.
    """
    given, own = stream(0, "draw"), stream(0, "draw")
    before = given.get_state()
    with SameDraws() as mode:
        mode.elsewhere = lambda generator: generator is given
        first, second = draw(given), draw(given)
    assert torch.equal(given.get_state(), before)
    assert torch.equal(first, draw(own)) and torch.equal(second, draw(own))
