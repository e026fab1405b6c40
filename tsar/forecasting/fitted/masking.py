"""What moves a forecast, by masks that are learned through the network.

Dimension letters: W windows, T steps of context and horizon, F numbers of a step that can be
masked.
"""

from typing import Any

import torch

from tsar.forecasting.fitted.attribution import Attributed, Attribution, MovedWindows
from tsar.training.learned_masks import LearnedMask

__all__ = ["MaskAttribution"]


class MaskAttribution(Attribution):
    """Counts how many numbers of an input a mask shows.

    Parameters
    ----------
    learned_mask : LearnedMask
    *others
        As :class:`Attribution` takes them.
    """

    def __init__(self, learned_mask: LearnedMask, *others: Any) -> None:
        super().__init__(*others)
        self.learned_mask = learned_mask
        self.takes_variates_together = learned_mask.replacement == "fixed"

    def attribute(self, windows: MovedWindows) -> Attributed:
        """Learn masks, their price in units of what all that is masked does together.

        It is then a share, whatever the unit of the forecast, and however much of it is moved.
        """
        forecast, x, where = windows.forecast, windows.x, windows.where
        with torch.no_grad():
            hidden = forecast(torch.where(where, windows.baseline, x))
            moved = (hidden - forecast(x)).square().mean(dim=1, keepdim=True).sqrt()
            # A forecast that nothing moves stays as it is.
            moved = torch.where(moved > 0, moved, 1.0)
        mask = self.learned_mask.learn(
            lambda x: forecast(x) / moved, x, baseline=windows.baseline, where=where
        ).mask
        shown = [mask[..., place].sum(dim=(1, 2)) for place in windows.places]
        return Attributed(torch.stack(shown, dim=1), mask)
