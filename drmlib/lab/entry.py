"""One entry of the model cache: a folder with model.safetensors and entry.json, written whole or not at all.

entry.json holds the History and what a person wants to know of the entry, and the checksum of both files.
"""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Generator, Tensor, nn

from drmlib.training.fit import History

GENERATOR = "#generator"  # no parameter can have this name


class Damaged(Exception):
    """An entry that does not hold what it says; the message says why."""


def read(entry: Path, model: nn.Module, generator: Generator) -> History | None:
    """The History of `entry`, its weights and generator state put in place; None if absent or damaged."""
    if not entry.exists():
        return None
    try:
        record, tensors = _verified(entry)
        _check_fits(model, tensors)
        history = History(tuple(record["loss"]), tuple(record["learning_rate"]), record["seconds"])
    except (Damaged, OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        warn(f"cache entry {entry} is damaged ({error}): it is trained again")
        shutil.rmtree(entry, ignore_errors=True)
        return None
    generator.set_state(tensors.pop(GENERATOR))
    with torch.no_grad():
        for name, tensor in _tensors(model).items():
            tensor.copy_(tensors[name])
    model.eval()
    return history


def _verified(entry: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    stored = json.loads((entry / "entry.json").read_text())
    if stored["sha256"] != _digest(_canonical(stored["record"])):
        raise Damaged("checksum of entry.json differs")
    data = (entry / "model.safetensors").read_bytes()
    if stored["record"]["model_sha256"] != _digest(data):
        raise Damaged(f"checksum of model.safetensors differs, {len(data)} bytes")
    return stored["record"]["history"], safetensors.torch.load(data)


def _check_fits(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in _tensors(model).items()}
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items() if name != GENERATOR}
    if expected != found or GENERATOR not in tensors:
        raise Damaged("its tensors are not those of the model")


def write(entry: Path, model: nn.Module, generator: Generator, history: History) -> None:
    """Stores the trained model as `entry`; a cache that cannot be written costs a warning, not the model."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(model).items()}
    data = safetensors.torch.save({**tensors, GENERATOR: generator.get_state()})
    record = {
        "model": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": str(torch.__version__),
        "history": history._asdict(),
        "model_sha256": _digest(data),
    }
    text = json.dumps({"record": record, "sha256": _digest(_canonical(record))}, indent=1)
    try:
        _write_folder(entry, {"model.safetensors": data, "entry.json": text.encode()})
    except OSError as error:
        warn(f"cannot write to the cache {entry.parent} ({error.strerror or error}): this model is not kept")


def _write_folder(folder: Path, files: dict[str, bytes]) -> None:
    beside = Path(tempfile.mkdtemp(prefix=folder.name + ".tmp-", dir=folder.parent))
    try:
        for name, data in files.items():
            (beside / name).write_bytes(data)
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, also buffers that the state_dict leaves out."""
    return dict([*model.named_parameters(), *model.named_buffers()])


def _canonical(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def warn(message: str) -> None:
    """A warning that points at the line of the caller's caller."""
    warnings.warn(message, stacklevel=3)
