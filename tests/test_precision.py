"""Whether bfloat16 is used: by a person's word, else by the probe's figure and on the processor alone."""

import pytest
import torch

from drmlib import precision


@pytest.fixture
def share(monkeypatch):
    """A machine on which the probe finds this share."""

    def found(value):
        monkeypatch.setattr(precision, "bfloat16_share", lambda: value)

    monkeypatch.delenv("DRMLIB_PRECISION", raising=False)
    return found


@pytest.mark.parametrize(
    ("value", "expected"), [(0.5, torch.bfloat16), (0.79, torch.bfloat16), (0.81, None), (7, None)]
)
def test_bfloat16_is_used_where_it_pays(share, value, expected):
    share(value)
    assert precision.autocast("cpu") == expected
    assert precision.name() == ("float32" if expected is None else "bfloat16")


def test_a_graphics_card_keeps_float32_unless_told(share, monkeypatch):
    share(0.1)
    assert precision.autocast("cuda") is None
    monkeypatch.setenv("DRMLIB_PRECISION", "bfloat16")
    assert precision.autocast("cuda") == torch.bfloat16


def test_a_person_chooses_and_the_probe_is_not_asked(share, monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_share", lambda: pytest.fail("probed"))
    for word, expected in (("float32", None), ("bfloat16", torch.bfloat16)):
        monkeypatch.setenv("DRMLIB_PRECISION", word)
        assert precision.autocast() == expected


def test_another_word_is_answered_with_the_valid_ones(monkeypatch):
    monkeypatch.setenv("DRMLIB_PRECISION", "fp16")
    with pytest.raises(ValueError, match="unknown DRMLIB_PRECISION 'fp16'; valid: auto, float32, bfloat16"):
        precision.autocast()


def test_the_probe_measures_a_share_and_leaves_the_global_stream_alone():
    before = torch.random.get_rng_state()
    assert 0.05 < precision.bfloat16_share.__wrapped__(1) < 100
    assert torch.equal(torch.random.get_rng_state(), before)
