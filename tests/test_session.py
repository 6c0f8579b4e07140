"""Devices, progress bars and the look-up of names at a notebook's border."""

import pytest
import torch

from drmlib import session


def test_auto_is_a_device_of_this_machine():
    assert session.device("auto").type == session.available_devices()[0]
    assert session.device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cpu:x"])
def test_unknown_device_is_answered_with_the_valid_ones(name):
    with pytest.raises(ValueError, match="valid here: auto, .*cpu"):
        session.device(name)


def test_who_needs_float64_is_not_given_mps(monkeypatch):
    monkeypatch.setattr(session, "available_devices", lambda: ["mps", "cpu"])
    assert session.device("auto").type == "mps" and session.device("auto", double=True).type == "cpu"
    with pytest.raises(ValueError, match="unknown device 'mps'; valid here: auto, cpu"):
        session.device("mps", double=True)


def test_lookup_lists_the_valid_names():
    table = {"badnets": 1, "blend": 2}
    assert session.lookup("attack", "blend", table) == 2
    with pytest.raises(ValueError, match="unknown attack 'blnd'; valid: badnets, blend"):
        session.lookup("attack", "blnd", table)


def test_headless_progress_is_text_on_stderr(capsys, monkeypatch):
    monkeypatch.setenv("DRMLIB_HEADLESS", "1")
    assert list(session.progress("training")(range(3))) == [0, 1, 2]
    captured = capsys.readouterr()
    assert "training" in captured.err and "3/3" in captured.err and not captured.out
