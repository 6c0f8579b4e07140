"""For `pytest --nbval notebooks`: what of a notebook's outputs is compared. Texts of claims are; pictures, HTML and
exact figures are not, since they change with processor and release. Kernels compute on one thread, as they did when the
outputs were stored, and are reached over sockets, so that several workers of pytest-xdist do not race for ports.

Also for all tests: a worker of pytest-xdist computes on one thread.
"""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before drmlib settles the threads, and before anything imports torch
    os.environ.setdefault("DRMLIB_THREADS", "1")

import pytest

import drmlib  # noqa: F401  settles the threads

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


def pytest_collectstart(collector: pytest.Collector) -> None:
    if hasattr(collector, "skip_compare"):  # nbval's collector of one notebook
        collector.skip_compare += NOT_COMPARED
