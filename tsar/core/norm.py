"""Normalisation of tokens inside a network."""

from torch import Tensor, nn

from tsar.params.constraints import check_choice

__all__ = ["NORMS", "BatchNorm", "RMSNorm", "make_norm"]


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation whose batch is every token: statistics per feature.

    Takes tokens (B, P, D) and normalises each of the D features over B and P.
    """

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102  (the class says it)
        return super().forward(x.flatten(0, -2)).view_as(x)


class RMSNorm(nn.RMSNorm):
    """Division by the root of the mean square, computed in the precision of its weights.

    In a network that runs in half precision the tokens have half the digits of the weights, of
    which torch warns and takes a slow way.
    """

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102  (the class says it)
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


NORMS: dict[str, type[nn.Module]] = {
    "layer": nn.LayerNorm,
    "batch": BatchNorm,
    "rms": RMSNorm,
}


def make_norm(name: str, d_model: int) -> nn.Module:
    """Build the token normalisation of that name, one of :data:`NORMS`.

    Raises
    ------
    ParameterError
        If there is none of that name.
    """
    check_choice("make_norm", "norm", name, NORMS)
    return NORMS[name](d_model)
