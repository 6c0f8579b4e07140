"""What `drmlib doctor` finds: all that a question about a failing run would ask for."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from drmlib import precision, session
from drmlib.data import places
from drmlib.data.torchvision_compat import torchvision_state
from drmlib.lab import cache, course


def examine() -> Iterator[tuple[str, str]]:
    """(name, finding) line by line."""
    yield "drmlib", version("drmlib")
    yield "python", f"{platform.python_version()} ({sys.executable})"
    yield "platform", platform.platform(terse=True)
    yield "torch", str(torch.__version__)
    yield "torchvision", torchvision_state()
    for name in ("numpy", "papermill", "ipykernel", "jupyterlab"):
        yield name, _version(name)
    yield "device", _device()
    yield "processor", session.processor()
    yield "threads", f"{session.threads()}; DRMLIB_THREADS chooses"
    yield "precision", f"{precision.name()}; a bfloat16 step takes {precision.bfloat16_share():.2f} of float32's time"
    yield "notebooks", _notebooks()
    yield "DRMLIB_DATA", os.environ.get("DRMLIB_DATA", "not set; rendered data needs none")
    for name, where in places.available().items():
        yield f"  {name}", where
    yield "cache", _cache()
    yield "free disk", f"{shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB in {Path.cwd()}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _device() -> str:
    devices = session.available_devices()
    if devices[0] != "cuda":
        return devices[0]
    return f"cuda: {torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 1e9:.0f} GB"


def _notebooks() -> str:
    try:
        return f"{len(course.discover())} in {course.folder()}"
    except FileNotFoundError as error:
        return str(error)


def _cache() -> str:
    folder = cache.location()
    if folder is None:
        return "off (DRMLIB_CACHE=off)"
    size = cache.size(folder)
    return f"{size.entries} models, {size.bytes / 1e6:.1f} MB in {folder}"
