"""Sums of the terms of an objective, read from the device a few steps at a time."""

from typing import Any

import torch
from torch import Tensor

from tsar.exceptions import ParameterError
from tsar.training.objective import Terms

__all__ = ["TermSums"]


class TermSums:
    """Adds up terms.

    Parameters
    ----------
    read_every : int, optional
        Reading waits for the device, so the terms of so many steps are read together; all of
        them at the end by default.

    Attributes
    ----------
    fault : tuple of int and str or None
        The first step, counted from 0, one of whose sums is not finite, and its name.
    """

    def __init__(self, read_every: int | None = None) -> None:
        self.read_every = read_every
        self.fault: tuple[int, str] | None = None
        self._names: tuple[str, ...] = ()
        self._unread: list[Tensor] = []
        self._n_read = 0
        self._sums: dict[str, list[float]] = {}

    def add(self, terms: Terms) -> None:
        """Add the terms of one step."""
        names = tuple(terms)
        if names != self._names:
            self._read()
            self._names = names
            if "loss" not in terms:
                raise ParameterError(
                    f"train: an objective must give a term named 'loss', got {list(terms)}"
                )
        pairs = [part.detach() for pair in terms.values() for part in pair]
        # Half precision could not hold the counts.
        dtype = torch.promote_types(pairs[0].dtype, torch.float32)
        self._unread.append(torch.stack([part.to(dtype) for part in pairs]))
        if len(self._unread) == self.read_every:
            self._read()

    def means(self) -> dict[str, float]:
        """Return the mean of every term."""
        self._read()
        return {name: total / max(count, 1.0) for name, (total, count) in self._sums.items()}

    def _read(self) -> None:
        if not self._unread:
            return
        read = torch.stack(self._unread).cpu().double()  # (steps, 2 * terms)
        bad = (~read[:, ::2].isfinite()).nonzero()
        if len(bad) and self.fault is None:
            step, term = bad[0].tolist()
            self.fault = self._n_read + step, self._names[term]
        for name, sums in zip(self._names, read.sum(dim=0).view(-1, 2).tolist(), strict=True):
            before = self._sums.get(name, [0.0, 0.0])
            self._sums[name] = [before[0] + sums[0], before[1] + sums[1]]
        self._n_read += len(read)
        self._unread = []

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what JSON can hold, and what was not read yet."""
        record = {"names": list(self._names), "n_read": self._n_read, "sums": self._sums}
        return record, {"terms": torch.stack(self._unread).cpu()} if self._unread else {}

    def restore(
        self, record: dict[str, Any], unread: dict[str, Tensor], device: torch.device
    ) -> None:
        """Go on from what :meth:`to_state` returned, on the device of the terms."""
        self._names, self._n_read = tuple(record["names"]), record["n_read"]
        self._sums = {name: list(sums) for name, sums in record["sums"].items()}
        self._unread = list(unread["terms"].to(device)) if unread else []
