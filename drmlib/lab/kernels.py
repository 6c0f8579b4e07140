"""How kernels are started: over sockets in a folder of their own, and with the number of threads that they are given.

Over tcp, jupyter_client looks for free ports, closes them, and writes them into a file; of two kernels that start at
once, one may take the other's. Sockets in a fresh folder cannot collide. Windows has no such sockets and keeps tcp.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from jupyter_client.manager import AsyncKernelManager, KernelManager

from drmlib import session

SOCKETS = sys.platform != "win32"
LONGEST = 80  # bytes of a folder's name: a socket's whole path may have 103 on macOS, 107 on Linux

# glibc keeps freed blocks below this many bytes and gives larger ones back; its own limit grows up to 32 MB, by which a
# kernel holds 50 to 100 MB that nothing uses. Other systems ignore it.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(4 << 20)}


class _Sockets:
    """A kernel manager whose sockets lie in a folder of their own, which goes with the kernel."""

    def __init__(self, **options: Any) -> None:
        self.folder = short_folder() if SOCKETS else None
        if self.folder:  # absolute: without a path the sockets of all kernels lie in the current folder
            options.update(transport="ipc", ip=f"{self.folder.name}/k")
        super().__init__(**options)

    def cleanup_connection_file(self) -> None:
        """Called when the kernel has ended for good, not when it is restarted."""
        super().cleanup_connection_file()  # type: ignore[misc]
        if self.folder:
            self.folder.cleanup()


class SocketKernelManager(_Sockets, KernelManager):
    """For who waits for kernels without asyncio, as nbval does; its kernels compute as stored outputs were computed."""

    def start_kernel(self, **options: Any) -> Any:
        """Starts the kernel on one thread, as `drmlib refresh` does, unless DRMLIB_THREADS says otherwise."""
        return super().start_kernel(**{"env": {**os.environ, **one_thread()}, **options})


class AsyncSocketKernelManager(_Sockets, AsyncKernelManager):
    """For nbclient and papermill."""


def short_folder() -> "tempfile.TemporaryDirectory[str]":
    """A fresh folder that only this user may enter, with a name short enough for the sockets in it."""
    place = tempfile.gettempdir()
    if len(os.fsencode(place)) > LONGEST - 20:
        place = "/tmp"
    return tempfile.TemporaryDirectory(prefix="drmlib-", dir=place, ignore_cleanup_errors=True)


def environment(threads: int, precision: str | None = None) -> dict[str, str]:
    """What the runner adds to its own environment for a kernel that shall compute on so many threads.

    precision: float32 or bfloat16, decided once by the runner so that all kernels agree; None leaves it to the kernel.
    """
    decided = {"DRMLIB_PRECISION": precision} if precision else {}
    memory = {name: value for name, value in MEMORY.items() if name not in os.environ}
    return {**memory, **session.thread_environment(threads), **decided, "DRMLIB_HEADLESS": "1"}


def one_thread() -> dict[str, str]:
    """The environment of a kernel whose outputs are compared with stored ones."""
    return session.thread_environment(session.wanted_threads() if os.environ.get("DRMLIB_THREADS") else 1)


def started(run: Callable[[], Any]) -> Any:
    """What `run`, which starts a kernel, returns; over tcp it is tried once more if the kernel dies at its start.

    A kernel that finds one of its ports taken ends at once with "Address already in use", which only its own stderr
    tells; to who waits for it, it has died before it replied.
    """
    try:
        return run()
    except RuntimeError as error:
        if SOCKETS or "died before replying" not in str(error):
            raise
        return run()
