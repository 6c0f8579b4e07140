"""The one place that imports torchvision: late, as it takes seconds, and also beside a torch it was not built for.

torchvision gives two of its compiled operators, nms and qnms, a fake implementation while it is imported. Where the
compiled library cannot load (a CUDA build beside a CPU torch, say) these operators do not exist and the import dies
with "operator torchvision::nms does not exist". Declaring their schemas first lets the import through: data sets,
transforms and models work, while calling a compiled operator still raises.
"""

import importlib.machinery
import importlib.util
import threading
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import torch

NEEDED = ("nms", "qnms")
_declared: list[torch.library.Library] = []  # a schema lives as long as its library object
_lock = threading.Lock()


def load_torchvision() -> ModuleType:
    """The module torchvision. Raises ModuleNotFoundError where it is not installed."""
    with _lock:
        if not _compiled_ops_load():
            _declare_missing()
        import torchvision
    return torchvision


def torchvision_state() -> str:
    """One line for a person: version and what of torchvision works; imports it, since only that tells."""
    try:
        found = version("torchvision")
        load_torchvision()
    except (PackageNotFoundError, ModuleNotFoundError):
        return "not installed"
    except Exception as error:  # whatever a broken installation raises is the answer
        return f"{found}: cannot be imported ({type(error).__name__}: {error})"
    if _compiled_ops_load():
        return f"{found}: compiled ops loaded"
    return f"{found}: compiled ops cannot load beside this torch; datasets, transforms and models work"


def _compiled_ops_load() -> bool:
    """Whether torchvision's compiled operators are in this process, after loading them if they can be."""
    package = importlib.util.find_spec("torchvision")  # finds the folder, runs nothing of it
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("torchvision is not installed; pip install torchvision", name="torchvision")
    loader = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    for folder in package.submodule_search_locations:
        library = importlib.machinery.FileFinder(folder, loader).find_spec("_C")
        try:
            if library is not None and library.origin is not None:
                torch.ops.load_library(library.origin)  # torchvision does the same; the second time does nothing
                return True
        except OSError:  # a library that it is linked to is missing, or lacks a symbol
            continue
    return False


def _declare_missing() -> None:
    """Declares the schema of each needed operator that has none: again after a failed import, never twice."""
    missing = [name for name in NEEDED if not hasattr(torch.ops.torchvision, name)]
    if missing:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in missing:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
