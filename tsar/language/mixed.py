"""Estimators of texts whose network is a stack of blocks with mixers of one's choice."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tsar.core.block import Block
from tsar.core.mixers import Mixer, accepted_options, make_mixer
from tsar.core.mlp import make_mlp
from tsar.exceptions import ParameterError
from tsar.language.base import TextEstimator
from tsar.params.constraints import Interval

__all__ = ["MixedText", "cycled"]


def cycled(mixer: Any, n_layers: int) -> list[Any]:
    """Return the mixer of each block: of a list one after the other, from the first again."""
    mixers = mixer if isinstance(mixer, list) else [mixer]
    return [mixers[layer % len(mixers)] for layer in range(n_layers)]


@dataclass(kw_only=True, eq=False, repr=False)
class MixedText(TextEstimator):
    """A stack of blocks that is fitted to texts; a subclass says which mixers fit.

    Parameters
    ----------
    mixer : str, subclass of Mixer, or list of these, default "attention"
        What mixes tokens, see :mod:`tsar.core.mixers`. Of a list the blocks take one after the
        other, from the first again at the end: ``["mamba2", "attention"]`` is a hybrid.
    d_model : int, default 128
        Width of the tokens.
    n_layers : int, default 4
        Blocks.
    n_heads : int, default 4
        Of mixers that have heads; divides ``d_model``.
    d_ff : int, default 512
        Width inside of the feed-forward part.
    mlp : {"gelu", "swiglu"} or None, default "gelu"
        The feed-forward part; None leaves it out, as stacks of Mamba do.
    dropout : float, default 0.0
        Of both branches of a block.
    """

    mixer: str | type[Mixer] | list[Any] = "attention"
    d_model: Annotated[int, Interval(1)] = 128
    n_layers: Annotated[int, Interval(1)] = 4
    n_heads: Annotated[int, Interval(1)] = 4
    d_ff: Annotated[int, Interval(1)] = 512
    mlp: Literal["gelu", "swiglu"] | None = "gelu"
    dropout: Annotated[float, Interval(0, 1, open_high=True)] = 0.0

    def _make_block(self, mixer: Mixer) -> Block:
        """Build a block of a stack that sees both ways, as a causal decoder has them."""
        mlp = self.mlp
        d_model, d_ff = int(self.d_model), int(self.d_ff)
        return Block(
            mixer,
            None if mlp is None else make_mlp(mlp, d_model, d_ff, dropout=self.dropout),
            d_model=d_model,
            norm="rms",
            dropout=self.dropout,
        )

    @property
    def _mixers(self) -> list[Any]:
        """The mixer of each block."""
        return cycled(self.mixer, int(self.n_layers))

    def _check_mixer(self, mixer: Any, parameter: str) -> None:
        """Raise a ParameterError unless the mixer of a parameter is of the kind that is needed."""

    def _check_mixers(self, parameter: str, n_layers: int, width: int, widths_name: str) -> None:
        """Check each mixer of a parameter, and that its heads divide the width of its tokens."""
        value = getattr(self, parameter)
        if value == []:
            raise ParameterError(f"{self.name}: {parameter} must name at least one mixer, got []")
        for mixer in cycled(value, n_layers):
            self._check_mixer(mixer, parameter)
            self._check_width(mixer, width, widths_name)

    def _check_consistency(self) -> None:
        super()._check_consistency()
        self._check_mixers("mixer", int(self.n_layers), int(self.d_model), "d_model")

    def _check_width(self, mixer: Any, width: int, parameter: str) -> None:
        """Raise a ParameterError unless heads divide a width, evenly where they are turned."""
        n_heads = int(self.n_heads)
        if not accepted_options(mixer, n_heads=n_heads):
            return
        turned = bool(accepted_options(mixer, rotary=True))
        if width % n_heads or (turned and width // n_heads % 2):
            multiple = "an even multiple" if turned else "a multiple"
            raise ParameterError(
                f"{self.name}: {parameter} must be {multiple} of n_heads={n_heads}, got {width}"
            )

    def _make_mixer(
        self, mixer: Any, *, causal: bool, d_model: int | None = None, **more: Any
    ) -> Mixer:
        """Build a mixer with what it has of: heads, positions, normalised queries, dropout."""
        options = accepted_options(
            mixer,
            n_heads=int(self.n_heads),
            causal=causal,
            rotary=True,
            qk_norm=True,
            dropout=self.dropout,
            **more,
        )
        return make_mixer(mixer, int(self.d_model) if d_model is None else d_model, **options)
