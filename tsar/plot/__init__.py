"""Figures of forecasts, backtests, errors and training.

Every function draws on the axes it is given, or on those of a new figure, and returns them.
Nothing is shown and nothing is saved: ``ax.figure.savefig("forecast.png")`` does that, and a
notebook shows a figure that is the last value of a cell.
"""

from tsar.plot.errors import error_by_step, reliability, residuals
from tsar.plot.forecasts import backtest, forecast, forecasts
from tsar.plot.images import image_grid
from tsar.plot.leaderboards import critical_difference, leaderboard
from tsar.plot.mixers import mixer_costs, training_losses
from tsar.plot.models import coefficients, importance, learning_curve
from tsar.plot.scaling import scaling_law
from tsar.plot.stacks import attention_map, by_depth, by_head

__all__ = [
    "attention_map",
    "backtest",
    "by_depth",
    "by_head",
    "coefficients",
    "critical_difference",
    "error_by_step",
    "forecast",
    "forecasts",
    "image_grid",
    "importance",
    "leaderboard",
    "learning_curve",
    "mixer_costs",
    "reliability",
    "residuals",
    "scaling_law",
    "training_losses",
]
