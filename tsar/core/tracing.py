"""Whether an operation runs, or is being written down by torch to be run elsewhere."""

import torch

__all__ = ["is_traced"]


def is_traced() -> bool:
    """Whether ``torch.export``, ``torch.compile`` or ``torch.jit.trace`` is at work.

    They cannot look into autograd functions written by hand, nor fuse what was cut to fit the
    cache of a CPU: while they are at work every operation takes the form that is made of torch's
    own.
    """
    # Public, but missing from the list of what that module exports.
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
