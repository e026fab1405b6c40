"""The selective scan in chunks, without a loop over tokens.

Letters: B batch, L tokens, E channels, N states per channel, T tokens of a chunk, R sequences
of a block.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["chunked_scan"]

# States of a block: few enough for the caches of a CPU, many enough to fill an accelerator.
_BLOCK_ON_CPU, _BLOCK_ELSEWHERE = 2**18, 2**24
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
        x, delta, a, b, c = (tensor.contiguous() for tensor in (x, delta, a, b, c))
        y = torch.empty_like(x)
        work = _Workspace(x, a, n_buffers=2)
        # The states before each chunk and after the last one.
        states = x.new_empty(work.n_chunks + 1, *start.shape)
        states[0] = start
        for rows in work.row_blocks:
            for chunk, tokens in enumerate(work.chunks):
                place = rows, tokens
                part = work.part(place)
                step = delta[place]
                h = part.states(step, step * x[place], b[place], states[chunk, rows])
                y[place] = _products(c[place], part.h_by_token)
                states[chunk + 1, rows] = h[:, -1]
        ctx.save_for_backward(x, delta, a, b, c, states)
        return y, states[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_end: Tensor) -> tuple[Tensor, ...]:
        x, delta, a, b, c, states = ctx.saved_tensors
        grad_x, grad_delta, grad_b, grad_c = map(torch.empty_like, (x, delta, b, c))
        grad_a, grad_start = torch.zeros_like(a), torch.empty_like(grad_end)
        work = _Workspace(x, a, n_buffers=3)
        for rows in work.row_blocks:
            carry = grad_end[rows]
            for chunk in reversed(range(work.n_chunks)):
                place = rows, work.chunks[chunk]
                part = work.part(place)
                step, value, grad = delta[place], x[place], grad_y[place]
                u, before = step * value, states[chunk, rows]
                h = part.states(step, u, b[place], before)
                g = part.grad_states(grad, c[place], carry)
                grad_c[place] = _products(grad, part.h_by_token.mT)
                grad_b[place] = _products(u, part.g_by_token.mT)
                grad_u = _products(b[place], part.g_by_token)
                decay = part.decay
                carry = decay[:, 0] * g[:, 0]
                # From here on the decays are the gradients of their exponents, delta * a.
                decay *= g
                decay[:, 1:] *= h[:, :-1]
                decay[:, 0] *= before
                torch.mul(decay, a, out=g)
                grad_delta[place] = g.sum(dim=2).addcmul_(grad_u, value)
                grad_x[place] = grad_u.mul_(step)
                decay *= step[:, :, None]
                grad_a += decay.sum(dim=(0, 1))
            grad_start[rows] = carry
        return grad_x, grad_delta, grad_a, grad_b, grad_c, grad_start


class _Workspace:
    """Cuts (B, L) into blocks of sequences and chunks of tokens, with room for the states."""

    def __init__(self, x: Tensor, a: Tensor, n_buffers: int) -> None:
        batch, length, _ = x.shape
        self.a = a * _LOG2_E
        budget = _BLOCK_ON_CPU if x.device.type == "cpu" else _BLOCK_ELSEWHERE
        # The length of a chunk must not depend on the batch: it decides how sums are rounded.
        size = min(max(budget // _FEWEST_SEQUENCES // a.numel(), _SHORTEST_CHUNK), max(length, 1))
        n_rows = max(min(budget // (size * a.numel()), batch), 1)
        self.row_blocks = [slice(i, min(i + n_rows, batch)) for i in range(0, batch, n_rows)]
        self.chunks = [slice(i, min(i + size, length)) for i in range(0, length, size)]
        self.n_chunks = len(self.chunks)
        # One more for the decays of joined neighbours.
        self.room = x.new_empty(n_buffers + 1, n_rows * size * a.numel())
        self.parts: dict[tuple[int, int], _Part] = {}

    def part(self, place: tuple[slice, slice]) -> "_Part":
        """Give the room for a chunk of a block; those of one size share it."""
        rows, tokens = place
        shape = rows.stop - rows.start, tokens.stop - tokens.start
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

    def __init__(self, room: Tensor, shape: tuple[int, int], a: Tensor) -> None:
        self.a = a
        full = *shape, *a.shape
        n_entries = math.prod(full)
        self.decay, self.h, *rest = (buffer[:n_entries].view(full) for buffer in room[:-1])
        self.joints = _joints(self.decay, room[-1])
        decays = [self.decay, *(joint for joint, _, _ in self.joints)]
        self.steps, self.h_by_token = _steps(decays, self.h), self.h.flatten(0, 1)
        if rest:
            (self.g,) = rest
            self.grad_steps, self.g_by_token = _steps(decays, self.g), self.g.flatten(0, 1)

    def states(self, delta: Tensor, u: Tensor, b: Tensor, before: Tensor) -> Tensor:
        """Compute the states (R, T, N, E), given those before the chunk (R, N, E)."""
        torch.mul(delta[:, :, None], self.a, out=self.decay).exp2_()
        torch.mul(u[:, :, None], b[..., None], out=self.h)
        self.h[:, 0].addcmul_(self.decay[:, 0], before)
        for joint, later, earlier in self.joints:
            torch.mul(later, earlier, out=joint)
        for later, decay, earlier in self.steps:
            later.addcmul_(decay, earlier)
        return self.h

    def grad_states(self, grad_y: Tensor, c: Tensor, after: Tensor) -> Tensor:
        """Compute the gradients of the states, given what comes from after the chunk."""
        torch.mul(grad_y[:, :, None], c[..., None], out=self.g)
        self.g[:, -1] += after
        for later, decay, earlier in reversed(self.grad_steps):
            earlier.addcmul_(decay, later)
        return self.g


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
