"""One training that several processes share."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tsar.exceptions import ParameterError

__all__ = ["Processes", "distributed", "sharing_processes"]

# What torchrun tells each process.
TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """The processes that share a training, as one of them sees them.

    Parameters
    ----------
    rank : int
        Which of them this one is, from 0.
    count : int
    """

    rank: int
    count: int

    @property
    def is_first(self) -> bool:
        """Whether this is the one that shows how far it is."""
        return self.rank == 0

    def check_batch(self, size: int) -> None:
        """Raise a ParameterError for a batch that is less than one example for each of them."""
        if size < self.count:
            raise ParameterError(
                f"train: a batch of {size} cannot be divided among {self.count} processes; "
                f"raise batch_size, pass more rows, or start fewer processes"
            )

    def share(self, index: Tensor) -> Tensor:
        """Return those of the examples of a batch that are for this process."""
        return index.tensor_split(self.count)[self.rank]

    def number_of_all(self, number: int) -> int:
        """Return the number that the first process has."""
        held = torch.tensor([number], dtype=torch.int64)
        torch.distributed.broadcast(held, src=0)
        return int(held)

    def means_of_first(self, means: dict[str, float]) -> dict[str, float]:
        """Return the numbers that the first process has, by name.

        What they decide, all have to decide alike.
        """
        held = torch.tensor(list(means.values()), dtype=torch.float64)
        torch.distributed.broadcast(held, src=0)
        return dict(zip(means, held.tolist(), strict=True))

    def add_terms(self, terms: dict[str, tuple[Tensor, Tensor]]) -> tuple[dict, Tensor]:
        """Add up the terms of a step.

        Parameters
        ----------
        terms : dict of str to pair of Tensor
            The sum and the number of entries of each, of this process.

        Returns
        -------
        terms : dict of str to pair of Tensor
            Those of all processes together.
        share : Tensor of shape ()
            The share of the entries of ``loss`` that this process has.
        """
        device = terms["loss"][0].device
        summed = torch.stack(
            [part.detach().double().to(device) for pair in terms.values() for part in pair]
        ).view(-1, 2)
        torch.distributed.all_reduce(summed)
        together = {name: (pair[0], pair[1]) for name, pair in zip(terms, summed, strict=True)}
        return together, terms["loss"][1] / together["loss"][1].clamp(min=1)

    @torch.no_grad()
    def add_gradients(self, parameters: Sequence[nn.Parameter], share: Tensor) -> None:
        """Replace gradients by the mean of all processes, each weighted with its share.

        A parameter that had no part in the step of any of them has no gradient.
        """
        has = torch.tensor([one.grad is not None for one in parameters], dtype=torch.int64)
        torch.distributed.all_reduce(has, op=torch.distributed.ReduceOp.MAX)
        moved = [one for one, any_has in zip(parameters, has.tolist(), strict=True) if any_has]
        if not moved:
            return
        flat = torch.cat(
            [(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in moved]
        )
        flat *= share
        torch.distributed.all_reduce(flat)
        parts = flat.split([one.numel() for one in moved])
        for one, part in zip(moved, parts, strict=True):
            one.grad = part.view_as(one)

    @torch.no_grad()
    def average_statistics(self, network: nn.Module) -> None:
        """Replace what a network counts, not learns, by the mean of all processes."""
        for statistic in network.buffers():
            if statistic.is_floating_point():
                torch.distributed.all_reduce(statistic)
                statistic /= self.count


_sharing: ContextVar[Processes | None] = ContextVar("sharing", default=None)


def sharing_processes() -> Processes | None:
    """Return the processes that share a training which begins now; None for this one alone."""
    return _sharing.get()


@contextlib.contextmanager
def distributed() -> Iterator[Processes]:
    """Share every training inside of a ``with`` block among the processes of torchrun.

    Each process runs the same script on the same data. A batch is divided among them, and each
    step is made with the gradient of the whole batch, so that all of them end with the weights
    that one process would have found with the same ``batch_size``, up to rounding, and up to what
    depends on the process: dropout, and the statistics of batch normalisation.

    Yields
    ------
    Processes
        ``rank``, ``count`` and ``is_first``: let the first one save the model.

    Raises
    ------
    ParameterError
        The process was not started by torchrun, and has no group of processes either.

    Notes
    -----
    Gradients go through :mod:`torch.distributed`: NCCL between CUDA devices, of which each process
    takes the one of its ``LOCAL_RANK`` where ``device="auto"``, and Gloo between processors.
    Selections by the clock (:class:`tsar.AutoForecaster`) and checkpoints are for one process.

    Examples
    --------
    In ``train.py``, run by ``torchrun --nproc-per-node 2 train.py``:

    >>> import tsar
    >>> def main():
    ...     model = tsar.PatchTST(horizon=12, random_state=0)
    ...     with tsar.training.distributed() as processes:
    ...         model.fit(tsar.load_dataset("elnino"))
    ...     if processes.is_first:
    ...         model.save("sea")
    """
    ours = not torch.distributed.is_initialized()
    if ours:
        missing = [name for name in TOLD if name not in os.environ]
        if missing:
            raise ParameterError(
                f"distributed: the environment must name {', '.join(TOLD)}, got no "
                f"{', '.join(missing)}; start the script with torchrun --nproc-per-node N script.py"
            )
        cuda = torch.cuda.is_available() and torch.distributed.is_nccl_available()
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    processes = Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
    token = _sharing.set(processes if processes.count > 1 else None)
    try:
        yield processes
    finally:
        _sharing.reset(token)
        if ours:
            torch.distributed.destroy_process_group()
