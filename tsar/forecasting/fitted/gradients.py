"""What moves a forecast, by gradients on the way from a baseline (captum).

Dimension letters: W windows, T steps of context and horizon, F numbers of a step, H horizon.
"""

import torch
from torch import Tensor

from tsar.exceptions import MissingExtraError
from tsar.forecasting.fitted.attribution import Attributed, Attribution, MovedWindows

__all__ = ["GradientAttribution", "integrated_gradients"]

# Points of the way from the baseline, with the weights of Gauss and Legendre.
N_POINTS = 50


class GradientAttribution(Attribution):
    """Says how much of each step of a forecast is due to an input, and takes the mean.

    What an input has of a step is the sum of what its numbers have. The parts of all inputs are
    together what the step differs by from that of the baseline.
    """

    def attribute(self, windows: MovedWindows) -> Attributed:
        attributions = integrated_gradients(windows)
        due = [attributions[..., place].sum(dim=(2, 3)).abs().mean(dim=1)
               for place in windows.places]  # fmt: skip
        return Attributed(torch.stack(due, dim=1) * windows.unit, windows.where.to(windows.x))


# The caller may have turned gradients off.
@torch.inference_mode(False)
@torch.enable_grad()
def integrated_gradients(windows: MovedWindows) -> Tensor:
    """Attribute each step of scaled forecasts to the numbers of its window.

    Parameters
    ----------
    windows : MovedWindows
        Several variates of it are added up: each has parts of its own.

    Returns
    -------
    Tensor of shape (W, H, T, F)
        Over T and F it adds up to the forecast without that of the baseline, as near as
        50 points on the way are near its integral.

    Raises
    ------
    MissingExtraError
        Captum is not installed.

    References
    ----------
    Sundararajan et al., "Axiomatic attribution for deep networks", ICML 2017, equation 1.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise MissingExtraError(
            "explain(method='gradients') needs captum: pip install 'tsar[explain]', or take "
            "method='occlusion'"
        ) from None
    # A tensor that was made in inference mode takes part in no gradient.
    x = windows.x.detach().clone()
    baseline = torch.where(windows.where, windows.baseline, x)
    method = IntegratedGradients(lambda x: windows.forecast(x).sum(dim=2))
    with torch.no_grad():
        horizon = windows.forecast(x).shape[1]
    steps = [
        method.attribute(x, baseline, target=step, n_steps=N_POINTS, internal_batch_size=len(x))
        for step in range(horizon)
    ]
    attributions: Tensor = torch.stack(steps, dim=1)
    return attributions
