"""Sliders that redraw a figure: in JupyterLab; a headless run shows the figure of the sliders' first values."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from drmlib.lab.figures import show
from drmlib.session import has_front_end


class Slider(NamedTuple):
    """Label, and lowest, first and highest value; whole numbers make whole steps, others fiftieths of the range."""

    label: str
    low: float
    value: float
    high: float


def play(draw: Callable[..., Figure], caption: str, **sliders: Slider) -> None:
    """Shows draw(**values) with a slider for each of its arguments; the figure follows them."""
    for name, (_, low, value, high) in sliders.items():
        if not low <= value <= high:
            raise ValueError(f"slider {name}: expected low <= value <= high, got {low}, {value}, {high}")
    if not has_front_end():
        show(draw(**{name: slider.value for name, slider in sliders.items()}), caption)
        return
    import ipywidgets

    widgets = {name: _widget(ipywidgets, slider) for name, slider in sliders.items()}
    output = ipywidgets.interactive_output(lambda **values: show(draw(**values), caption), widgets)
    from IPython.display import display

    display(ipywidgets.VBox([*widgets.values(), output]))


def _widget(ipywidgets: ModuleType, slider: Slider) -> Any:
    whole = all(isinstance(v, int) for v in slider[1:])
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    step = 1 if whole else (slider.high - slider.low) / 50
    look = {"description": slider.label, "continuous_update": False, "style": {"description_width": "initial"}}
    return kind(min=slider.low, value=slider.value, max=slider.high, step=step, **look)
