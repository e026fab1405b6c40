"""Ridge regression for several penalties at once."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["RidgePath"]


class RidgePath:
    """Least squares with a penalty of the squared weights, for any penalty after one pass.

    Rows are taken batch by batch; of them only sums of products are held, on the CPU and in double
    precision. The bias is not penalised.

    Parameters
    ----------
    n_features, n_outputs : int
    """

    def __init__(self, n_features: int, n_outputs: int) -> None:
        size = n_features + 1
        self.products = torch.zeros(size, size, dtype=torch.float64)
        self.answers = torch.zeros(size, n_outputs, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> None:
        """Take up rows.

        Parameters
        ----------
        x : Tensor of shape (B, n_features)
        y : Tensor of shape (B, n_outputs)
        weight : Tensor of shape (B,), optional
            How much each row counts, 1 by default.
        """
        x, y = x.cpu().double(), y.cpu().double()
        x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        weighted = x if weight is None else x * weight.cpu().double()[:, None]
        self.products += weighted.T @ x
        self.answers += weighted.T @ y

    def solutions(self, alphas: Sequence[float]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the weights (n_outputs, n_features) and biases (n_outputs,) of each penalty.

        Parameters
        ----------
        alphas : sequence of float
            Above 0; the penalty of a sum of squares over all rows.
        """
        count = self.products[-1, -1].clamp(min=torch.finfo(torch.float64).tiny)
        mean, mean_answer = self.products[-1, :-1] / count, self.answers[-1] / count
        centred = self.products[:-1, :-1] - count * torch.outer(mean, mean)
        values, vectors = torch.linalg.eigh(centred)
        turned = vectors.T @ (self.answers[:-1] - count * torch.outer(mean, mean_answer))
        for alpha in alphas:
            weight = (vectors @ (turned / (values.clamp(min=0) + alpha)[:, None])).T
            yield weight, mean_answer - weight @ mean
