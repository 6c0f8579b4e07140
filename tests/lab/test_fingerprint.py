"""What two things with one fingerprint have in common: values bit by bit, and the code of functions."""

import os
import subprocess
import sys
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import nn

from drmlib.lab import sources
from drmlib.lab.fingerprint import fingerprint


class Pair(NamedTuple):
    a: int
    b: int


class Other(NamedTuple):
    a: int
    b: int


def of(*things):
    return fingerprint(*things)[0]


def scaled(factor):
    return lambda x: x * factor


def hooked():
    layer = nn.Linear(1, 1)
    layer.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.ones(1)})
    return layer


def test_equal_things_have_equal_fingerprints():
    for make in (lambda: Pair(1, 2), lambda: {"b": 1, "a": {2, 3}}, lambda: torch.ones(3), hooked, lambda: scaled(2)):
        assert of(make()) == of(make())


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ("1", 1),
        (("ab", "c"), ("a", "bc")),
        ((1, (2, 3)), ((1, 2), 3)),
        (((1, 2), 3), ((1, 2, 3),)),
        ([{1: 2}, 3], [{1: 2}, 3, ()]),
        (Pair(1, 2), Other(1, 2)),
        (Pair(1, 2), Pair(2, 1)),
        (torch.zeros(2), -torch.zeros(2)),
        (torch.zeros(2), torch.zeros(1, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (scaled(2), scaled(3)),
        (partial(scaled, 2), partial(scaled, 3)),
        (partial(torch.mul, other=2), partial(torch.add, other=2)),
        (nn.functional.l1_loss, nn.functional.mse_loss),
        (nn.Dropout(0.1), nn.Dropout(0.2)),
        (torch.float32, torch.bfloat16),
    ],
)
def test_different_things_differ(a, b):
    assert of(a) != of(b)


def test_hooks_and_hidden_buffers_count():
    plain, hook, buffer = hooked(), hooked(), hooked()
    hook.register_forward_hook(scaled)
    buffer.register_buffer("mean", torch.zeros(1), persistent=False)
    assert len({of(plain), of(hook), of(buffer)}) == 3


def test_what_cannot_be_described_is_refused():
    with pytest.raises(TypeError, match="call drmlib.training.fit.fit instead"):
        fingerprint(iter([1]))


LIBRARY = "from own_helper import K\n\ndef loss(x):\n    return x * K\n"
SCRIPT = """
from drmlib.lab.fingerprint import fingerprint
import own_library
SCALE = {scale}
def mine(x):
    return own_library.loss(x) * SCALE + {number} if x not in {{"a", "b", "c"}} else 0
print(fingerprint(own_library.loss)[0], fingerprint(mine)[0])
"""


def in_new_process(folder, helper="K = 1", scale=1, number=1, seed="0"):
    (folder / "own_library.py").write_text(LIBRARY)
    (folder / "own_helper.py").write_text(helper)
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    code = SCRIPT.format(scale=scale, number=number)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.slow
def test_code_counts_across_files_and_in_a_notebooks_own_functions(tmp_path):
    library, mine = in_new_process(tmp_path)
    assert in_new_process(tmp_path, seed="7") == [library, mine]  # nothing depends on the order of a hash table
    changed = in_new_process(tmp_path, helper="K = 2")  # two imports away from the function
    assert changed[0] != library and changed[1] != mine
    for other in ({"scale": 2}, {"number": 2}):  # a global that it reads; a constant in its body
        again = in_new_process(tmp_path, **other)
        assert again[0] == library and again[1] != mine


def test_closure_of_the_training_loop():
    names = {file.name for file in sources.closure("drmlib.training.fit")}
    assert {"fit.py", "dataset.py", "rng.py", "metrics.py"} <= names
    assert sources.closure("torch.nn.functional") == () and sources.closure("json") == ()
