"""CTRL: Li, Pang, Xi, Du, Ji, Yao, Wang, "An Embarrassingly Simple Backdoor Attack on Self-supervised Learning" (2023),
https://arxiv.org/abs/2210.07346.

In YUV, both chroma planes' discrete cosine transform over the whole image gets `magnitude` added at a middle and at
the highest frequency; labels are kept (BackdoorBench: clean label, magnitude 100, 5 % of the set). As with FTrojan this
is one constant pattern, clipped with the sum.
"""

from drmlib.attacks.ftrojan import chroma_pattern
from drmlib.attacks.sig import Sig

# What one unit of U and of V adds to red, green and blue.
U, V = (0.0, -0.396, 2.029), (1.14, -0.581, 0.0)


def ctrl(*, magnitude: float = 100.0, channels: int = 3, height: int = 32, width: int = 32) -> Sig:
    """Adds CTRL's pattern to images of 3 channels; magnitude is of a coefficient, in levels of 255."""
    return chroma_pattern(magnitude, (U, V), channels, height, width)
