"""The unit of a notebook's budget: CPU seconds of a fixed training step on one thread."""

import os
import time

import pytest
import torch

from drmlib.lab import reference


def test_the_step_has_the_work_that_it_is_said_to_have():
    """Multiplications of the convolutions for one image, at 32, 16 and 8 pixels, by hand; 10 outputs."""
    network = reference._network()
    sizes = [(3, 16, 32), (16, 32, 16), (32, 32, 16), (32, 64, 8), (64, 64, 8)]
    counted = []
    for layer in network:
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda layer, _, out: counted.append(layer.weight.numel() * out[0, 0].numel()))
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert counted == [a * b * 9 * side * side for a, b, side in sizes]


def test_it_is_cpu_time_and_changes_neither_threads_nor_the_random_stream(monkeypatch):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    before = torch.get_num_threads()
    start = time.process_time()
    found = reference.step_seconds(3)
    assert 0 < found < time.process_time() - start
    assert torch.equal(torch.rand(3), expected) and torch.get_num_threads() == before


def test_median_over_the_steps_after_two_that_warm_up(monkeypatch):
    moments = iter([0, 50, 0, 50, 0, 1, 0, 2, 0, 9])
    monkeypatch.setattr(reference.time, "process_time", lambda: next(moments))
    assert reference.step_seconds(3) == 2


@pytest.mark.slow
def test_a_process_of_its_own_computes_on_one_thread(monkeypatch):
    monkeypatch.setenv("DRMLIB_THREADS", "2")
    seen = []
    run = reference.subprocess.run
    monkeypatch.setattr(reference.subprocess, "run", lambda *a, **k: seen.append(k["env"]) or run(*a, **k))
    assert 0 < reference.measured_apart(1) < 60
    assert seen[0]["DRMLIB_THREADS"] == "1" and os.environ["DRMLIB_THREADS"] == "2"
