"""For `pytest --nbval notebooks`: what of a notebook's outputs is compared. Texts of claims are; pictures, HTML and
exact figures are not, since they change with processor and release. Kernels compute on one thread, as they did when the
outputs were stored, and are reached over sockets, so that several workers of pytest-xdist do not race for ports.

Also for all tests: a worker of pytest-xdist computes on one thread, there are as many workers as cores, and what takes
longest starts first.
"""

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before drmlib settles the threads, and before anything imports torch
    os.environ.setdefault("DRMLIB_THREADS", "1")

import pytest

from drmlib import session  # settles the threads

NOT_COMPARED = (
    "stderr",
    "text/html",
    "text/latex",
    "text/markdown",
    "image/png",
    "image/svg+xml",
    "application/vnd.drmlib.claim+json",
    "application/vnd.drmlib.shortfall+json",
    "application/vnd.jupyter.widget-view+json",
    "application/javascript",
)

os.environ["DRMLIB_HEADLESS"] = "1"  # kernels inherit it: progress bars are text on stderr


def pytest_configure(config: pytest.Config) -> None:
    """Gives nbval our kernel manager in place of jupyter_client's, which it looks up by this name."""
    if config.pluginmanager.hasplugin("nbval"):
        import nbval.kernel

        from drmlib.lab.kernels import SocketKernelManager

        nbval.kernel.KernelManager = SocketKernelManager


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What `-n auto` means: the cores that this process may use, not those of the machine."""
    return session.cores()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebooks first, the longest first, so that no worker begins one when the others have ended."""
    cost = {path: _stored_cost(path) for path in {item.path for item in items}}
    items.sort(key=lambda item: -cost[item.path])


def _stored_cost(path: Path) -> float:
    """The stored cost of a notebook; 0 for a file of tests."""
    if path.suffix != ".ipynb":
        return 0.0
    from drmlib.lab import estimates

    return estimates.expected(path)


def pytest_collectstart(collector: pytest.Collector) -> None:
    if hasattr(collector, "skip_compare"):  # nbval's collector of one notebook
        collector.skip_compare += NOT_COMPARED
