"""Language models that read patches of tokens, and write the tokens of a patch in a small model."""

from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from tsar.core.mixers import Mixer
from tsar.exceptions import ParameterError
from tsar.language.autoregressive import AutoregressiveText
from tsar.language.mixed import cycled
from tsar.language.patched import AddedContext, PatchedNetwork, PrefixedContext
from tsar.params.constraints import Interval

__all__ = ["BlockTransformer", "MegaByte"]


@dataclass(kw_only=True, eq=False, repr=False)
class HierarchicalText(AutoregressiveText):
    """A large decoder over patches of tokens and a small one inside of a patch.

    Parameters
    ----------
    mixer : str, subclass of Mixer, or list of these, default "attention"
        What mixes patches, any that is causal. Of a list the blocks take one after the other,
        from the first again at the end.
    d_model : int, default 128
        Width of a patch, a multiple of ``patch_size``.
    n_layers : int, default 4
        Blocks over patches.
    d_ff : int, default 512
        Width inside of the feed-forward part over patches; inside of a patch it is in proportion.
    patch_size : int, default 4
        Tokens of a patch.
    local_mixer : str, subclass of Mixer, or list of these, default "attention"
        What mixes the tokens of a patch.
    d_local : int, default 64
        Width of these tokens.
    n_local_layers : int, default 2
        Blocks inside of a patch.
    local_window : int or None, default None
        How many of the latest tokens attention in the small decoder sees, itself being one,
        whatever patches they belong to; recurrences and convolutions there go on from patch to
        patch. With None the small decoder begins anew with each patch.
    """

    patch_size: Annotated[int, Interval(2)] = 4
    local_mixer: str | type[Mixer] | list[Any] = "attention"
    d_local: Annotated[int, Interval(1)] = 64
    n_local_layers: Annotated[int, Interval(1)] = 2
    local_window: Annotated[int, Interval(1)] | None = None

    # Whether the network is one of those that earlier versions saved.
    _late = False

    @classmethod
    def upgrade_parameters(cls, saved: dict[str, Any]) -> dict[str, Any]:
        """See :meth:`Estimator.upgrade_parameters`; there was no window at first."""
        return {"local_window": None, **super().upgrade_parameters(saved)}

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if int(self.d_model) % int(self.patch_size):
            raise ParameterError(
                f"{self.name}: d_model must be a multiple of patch_size={self.patch_size}, got "
                f"{self.d_model}"
            )
        self._check_mixers("local_mixer", int(self.n_local_layers), int(self.d_local), "d_local")

    def _make_patched(self, n_tokens: int, context: Any) -> PatchedNetwork:
        d_model, d_local = int(self.d_model), int(self.d_local)
        overall = [self._make_mixer(mixer, causal=True) for mixer in self._mixers]
        near = {} if self.local_window is None else {"window": int(self.local_window)}
        local = [
            self._make_mixer(mixer, causal=True, d_model=d_local, **near)
            for mixer in cycled(self.local_mixer, int(self.n_local_layers))
        ]
        return PatchedNetwork(
            self._make_decoder(overall, d_model, int(self.d_ff)),
            self._make_decoder(local, d_local, max(1, int(self.d_ff) * d_local // d_model)),
            context,
            n_tokens,
            int(self.patch_size),
            across=self.local_window is not None,
            late=self._late,
        )

    def restore_learned_state(
        self, record: dict[str, Any], tensors: dict[str, Tensor], members: Any
    ) -> None:
        self._late = "network.local_first" not in tensors
        super().restore_learned_state(record, tensors, members)


@dataclass(kw_only=True, eq=False, repr=False)
class MegaByte(HierarchicalText):
    """A large model over patches of bytes, and a small one that writes the bytes of a patch.

    The embeddings of a patch, side by side, are one token of the large decoder. What it makes of
    the patches so far is cut into one vector for each byte of the next patch, which is added to
    the bytes there before the small decoder reads them. So the large one runs once for several
    bytes, and the small one over sequences as short as a patch, or near bytes only.

    Parameters
    ----------
    local_mixer : str, subclass of Mixer, or list of these, default "gated_convolution"
        What mixes bytes.
    local_window : int or None, default 16
        How many of the latest bytes attention in the small decoder sees, itself being one,
        whatever patches they belong to; recurrences and convolutions there go on from patch to
        patch. With None the small decoder begins anew with each patch.

    References
    ----------
    Yu et al., "MEGABYTE: predicting million-byte sequences with multiscale transformers", NeurIPS
    2023, section 2; looking back across patches is among its extensions, for attention. That a
    convolution or a recurrence reads the bytes: Hwang et al., "Dynamic chunking for end-to-end
    hierarchical sequence modeling", arXiv:2507.07955, where it is Mamba-2.

    Examples
    --------
    >>> from tsar.language import MegaByte
    >>> model = MegaByte(
    ...     context_length=32, d_model=32, n_layers=1, d_ff=64, d_local=32, n_local_layers=1,
    ...     max_steps=200, learning_rate=0.01, random_state=0, device="cpu",
    ... ).fit(["one, two, three, four. " * 40])
    >>> model.generate("one, two", max_tokens=7, temperature=0)
    ', three'
    """

    local_mixer: str | type[Mixer] | list[Any] = "gated_convolution"
    local_window: Annotated[int, Interval(1)] | None = 16

    def _make_network(self, n_tokens: int) -> PatchedNetwork:
        sizes = int(self.d_model), int(self.d_local), int(self.patch_size)
        return self._make_patched(n_tokens, AddedContext(*sizes))


@dataclass(kw_only=True, eq=False, repr=False)
class BlockTransformer(HierarchicalText):
    """A model over blocks of tokens, whose output is the prefix of a small model of each block.

    Parameters
    ----------
    n_prefix : int, default 2
        Tokens that stand before a block and say what was before.

    References
    ----------
    Ho et al., "Block transformer: global-to-local language modeling for fast inference", NeurIPS
    2024, section 2. Blocks begin anywhere in the texts, as the windows of the training do, and one
    that is not full belongs to the state of the local decoder; so nothing is padded.

    Examples
    --------
    >>> from tsar.language import BlockTransformer
    >>> model = BlockTransformer(
    ...     context_length=32, d_model=32, n_layers=1, d_ff=64, d_local=32, n_local_layers=1,
    ...     max_steps=200, learning_rate=0.01, random_state=0, device="cpu",
    ... ).fit(["one, two, three, four. " * 40])
    >>> model.generate("one, two", max_tokens=7, temperature=0)
    ', three'
    """

    n_prefix: Annotated[int, Interval(1)] = 2

    def _make_network(self, n_tokens: int) -> PatchedNetwork:
        sizes = int(self.d_model), int(self.d_local), int(self.n_prefix)
        return self._make_patched(n_tokens, PrefixedContext(*sizes))
