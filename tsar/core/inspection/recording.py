"""What a network has inside while it forecasts: attention weights and encoded tokens."""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from tsar.core.block import Encoder
from tsar.core.mixers import SoftmaxAttention

__all__ = ["WHATS", "recorded"]

WHATS = ("attention", "embedding")


@contextlib.contextmanager
def recorded(network: nn.Module, what: str) -> Iterator[list[list[Tensor]]]:
    """Keep what the encoder of a network has inside, in the passes of a ``with`` block.

    Parameters
    ----------
    network : nn.Module
    what : {"attention", "embedding"}
        The weights (B, N, L, S) of the attention of each block, or the tokens (B, L, D) that
        the encoder gives.

    Yields
    ------
    list of list of Tensor
        For each block that attends, or each encoder, a tensor for each pass. Empty where the
        network has nothing of the kind.
    """
    encoders = [part for part in network.modules() if isinstance(part, Encoder)]
    with contextlib.ExitStack() as stack:
        recordings: list[list[Tensor]] = []
        if what == "attention":
            blocks: list[Any] = [block for encoder in encoders for block in encoder.blocks]
            for block in blocks:
                if isinstance(block.mixer, SoftmaxAttention):
                    recordings.append(stack.enter_context(block.mixer.recording()))
        else:
            for encoder in encoders:
                passes: list[Tensor] = []
                recordings.append(passes)
                hook = encoder.register_forward_hook(
                    lambda module, inputs, tokens, passes=passes: passes.append(tokens)
                )
                stack.callback(hook.remove)
        yield recordings
