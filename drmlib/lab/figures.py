"""Figures with captions: the picture, and under it the sentence that says what to see in it."""

import base64
from io import BytesIO

from IPython.core.getipython import get_ipython
from IPython.display import display
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from drmlib.lab.records import FIGURE

DPI = 85  # a 7 x 3 inch figure is about 600 pixels wide and 30 kB: notebooks stay under 300 kB


def show(figure: Figure, caption: str, alt: str | None = None, *, key: bool = False) -> None:
    """Displays `figure` with its caption below, and closes it.

    alt: what the picture shows, for who cannot see it (the caption unless told). key: a thumbnail of it goes into the
    summary of a run. nbval compares the caption, so measured figures that drift do not belong there.
    """
    if not caption.strip():
        raise ValueError("expected a caption that says what to see in the figure, got an empty one")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    pyplot.close(figure)
    if get_ipython() is None:
        print(f"Figure: {caption}")
        return
    png = base64.b64encode(_small(buffer)).decode()
    about = {FIGURE: {"caption": caption, "alt": alt or caption, "key": key}}
    display({"image/png": png, "text/plain": f"Figure: {caption}"}, metadata=about, raw=True)
    display({"text/markdown": f"**Figure.** {caption}", "text/plain": caption}, raw=True)


def _small(png: BytesIO) -> bytes:
    """The picture in 256 colours of its own: a third of the bytes, and no difference at the size it is shown in."""
    small = BytesIO()
    Image.open(png).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()
