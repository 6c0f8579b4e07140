"""A model as it computes in mixed precision: for searches that go through a trained model many times.

torch.autocast computes convolutions and matrix products in the reduced dtype; outputs and features come back as
float32, so that losses, variances and angles of a search are as exact as without.
"""

import torch
from torch import Tensor, nn


class MixedPrecision(nn.Module):
    """Gives the outputs (n, k) of `model`, whose weights it shares, for images (n, c, h, w), to a rounding of `dtype`.

    features and head are those of the model, so that the wrapper stands wherever a model with them is expected.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    @property
    def head(self) -> nn.Module:
        return self.model.head  # type: ignore[return-value]

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (n, m), float32."""
        with torch.autocast(images.device.type, dtype=self.dtype):
            return self.model.features(images).float()  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=self.dtype):
            return self.model(images).float()


def mixed_precision(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """`model` computing in `dtype` (torch.bfloat16, say), or the model itself where dtype is None."""
    return model if dtype is None else MixedPrecision(model, dtype)
