"""The autocorrelation of the rows that a network is trained on."""

import torch
from torch import Tensor, nn

from tsar.data.windows import SeriesTensors
from tsar.forecasting.layers.decomposition import moving_average

__all__ = ["TrainingAutocorrelation", "autocorrelation"]

# Variances below this are rounding: such a series does not move.
SMALLEST_VARIANCE = 1e-12


def autocorrelation(x: Tensor) -> Tensor:
    """Return the autocorrelation of series at every lag.

    The sums of products are divided by the number of all steps, whatever the lag (the biased
    estimator).

    Parameters
    ----------
    x : Tensor of shape (n, C)

    Returns
    -------
    float64 Tensor of shape (n, C)
        1 at lag 0; all 0 for a series that does not move.
    """
    length = len(x)
    centred = x.double() - x.double().mean(dim=0)
    # Twice as many steps at least, so that the end does not meet the beginning.
    n_steps = 2 ** max(2 * length - 1, 1).bit_length()
    power = torch.fft.rfft(centred, n=n_steps, dim=0).abs().square()
    products = torch.fft.irfft(power, n=n_steps, dim=0)[:length]
    moves = products[:1] > SMALLEST_VARIANCE * length
    return torch.where(moves, products / products[:1].clamp(min=SMALLEST_VARIANCE), 0.0)


class TrainingAutocorrelation(nn.Module):
    """How much the training rows, smoothed, are like themselves some steps before.

    It is measured before a training and not saved. A step that was not observed is what was
    observed last.

    Parameters
    ----------
    kernel : int
        Odd width of the moving average that smooths.

    Attributes
    ----------
    values : Tensor of shape (rows, C)
        The absolute autocorrelation of each series at lags from 0 on, one after the other.
    begins, lengths : int64 Tensors of shape (S,)
        The row of lag 0 of each series, and how many lags it has.
    """

    values: Tensor
    begins: Tensor
    lengths: Tensor

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.register_buffer("values", torch.empty(0, 0), persistent=False)
        for name in ("begins", "lengths"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def measure(self, series: SeriesTensors, stop: Tensor) -> None:
        """Measure the training rows, see :meth:`ForecastNetwork.measure`."""
        parts = []
        for begin, end in zip(series.offsets[:-1].tolist(), stop.tolist(), strict=True):
            rows = series.values[begin:end]
            if len(rows):
                rows = autocorrelation(moving_average(rows[None], self.kernel)[0]).abs()
            parts.append(rows.to(series.values.dtype))
        self.values = torch.cat(parts)
        self.lengths = stop - series.offsets[:-1]
        self.begins = self.lengths.cumsum(0) - self.lengths

    def at(self, series: Tensor, lags: Tensor) -> Tensor:
        """Look up lags of windows.

        Parameters
        ----------
        series : int64 Tensor of shape (B,)
            The series of each window.
        lags : int64 Tensor of shape (B, C, ...)
            From 0 on, by window and variate.

        Returns
        -------
        Tensor of the shape of ``lags``
            0 for lags that are longer than the series.
        """
        apart = (-1, *(1 for _ in lags.shape[1:]))
        lengths = self.lengths[series].view(apart)
        rows = self.begins[series].view(apart) + torch.minimum(lags, lengths - 1)
        variates = torch.arange(lags.shape[1], device=lags.device).view(-1, *apart[2:])
        return self.values[rows.clamp(min=0), variates] * (lags < lengths)
