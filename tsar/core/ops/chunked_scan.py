"""The selective scan in chunks, without a loop over tokens.

Letters: B batch, L tokens, E channels, N states per channel, T tokens of a chunk, R sequences
of a block.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["chunked_scan"]

# States of a block: few enough for the caches of a CPU, many enough to fill an accelerator.
_BLOCK_ON_CPU, _BLOCK_ELSEWHERE = 2**19, 2**24
# How many sequences a block has at least, and tokens a chunk.
_FEWEST_SEQUENCES, _SHORTEST_CHUNK = 4, 8
_LOG2_E = math.log2(math.e)


def chunked_scan(
    x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute ``h_t = exp(delta_t a) h_{t-1} + delta_t b_t x_t`` and ``y_t = c_t h_t``.

    Parameters
    ----------
    x, delta : Tensor of shape (B, L, E)
    a : Tensor of shape (E, N)
    b, c : Tensor of shape (B, L, N)
    start : Tensor of shape (B, E, N)
        The state before the first token.

    Returns
    -------
    y : Tensor of shape (B, L, E)
    state : Tensor of shape (B, E, N)
        After the last token.
    """
    y, state = _ChunkedScan.apply(x, delta, a.t(), b, c, start.mT)
    return y, state.mT


class _ChunkedScan(torch.autograd.Function):
    """The scan in chunks of tokens that stay in the cache, done again for the gradient.

    Inside a chunk the recurrence is solved by cyclic reduction: neighbours are
    joined until one token is left, and then filled in again, which takes a
    number of steps that grows with the logarithm of the chunk and about three
    times the arithmetic of going token by token. Decays are only ever
    multiplied with each other, never divided by: what has decayed away is 0,
    and nothing overflows. The gradient of the states is the transposed scan,
    which is the same steps backwards.

    What is remembered is the state before each chunk. Channels lie side by
    side in memory, so all steps have long rows however few states there are.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor]:
        a = a.contiguous()
        y = torch.empty_like(x)
        work = _Workspace(x, a, n_buffers=2)
        # The states before each chunk, and after the last one.
        states = x.new_empty(len(x), work.n_chunks + 1, *start.shape[1:])
        states[:, 0] = start
        for rows in work.blocks(x, delta, b, c, y, states):
            x_r, delta_r, b_r, c_r, y_r, states_r = rows
            before, *after = states_r.unbind(1)
            chunks = work.chunks(delta_r[:, :, None], (delta_r * x_r)[:, :, None], b_r, c_r, y_r)
            for (step, u, b_t, c_t, out), end in zip(chunks, after, strict=True):
                part = work.part(out)
                part.scan(step, u, b_t[..., None], before)
                out.copy_(_products(c_t, part.h_by_token))
                before = end.copy_(part.last)
        ctx.save_for_backward(x, delta, a, b, c, states)
        return y, states[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_end: Tensor) -> tuple[Tensor, ...]:
        x, delta, a, b, c, states = ctx.saved_tensors
        grads = grad_x, grad_delta, grad_b, grad_c = [torch.empty_like(t) for t in (x, delta, b, c)]
        grad_a, grad_start = torch.zeros_like(a), grad_end.clone()
        work = _Workspace(x, a, n_buffers=3)
        for rows in work.blocks(x, delta, b, c, grad_y, *grads, states, grad_start):
            *by_token, states_r, carry = rows
            chunks = list(work.chunks(*by_token, by_token[0] * by_token[1]))
            befores = states_r.unbind(1)[: len(chunks)]
            for chunk, before in zip(reversed(chunks), reversed(befores), strict=True):
                value, step, b_t, c_t, grad, to_x, to_delta, to_b, to_c, u = chunk
                part, step_n = work.part(value), step[:, :, None]
                part.scan(step_n, u[:, :, None], b_t[..., None], before)
                part.scan_back(grad[:, :, None], c_t[..., None], carry)
                to_c.copy_(_products(grad, part.h_by_token.mT))
                to_b.copy_(_products(u, part.g_by_token.mT))
                grad_u = _products(b_t, part.g_by_token)
                torch.mul(grad_u, step, out=to_x)
                exponents = part.exponent_grads(before)
                to_delta.copy_(torch.mul(exponents, a, out=part.g).sum(dim=2))
                to_delta.addcmul_(grad_u, value)
                grad_a += exponents.mul_(step_n).sum(dim=(0, 1))
        return grad_x, grad_delta, grad_a, grad_b, grad_c, grad_start


class _Workspace:
    """Cuts (B, L) into blocks of sequences and chunks of tokens, with room for the states."""

    def __init__(self, x: Tensor, a: Tensor, n_buffers: int) -> None:
        batch, length, _ = x.shape
        self.a = a * _LOG2_E
        budget = _BLOCK_ON_CPU if x.device.type == "cpu" else _BLOCK_ELSEWHERE
        # The length of a chunk must not depend on the batch: it decides how sums are rounded.
        self.n_tokens = max(budget // _FEWEST_SEQUENCES // a.numel(), _SHORTEST_CHUNK)
        self.n_tokens = min(self.n_tokens, length)
        self.n_rows = max(min(budget // (self.n_tokens * a.numel()), batch), 1)
        self.n_chunks = -(-length // self.n_tokens)
        # One more for the decays of joined neighbours.
        self.room = x.new_empty(n_buffers + 1, self.n_rows * self.n_tokens * a.numel())
        self.parts: dict[torch.Size, _Part] = {}

    def blocks(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Cut tensors of one row per sequence side by side."""
        return zip(*(tensor.split(self.n_rows) for tensor in tensors), strict=True)

    def chunks(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Cut tensors (R, L, ...) along the tokens side by side."""
        return zip(*(tensor.split(self.n_tokens, dim=1) for tensor in tensors), strict=True)

    def part(self, chunk: Tensor) -> "_Part":
        """Give the room for a chunk (R, T, ...); those of one size share it."""
        shape = chunk.shape[:2]
        if shape not in self.parts:
            self.parts[shape] = _Part(self.room, shape, self.a)
        return self.parts[shape]


class _Part:
    """Room for the decays and states of a chunk, and the steps that scan it.

    Parameters
    ----------
    room : Tensor of shape (buffers, any)
    shape : (R, T)
    a : Tensor of shape (N, E)
        For powers of 2, which are several times faster than those of e.
    """

    def __init__(self, room: Tensor, shape: torch.Size, a: Tensor) -> None:
        self.a = a
        full = *shape, *a.shape
        n_entries = math.prod(full)
        self.decay, self.h, *rest = (buffer[:n_entries].view(full) for buffer in room[:-1])
        self.joints = _joints(self.decay, room[-1])
        decays = [self.decay, *(joint for joint, _, _ in self.joints)]
        self.steps, self.h_by_token = _steps(decays, self.h), self.h.flatten(0, 1)
        self.first_decay, self.first, self.last = self.decay[:, 0], self.h[:, 0], self.h[:, -1]
        if rest:
            (self.g,) = rest
            self.grad_steps, self.g_by_token = _steps(decays, self.g), self.g.flatten(0, 1)

    def scan(self, delta: Tensor, u: Tensor, b: Tensor, before: Tensor) -> None:
        """Find the states from (R, T, 1, E), (R, T, 1, E), (R, T, N, 1) and (R, N, E)."""
        torch.mul(delta, self.a, out=self.decay).exp2_()
        torch.mul(u, b, out=self.h)
        self.first.addcmul_(self.first_decay, before)
        for joint, later, earlier in self.joints:
            torch.mul(later, earlier, out=joint)
        for later, decay, earlier in self.steps:
            later.addcmul_(decay, earlier)

    def scan_back(self, grad_y: Tensor, c: Tensor, carry: Tensor) -> None:
        """Find the gradients of the states; the carry becomes that of the chunk before."""
        torch.mul(grad_y, c, out=self.g)
        self.g[:, -1] += carry
        for later, decay, earlier in reversed(self.grad_steps):
            earlier.addcmul_(decay, later)
        torch.mul(self.first_decay, self.g[:, 0], out=carry)

    def exponent_grads(self, before: Tensor) -> Tensor:
        """Replace the decays by the gradients of their exponents, ``delta a``."""
        exponents = self.decay.mul_(self.g)
        exponents[:, 1:].mul_(self.h[:, :-1])
        self.first_decay.mul_(before)
        return exponents


def _products(rows: Tensor, matrices: Tensor) -> Tensor:
    """Multiply rows (R, T, I) with a matrix each (R * T, I, J), to (R, T, J).

    A matrix times a column takes ten times as long in torch as a row times its transpose.
    """
    shape = rows.shape
    # Written into a tensor of its own, so that autocast does not touch it.
    out = matrices.new_empty(len(matrices), 1, matrices.shape[2])
    return torch.bmm(rows.reshape(-1, 1, shape[2]), matrices, out=out).view(*shape[:2], -1)


def _joints(decay: Tensor, room: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Give, level by level, the decays over two neighbours and the decays they are made of."""
    joints = []
    while decay.shape[1] > 3:
        n_pairs = decay.shape[1] // 2
        earlier, later = decay[:, 0 : 2 * n_pairs : 2], decay[:, 1::2]
        decay = room[: later.numel()].view(later.shape)
        room = room[later.numel() :]
        joints.append((decay, later, earlier))
    return joints


def _steps(decays: list[Tensor], h: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """List the steps ``later += decay * earlier`` that solve ``h_t += decay_t h_{t-1}`` in place.

    First the second of each pair of neighbours takes up the first, and the
    same again among the seconds; then, from the coarsest level back, the first
    of each pair takes up the second of the pair before, which is finished.
    """
    joining, filling = [], []
    for decay in decays:
        n_pairs = h.shape[1] // 2
        first, second = h[:, 0::2], h[:, 1::2]
        if n_pairs > 0:
            joining.append((second, decay[:, 1::2], first[:, :n_pairs]))
        if first.shape[1] > 1:
            filling.append((first[:, 1:], decay[:, 2::2], second[:, : first.shape[1] - 1]))
        h = second
    return joining + filling[::-1]
