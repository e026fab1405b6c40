"""Groups of vectors of a continuous kind, each drawn whole by a flow that takes noise to data."""

from typing import Any

import torch
from torch import Tensor, nn

from tsar.core import masks
from tsar.core.conditioned import ConditionedDecoder, ConditionedState
from tsar.core.heads.denoiser import TimeEmbedding, guided, noise_like
from tsar.core.heads.flow import follow, mixed
from tsar.core.linear import Linear
from tsar.core.position import LearnedPosition
from tsar.core.state import rewind
from tsar.params.constraints import check_choice

__all__ = ["CONTEXTS", "JointFlowHead"]

CONTEXTS = ("none", "noisy", "clean")


class JointFlowHead(nn.Module):
    """Vectors in groups, drawn group by group along a velocity from noise to data.

    The vectors of a group share one time and see each other on the way. Blocks say the velocity,
    which is zero at first; the time of each vector and what is wanted of it set their norms and
    gates, vector by vector.

    Parameters
    ----------
    decoder : ConditionedDecoder
        Its levels are the groups. Groups that see a clean context are of one size.
    d_model : int
        D, of the tokens and of the conditions.
    n_values : int
        E, of a vector.
    context : {"none", "noisy", "clean"}
        What a group is learned to see of those before it: nothing; them with the noise that they
        have in the same step, each of a time of its own; or them without, which takes a second copy
        of all of them. Drawn groups see those before without noise, unless they see none.
    n_steps : int, default 25
        Of Euler's rule, for each group.

    Raises
    ------
    ParameterError
        There is no such context.

    References
    ----------
    Lipman et al., "Flow matching for generative modeling", ICLR 2023; Ren et al., "FlowAR",
    arXiv:2412.15205, section 3.3 (groups by themselves); Ren et al., "Beyond next-token: next-X
    prediction", arXiv:2502.20388, section 3.3 (noisy); Hu et al., "ACDiT", arXiv:2412.07720,
    section 3.2 (clean).
    """

    def __init__(
        self,
        decoder: ConditionedDecoder,
        d_model: int,
        n_values: int,
        *,
        context: str,
        n_steps: int = 25,
    ) -> None:
        super().__init__()
        check_choice("JointFlowHead", "context", context, CONTEXTS)
        self.decoder, self.context, self.n_steps = decoder, context, n_steps
        self.n_values = n_values
        sizes = decoder.levels.bincount()
        self.n_groups, self._size = len(sizes), int(sizes[0])
        self.enter = Linear(n_values, d_model)
        self.position = LearnedPosition(len(decoder.levels), d_model)
        self.time = TimeEmbedding(d_model)
        self.leave = Linear(d_model, n_values)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @property
    def levels(self) -> Tensor:
        """The group of each vector, (L,)."""
        return self.decoder.levels

    def group_size(self, begin: int) -> int:
        """Return how many vectors the group has that begins behind so many."""
        return int((self.levels == self.levels[begin]).sum())

    def velocity(self, x: Tensor, time: Tensor, z: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return the velocity of all vectors at once.

        Parameters
        ----------
        x : Tensor of shape (B, L, E)
        time : Tensor of shape (B, G)
            How much of each group is noise, in [0, 1].
        z : Tensor of shape (B, D) or (B, L, D)
            What is wanted, of all or of each.
        clean : Tensor of shape (B, L, E), optional
            The same vectors without noise, for a clean context.

        Returns
        -------
        Tensor of shape (B, L, E)
        """
        n_vectors, tokens = x.shape[1], self.position(self.enter(x))
        mask, groups = None, self.levels
        if self.context == "none":
            mask = masks.same(self.levels)
        elif self.context == "clean":
            assert clean is not None, "later groups see it"
            tokens = torch.cat([tokens, self.position(self.enter(clean))], dim=1)
            groups = torch.cat([groups, groups + self.n_groups])
            time = torch.cat([time, torch.zeros_like(time)], dim=1)
            mask = masks.block_diffusion(n_vectors, self._size, device=x.device)
        told = self.time(time)
        if z.ndim == 2:
            # All vectors of a group are told the same.
            read = self.decoder(tokens, told + z[:, None], mask=mask, groups=groups)
        else:
            of_each = told[:, groups] + z.repeat(1, len(groups) // n_vectors, 1)
            read = self.decoder(tokens, of_each, mask=mask)
        velocity: Tensor = self.leave(read[:, :n_vectors])
        return velocity

    def loss(self, z: Tensor, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the error (B, L) of the velocity of vectors (B, L, E), each group at a time.

        Parameters
        ----------
        z : Tensor of shape (B, D) or (B, L, D)
        x : Tensor of shape (B, L, E)
        generator : torch.Generator, optional
        """
        place = x.device if generator is None else generator.device
        drawn = torch.rand(len(x), self.n_groups, generator=generator, device=place)
        time = drawn.to(x.device, x.dtype)
        between, wanted = mixed(x, noise_like(x, generator), time[:, self.levels])
        return (self.velocity(between, time, z, x) - wanted).square().mean(dim=2)

    # -------------------------------------------------------------------- drawing

    def init_state(self, z: Tensor) -> ConditionedState:
        """Return the state before the first group, given what is wanted, (B, D)."""
        return self.decoder.init_state(z)

    def extend(self, x: Tensor, state: ConditionedState) -> tuple[ConditionedState, Any]:
        """Read groups without noise, given the state before them.

        Parameters
        ----------
        x : Tensor of shape (B, T, E)
            Whole groups; none before the first one is drawn.
        state : ConditionedState

        Returns
        -------
        z : ConditionedState
            What the next group is drawn from: the state.
        state : ConditionedState
        """
        if x.shape[1]:
            _, state = self._extended(x, 0.0, state)
        return state, state

    def _extended(
        self, x: Tensor, time: float, state: ConditionedState
    ) -> tuple[Tensor, ConditionedState]:
        z = state.condition[:, None] if state.condition.ndim == 2 else state.condition
        tokens = self.position(self.enter(x), state.length)
        return self.decoder.extend(tokens, state, self.time(x.new_full((len(x), 1), time)) + z)

    @torch.no_grad()
    def sample(
        self,
        state: ConditionedState,
        *,
        temperature: float = 1.0,
        guidance: float | None = None,
        fixed: tuple[Tensor, Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw the next group.

        Parameters
        ----------
        state : ConditionedState
            After the groups before, see :meth:`extend`; with guidance of 2 B rows, those with the
            condition and then those without. See :meth:`alone` for groups that see none.
        temperature : float, default 1.0
            Of the noise that it begins with.
        guidance : float, optional
            The weight of :meth:`tsar.core.sampling.Guidance.combine`.
        fixed : pair of Tensor, optional
            Vectors (B, T, E) of the group, and which of their values stay, a bool Tensor of the
            same shape; see :func:`tsar.core.heads.flow.follow`.
        generator : torch.Generator, optional

        Returns
        -------
        Tensor of shape (B, T, E)
        """
        n_rows = len(state.condition) // (1 if guidance is None else 2)
        shape = n_rows, self.group_size(state.length), self.n_values
        noise = noise_like(state.condition.new_empty(shape), generator)

        def say(x: Tensor, time: float) -> Tensor:
            # What a step before has left of these vectors behind the state is written over.
            said, _ = self._extended(x, time, rewind(state))
            velocity: Tensor = self.leave(said)
            return velocity

        return follow(
            lambda x, time: guided(lambda rows: say(rows, time), x, guidance),
            temperature * noise,
            self.n_steps,
            fixed,
        )

    def alone(self, z: Tensor, begin: int) -> ConditionedState:
        """Return the state of a group that sees no other, for :meth:`sample`.

        Parameters
        ----------
        z : Tensor of shape (B, T, D)
            What is wanted of each of its vectors.
        begin : int
            How many vectors there are before it.
        """
        return self.decoder.init_state(z)._replace(length=begin)
