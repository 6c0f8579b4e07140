import subprocess
import sys

import pytest
import torch

from drmlib.rng import check_device, seeded_layers, spawn, stream


def test_same_names_give_the_same_bits_and_other_names_others():
    draw = torch.rand(8, generator=stream(3, "victim", "poison"))
    assert torch.equal(draw, torch.rand(8, generator=stream(3, "victim", "poison")))
    assert not torch.equal(draw, torch.rand(8, generator=stream(3, "victim", "model")))
    assert not torch.equal(draw, torch.rand(8, generator=stream(4, "victim", "poison")))


def test_same_bits_in_another_process():
    code = "import torch; from drmlib.rng import stream; print(torch.rand(4, generator=stream(7, 'a', 1)).tolist())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str(torch.rand(4, generator=stream(7, "a", 1)).tolist())


def test_layers_draw_from_the_generator_and_leave_the_global_stream_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    with seeded_layers(stream(0, "model")):
        first = torch.nn.Linear(3, 2).weight
    assert torch.equal(torch.rand(3), expected)
    with seeded_layers(stream(0, "model")):
        assert torch.equal(torch.nn.Linear(3, 2).weight, first)


def test_spawned_streams_differ_from_their_parent_and_from_one_another():
    parent = stream(0, "parent")
    one, two = spawn(parent), spawn(parent)
    draws = [torch.rand(4, generator=g) for g in (one, two, parent)]
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_generator_on_another_device_is_named():
    with pytest.raises(ValueError, match=r"device of images, meta, got one on cpu"):
        check_device(stream(0), torch.empty(1, device="meta"))
