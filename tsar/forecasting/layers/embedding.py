"""From windows of series to tokens."""

import torch
from torch import Tensor, nn

from tsar.core.convolution import CircularConvolution
from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.core.ops.even_products import linear_by_group
from tsar.core.position import SinusoidalPosition
from tsar.exceptions import ParameterError

__all__ = [
    "ColumnTokens",
    "PatchEmbedding",
    "StepEmbedding",
    "VariateEmbedding",
    "check_patch_length",
    "cut_patches",
]


def cut_patches(x: Tensor, patch_length: int, stride: int, end_padding: int = 0) -> Tensor:
    """Cut every variate of a window into overlapping patches.

    Parameters
    ----------
    x : Tensor of shape (B, L, C)
    patch_length, stride : int
    end_padding : int, default 0
        How often the last value is repeated at the end first. Without it the patches
        end with the window, and the oldest steps are left out where patches do not
        cover all of them.

    Returns
    -------
    Tensor of shape (B * C, P, patch_length)
        The variates of one window lie side by side.
    """
    series = x.transpose(1, 2).flatten(0, 1)  # (B * C, L)
    if end_padding:
        tail = series[:, -1:].expand(-1, end_padding)
        series = torch.cat([series, tail], dim=1)
    else:
        series = series[:, (series.shape[1] - patch_length) % stride :]
    return series.unfold(1, patch_length, stride)


def check_patch_length(owner: str, patch_length: int | None, context_length: int | None) -> None:
    """Raise an error if a patch is longer than the context, as far as both are given.

    Parameters
    ----------
    owner : str
        Whose parameters they are, for the message.
    patch_length, context_length : int or None
        None is chosen later.

    Raises
    ------
    ParameterError
        If it is.
    """
    if patch_length is not None and context_length is not None and patch_length > context_length:
        raise ParameterError(
            f"{owner}: patch_length must be at most context_length={context_length}, got "
            f"{patch_length}; shorten the patches or lengthen the context"
        )


class PatchEmbedding(nn.Module):
    """One linear map from a patch of consecutive steps to a token.

    Every variate is a series of its own (channel independence).

    Parameters
    ----------
    context_length, patch_length, stride, d_model : int
    end_padding : bool, default True
        Repeat the last value ``stride`` times first, which gives one patch
        more: ``(context_length - patch_length) // stride + 2``.

    Attributes
    ----------
    n_patches : int

    Raises
    ------
    ParameterError
        If a patch is longer than the context.

    References
    ----------
    Nie et al., "A time series is worth 64 words", ICLR 2023, section 3.1.
    """

    def __init__(
        self,
        context_length: int,
        patch_length: int,
        stride: int,
        d_model: int,
        *,
        end_padding: bool = True,
    ) -> None:
        super().__init__()
        check_patch_length("PatchEmbedding", patch_length, context_length)
        self.patch_length = patch_length
        self.stride = stride
        self.end_padding = stride if end_padding else 0
        self.n_patches = (context_length + self.end_padding - patch_length) // stride + 1
        self.project = Linear(patch_length, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Embed windows (B, L, C) as tokens (B * C, P, D)."""
        return self.project(self.cut(x))

    def cut(self, x: Tensor) -> Tensor:
        """Cut windows (B, L, C) into the patches (B * C, P, patch_length) to embed."""
        return cut_patches(x, self.patch_length, self.stride, self.end_padding)

    def mask(self, observed: Tensor) -> Tensor:
        """Say which patches hold an observed step: (B, L, C) to (B * C, P).

        A series without any observed step keeps all its patches, so that
        attention always has something to attend to.
        """
        return _or_all(self.cut(observed).any(dim=-1))

    def masks(
        self, observed: Tensor | None, *, first_token: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """Say what is read where patches are mixed over variates, and along time.

        Parameters
        ----------
        observed : bool Tensor of shape (B, L, C) or None
        first_token : bool, default False
            Whether there is a token before the patches, which stands for all of them.

        Returns
        -------
        across : bool Tensor of shape (B * P, C) or None
        along : bool Tensor of shape (B * C, P) or None
            Patches that hold an observed step, or all where none does; with a token before them,
            P + 1 in the place of P. None where nothing is missing.
        """
        if observed is None:
            return None, None
        seen = self.cut(observed).any(dim=-1)
        if first_token:
            seen = torch.cat([seen.any(dim=-1, keepdim=True), seen], dim=1)
        across = seen.unflatten(0, (len(observed), -1)).transpose(1, 2).flatten(0, 1)
        return _or_all(across), _or_all(seen)


def _or_all(seen: Tensor) -> Tensor:
    """Show all of a row where there is nothing to see, so that there is something to attend to."""
    return seen | ~seen.any(dim=-1, keepdim=True)


class StepEmbedding(nn.Module):
    """A token per time step: a convolution of its values, and a linear map of its marks.

    Marks, such as calendar features, say when a step is; a position says so only if the number of
    steps is given.

    Parameters
    ----------
    n_values, n_marks, d_model : int
    dropout : float
    n_steps : int, optional
        Of the longest sequence whose steps are given sines and cosines of their place.
    bias : bool, default False
        Whether all tokens share one.
    """

    def __init__(
        self,
        n_values: int,
        n_marks: int,
        d_model: int,
        dropout: float,
        *,
        n_steps: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.values = CircularConvolution(n_values, d_model)
        nn.init.kaiming_normal_(self.values.weight, nonlinearity="leaky_relu")
        self.marks = Linear(n_marks, d_model, bias=False) if n_marks else None
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None
        self.position = None if n_steps is None else SinusoidalPosition(n_steps, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor, marks: Tensor) -> Tensor:
        """Embed steps (B, L, n_values) with their marks (B, L, n_marks) as tokens (B, L, D)."""
        tokens: Tensor = self.values(values)
        if self.marks is not None:
            tokens = tokens + self.marks(marks)
        if self.bias is not None:
            tokens = tokens + self.bias
        return self.dropout(tokens if self.position is None else self.position(tokens))


class VariateEmbedding(nn.Module):
    """One linear map from the whole history of a variate to a token.

    All variates share the map, so any number of them is taken.

    Parameters
    ----------
    n_steps, d_model : int

    References
    ----------
    Liu et al., "iTransformer: inverted transformers are effective for time
    series forecasting", ICLR 2024, section 3.1.
    """

    def __init__(self, n_steps: int, d_model: int) -> None:
        super().__init__()
        self.project = Linear(n_steps, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Embed variates (B, L, C) as tokens (B, C, D)."""
        tokens: Tensor = self.project(x.transpose(1, 2))
        return tokens

    def mask(self, observed: Tensor) -> Tensor:
        """Say which variates hold an observed step: (B, L, C) to (B, C)."""
        return observed.any(dim=1)


class ColumnTokens(nn.Module):
    """A linear map of its own for every column, from all of its steps to a token.

    Unlike variates, columns of different meaning cannot stand in for each other.

    Parameters
    ----------
    n_columns, n_steps, d_model : int
    """

    def __init__(self, n_columns: int, n_steps: int, d_model: int) -> None:
        super().__init__()
        bound = n_steps**-0.5  # as nn.Linear begins
        self.weight = nn.Parameter(torch.empty(n_columns, n_steps, d_model).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_columns, 1, d_model).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Embed columns (B, L, n_columns) as tokens (B, n_columns, D)."""
        return linear_by_group(x.permute(2, 0, 1), self.weight, self.bias).transpose(0, 1)
