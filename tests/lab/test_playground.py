import pytest
from matplotlib.figure import Figure

from drmlib.lab import playground
from drmlib.lab.playground import Slider, play


def drawn(seen):
    def draw(**values):
        seen.append(values)
        return Figure(figsize=(1, 1))

    return draw


def test_headless_the_figure_of_the_first_values_is_shown(capsys):
    seen = []
    play(drawn(seen), "A patch.", size=Slider("size", 1, 3, 9), opacity=Slider("opacity", 0.0, 0.5, 1.0))
    assert seen == [{"size": 3, "opacity": 0.5}]
    assert "Figure: A patch." in capsys.readouterr().out


def test_with_a_front_end_the_figure_follows_the_slider(monkeypatch):
    ipywidgets = pytest.importorskip("ipywidgets")
    made = []
    monkeypatch.setattr(playground, "has_front_end", lambda: True)
    monkeypatch.setattr("IPython.display.display", made.append)
    seen = []
    play(drawn(seen), "A patch.", size=Slider("size", 1, 3, 9), opacity=Slider("opacity", 0.0, 0.5, 1.0))
    size, opacity, _ = made[0].children
    assert isinstance(size, ipywidgets.IntSlider) and isinstance(opacity, ipywidgets.FloatSlider)
    size.value = 7
    assert seen[-1] == {"size": 7, "opacity": 0.5}


def test_a_value_outside_its_slider_is_refused():
    with pytest.raises(ValueError, match="slider size: expected low <= value <= high, got 4, 3, 9"):
        play(drawn([]), "A patch.", size=Slider("size", 4, 3, 9))
