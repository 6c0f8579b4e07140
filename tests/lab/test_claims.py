"""Claims, aims, shortfalls, tables and figures: the text is stable, the exact figure is data."""

import base64
import json
import math

import pandas as pd
import pytest
from matplotlib import pyplot

from drmlib.attacks.measure import ClassifierFigures
from drmlib.lab import claims, figures, records
from drmlib.metrics import Estimate


@pytest.fixture
def shown(monkeypatch):
    """Bundles (data, metadata) that claims and figures display, as in a notebook."""
    bundles = []

    def display(data, metadata=None, raw=False):
        assert raw
        bundles.append((data, metadata))

    for module in (claims, figures):
        monkeypatch.setattr(module, "get_ipython", object)
        monkeypatch.setattr(module, "display", display)
    return bundles


def verdict(value, **band):
    return claims._judge("name", value, band.get("at_least"), band.get("at_most"), "source")["holds"]


def test_bounds_belong_to_the_band():
    assert verdict(0.95, at_least=0.95) and verdict(2.0, at_most=2)
    assert not verdict(math.nextafter(0.95, 0), at_least=0.95)
    assert not verdict(math.nextafter(2.0, 3), at_most=2)
    assert verdict(1, at_least=0.5, at_most=1.5)
    assert not verdict(0.4, at_least=0.5, at_most=1.5) and not verdict(1.6, at_least=0.5, at_most=1.5)


@pytest.mark.parametrize("band", [{"at_least": -math.inf}, {"at_most": math.inf}, {"at_least": 0, "at_most": 1}])
def test_nan_never_holds(band):
    assert not verdict(math.nan, **band)


def test_bool_claims():
    assert verdict(True, at_least=True) and not verdict(False, at_least=True)
    assert verdict(False, at_most=False) and not verdict(True, at_most=False)


def test_value_of_an_estimate_decides_and_its_interval_is_recorded(shown):
    claims.claim("rate", Estimate(0.96, 0.90, 0.99, 50), at_least=0.95, source="Table 2")
    record = shown[0][0][records.CLAIM]
    assert record["holds"] and (record["value"], record["low"], record["high"], record["n"]) == (0.96, 0.90, 0.99, 50)


def test_text_is_the_same_for_all_values_with_one_verdict(shown):
    for value in (0.96, 0.97, 0.94):
        claims.claim("rate", value, at_least=0.95, source="Table 2")
    texts = [data["text/plain"] for data, _ in shown]
    assert texts[0] == texts[1] == "holds  rate: at least 0.95  (source: Table 2)"
    assert texts[2] == "FAILS  rate: at least 0.95  (source: Table 2)"
    assert "0.97" in shown[1][0]["text/html"] and shown[1][0][records.CLAIM]["value"] == 0.97


def test_records_are_json_that_every_reader_takes(shown):
    claims.claim("nan", math.nan, at_least=0, source="s")
    claims.claim("one seed", Estimate(1.0, math.nan, math.nan, 1), at_most=2, source="s")
    claims.claim("numpy", pd.Series([0.5]).mean(), at_most=2, source="s")
    claims.shortfall("inf", asked=1, reached=math.inf, reason="r")
    for data, _ in shown:
        json.dumps(data, allow_nan=False)
    assert math.isnan(records.number(shown[0][0][records.CLAIM]["value"]))


def test_html_is_escaped(shown):
    claims.claim("a < b", 1, at_least=0, source="<script>")
    assert "<script>" not in shown[0][0]["text/html"] and "a &lt; b" in shown[0][0]["text/html"]


def test_claim_without_a_band_is_refused():
    with pytest.raises(ValueError, match="no band"):
        claims.claim("x", 1.0, source="s")
    with pytest.raises(ValueError, match="at_least <= at_most"):
        claims.claim("x", 1.0, at_least=2, at_most=1, source="s")
    with pytest.raises(TypeError, match="got str"):
        claims.claim("x", "1", at_least=2, source="s")


def test_outside_notebooks_a_line_with_the_value_is_printed(capsys):
    claims.claim("rate", 0.5, at_least=0.95, source="Table 2")
    claims.shortfall("speed", asked=10, reached=7.5, reason="one core")
    assert capsys.readouterr().out.splitlines() == [
        "FAILS  rate: at least 0.95  (source: Table 2)  measured 0.5",
        "shortfall  speed: asked 10  (reason: one core)  reached 7.5",
    ]


def test_shortfall_text_leaves_out_what_was_reached(shown):
    claims.shortfall("speed", asked=10, reached=7.5, reason="one core")
    data = shown[0][0]
    assert "7.5" not in data["text/plain"] and "7.5" in data["text/html"]
    assert data[records.SHORTFALL] == {"name": "speed", "asked": 10, "reached": 7.5, "reason": "one core"}


def test_aim_has_one_text_and_is_a_claim_or_a_shortfall(shown):
    for reached in (0.4, 0.6):
        claims.aim("error", reached, at_most=0.5, source="asked", reason="a warp")
    (held, _), (missed, _) = shown
    assert held["text/plain"] == missed["text/plain"]
    assert held["text/plain"] == "aim  error: at most 0.5  (source: asked; where missed: a warp)"
    assert held[records.CLAIM]["holds"] and records.SHORTFALL not in held
    assert missed[records.SHORTFALL] == {"name": "error", "asked": 0.5, "reached": 0.6, "reason": "a warp"}
    assert records.CLAIM not in missed
    assert "reached" in held["text/html"] and "a warp" not in held["text/html"]
    assert "missed" in missed["text/html"] and "0.6" in missed["text/html"] and "a warp" in missed["text/html"]


def test_aim_of_nan_is_missed(shown):
    claims.aim("error", math.nan, at_least=0.5, source="asked", reason="r")
    assert shown[0][0][records.SHORTFALL]["reached"] == "nan"


def test_table_text_has_no_cell_of_the_table(shown):
    claims.table(pd.DataFrame({"error": [1.234567], "n": [7]}, index=["benign"]), "Errors by model")
    data = shown[0][0]
    assert data["text/plain"] == "Table: Errors by model (1 rows; columns error, n)"
    assert "1.234567" in data["text/html"] and "<caption>Errors by model</caption>" in data["text/html"]
    assert data["text/html"].count('scope="col"') == 3 and data["text/html"].count('scope="row"') == 1


def test_figures_have_a_row_each_with_their_intervals(shown):
    figures = ClassifierFigures(Estimate(0.9, 0.8, 1.0, 10), Estimate(0.5, 0.4, 0.6, 9))
    claims.figures_table({"poisoned": figures}, "rates")
    data = shown[0][0]
    assert data["text/plain"] == "Table: rates (1 rows; columns clean accuracy, attack success rate)"
    assert str(figures.attack_success_rate) in data["text/html"]


def test_figure_has_caption_alt_and_key_and_is_closed(shown):
    figure = pyplot.figure(figsize=(4, 3))
    figures.show(figure, "Error falls with epochs", alt="a falling line", key=True)
    (data, about), (below, _) = shown
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert data["text/plain"] == "Figure: Error falls with epochs"
    assert about == {records.FIGURE: {"caption": "Error falls with epochs", "alt": "a falling line", "key": True}}
    assert "Error falls with epochs" in below["text/markdown"]
    assert not pyplot.fignum_exists(figure.number)


def test_figure_without_caption_is_refused():
    with pytest.raises(ValueError, match="caption"):
        figures.show(pyplot.figure(), " ")
    pyplot.close("all")
