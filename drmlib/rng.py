"""Random numbers: one seed at the top, independent named streams below, never the global stream."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator


def stream(seed: int, *names: str | int, device: torch.device | str = "cpu") -> Generator:
    """A generator for one purpose, e.g. `stream(0, "victim", "poison")`.

    Streams of different names are independent, and adding one does not move the others: the state is the SHA-256 of
    seed and names, not a count of earlier draws.
    """
    digest = hashlib.sha256("/".join([str(seed), *map(str, names)]).encode()).digest()
    return Generator(device=device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def spawn(generator: Generator, *, device: torch.device | str | None = None) -> Generator:
    """A new generator seeded by one draw from `generator`; on the same device unless told."""
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device).item()
    return Generator(device=device or generator.device).manual_seed(int(seed))


@contextmanager
def seeded_layers(generator: Generator) -> Iterator[None]:
    """Inside, torch's layers draw their initial weights from `generator`; the global stream is put back afterwards.

    torch.nn initialises from the global stream and takes no generator; this is the one place that touches it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator, device=generator.device).item()))
        yield


def check_device(generator: Generator, tensor: torch.Tensor, what: str = "images") -> None:
    """Raises ValueError if `generator` does not live on the device of `tensor`."""
    if generator.device.type != tensor.device.type:
        raise ValueError(
            f"expected a generator on the device of {what}, {tensor.device}, got one on {generator.device}; "
            f"make it with drmlib.rng.stream(seed, ..., device={str(tensor.device)!r})"
        )
