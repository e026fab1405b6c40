"""Randomness that belongs to one fit: the caller's generators are never touched."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["make_generator", "seeded"]

# Of one thread as often as it likes: networks are built inside of networks.
_lock = threading.RLock()
# A process is forked between two builds, never in the midst of one: a child has the thread that
# forked only, and would wait for the others for ever, with a generator that one of them seeded.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Build networks with torch's default initialisers from a seed.

    Torch's initialisers draw from the global CPU generator; its state is put
    back on leaving, and a lock keeps concurrent fits apart. Networks are
    therefore built on the CPU and moved afterwards. Inside of one block there may be
    another one, which gives the outer one back its state; a fork in another thread waits.

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
