"""Randomness that belongs to one fit: the caller's generators are never touched."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["make_generator", "seeded"]

_lock = threading.Lock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Build networks with torch's default initialisers from a seed.

    Torch's initialisers draw from the global CPU generator; its state is put
    back on leaving, and a lock keeps concurrent fits apart. Networks are
    therefore built on the CPU and moved afterwards.

    Parameters
    ----------
    seed : int
    """
    with _lock:
        before = torch.default_generator.get_state()
        # torch.manual_seed would reseed the accelerators as well.
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.default_generator.set_state(before)


def make_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Build a generator on a device from a seed."""
    return torch.Generator(device).manual_seed(seed)
