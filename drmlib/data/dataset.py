"""Dataset and Task: what every other folder takes. Two tensors on one device, and what the targets mean.

Images are float32 in [0, 1] or uint8 in [0, 255] (at rest, where memory counts), shape (n, c, h, w). Targets are int64
labels (n,) or float32 vectors (n, k). A defender is handed a Dataset and nothing beside it: it has no poison mask.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from drmlib import metrics, rng

CHUNK_PIXELS = 1 << 17  # 128 images of 32 x 32, 1.5 MB of floats


@dataclass(frozen=True)
class Task:
    """What a target means: `outputs` names the classes, or the components of a target vector.

    error: for regression, (predicted, truth) -> per-sample error (n,) in `unit`; None says classification.
    """

    name: str
    outputs: tuple[str, ...]
    error: Callable[[Tensor, Tensor], Tensor] | None = None
    unit: str = ""

    @property
    def is_regression(self) -> bool:
        return self.error is not None


GAZE = Task("gaze", ("pitch", "yaw"), metrics.gaze_error, "degrees")
HEAD_POSE = Task("head pose", ("yaw", "pitch", "roll"), metrics.head_pose_error, "degrees")


@dataclass(frozen=True)
class Dataset:
    """Images (n, c, h, w) or rows (n, c) and their targets, checked once when made. Indexing gives a Dataset."""

    images: Tensor
    targets: Tensor
    task: Task

    def __post_init__(self) -> None:
        if len(self.images) != len(self.targets):
            raise ValueError(f"expected as many targets as images, got {len(self.targets)} and {len(self.images)}")
        if self.images.device != self.targets.device:
            raise ValueError(
                f"images are on {self.images.device}, targets on {self.targets.device}; move one with .to()"
            )
        _check_images(self.images)
        _check_targets(self.targets, self.task)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> "Dataset":
        """The samples of a slice, an index tensor or a bool mask."""
        return replace(self, images=self.images[index], targets=self.targets[index])

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device: torch.device | str) -> "Dataset":
        return replace(self, images=self.images.to(device), targets=self.targets.to(device))

    def split(self, *sizes: int, generator: Generator) -> tuple["Dataset", ...]:
        """Disjoint random parts of the given sizes, in one draw; what is left over is dropped."""
        if min(sizes) < 1 or sum(sizes) > len(self):
            raise ValueError(f"expected sizes of at least 1 that sum to at most {len(self)}, got {sizes}")
        rng.check_device(generator, self.images)
        order = torch.randperm(len(self), generator=generator, device=self.device)
        return tuple(self[part] for part in order[: sum(sizes)].split(list(sizes)))

    def batches(self, size: int = 512) -> Iterator[tuple[Tensor, Tensor]]:
        """Consecutive (images as float, targets) of at most `size`."""
        for start in range(0, len(self), size):
            yield as_float(self.images[start : start + size]), self.targets[start : start + size]


def as_float(images: Tensor) -> Tensor:
    """Images as float in [0, 1]: uint8 is divided by 255, float passes through."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def as_bytes(images: Tensor) -> Tensor:
    """Images as uint8 in [0, 255], rounded to the nearest level; uint8 passes through."""
    return images if images.dtype == torch.uint8 else images.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def like(images: Tensor, reference: Tensor) -> Tensor:
    """`images` in the dtype of `reference`: what a trigger returns is what it was given."""
    return as_bytes(images) if reference.dtype == torch.uint8 else as_float(images).to(reference.dtype)


def chunks(images: Tensor) -> tuple[Tensor, ...]:
    """Consecutive parts of images (n, c, h, w), each few enough that their floats stay in a processor's cache."""
    return images.split(max(1, CHUNK_PIXELS // (images.shape[2] * images.shape[3])))


def _check_images(images: Tensor) -> None:
    if images.dtype == torch.uint8 or images.ndim != 4 or images.numel() == 0:
        return
    if not images.is_floating_point():
        raise ValueError(f"expected images of dtype float32 in [0, 1] or uint8 in [0, 255], got {images.dtype}")
    low, high = torch.aminmax(images)
    if not (low >= 0 and high <= 1):  # written so that nan fails too
        raise ValueError(
            f"expected finite images in [0, 1], got values from {low.item():.4g} to {high.item():.4g}; divide by 255, "
            "or leave normalisation to the model, whose first layer does it"
        )


def _check_targets(targets: Tensor, task: Task) -> None:
    k = len(task.outputs)
    if task.is_regression:
        if targets.ndim != 2 or targets.shape[1] != k or not targets.is_floating_point():
            raise ValueError(
                f"{task.name} has {k} components {task.outputs}: expected float targets of shape (n, {k}), "
                f"got {targets.dtype} {tuple(targets.shape)}"
            )
        if not targets.isfinite().all():
            raise ValueError(f"expected finite {task.name} targets, got nan or infinity")
    elif targets.dtype != torch.int64 or targets.ndim != 1:
        raise ValueError(
            f"expected int64 labels of shape (n,), got {targets.dtype} {tuple(targets.shape)}; use .long()"
        )
    elif len(targets) and not (0 <= targets.min() and targets.max() < k):
        raise ValueError(f"expected labels 0..{k - 1}, got {targets.min().item()}..{targets.max().item()}")
