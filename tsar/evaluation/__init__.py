"""Metrics, backtests, published protocols and the recipes that reproduce published numbers."""

from tsar.evaluation.backtesting import backtest
from tsar.evaluation.comparison import Leaderboard, compare
from tsar.evaluation.latex import results_to_latex
from tsar.evaluation.measuring import Metric, measure
from tsar.evaluation.metrics import corr, mae, mape, mase, mse, owa, rmse, rmsse, rse, smape
from tsar.evaluation.probabilistic import (
    coverage,
    crps,
    crps_from_quantiles,
    energy_score,
    interval_score,
    interval_width,
    pit,
    quantile_loss,
    scaled_quantile_loss,
    variogram_score,
)
from tsar.evaluation.published import evaluate, evaluate_last_step
from tsar.evaluation.recipes import load_recipe, recipe_names, run_recipe
from tsar.evaluation.saliency import aup, aur, mask_entropy, mask_information
from tsar.evaluation.scaling import ScalingLaw, scaling_law
from tsar.evaluation.significance import (
    critical_difference,
    diebold_mariano,
    giacomini_white,
    model_confidence_set,
)

__all__ = [
    "Metric",
    "Leaderboard",
    "ScalingLaw",
    "aup",
    "aur",
    "backtest",
    "compare",
    "corr",
    "coverage",
    "critical_difference",
    "crps",
    "crps_from_quantiles",
    "diebold_mariano",
    "energy_score",
    "evaluate",
    "evaluate_last_step",
    "giacomini_white",
    "interval_score",
    "interval_width",
    "load_recipe",
    "mae",
    "mape",
    "mase",
    "mask_entropy",
    "mask_information",
    "measure",
    "model_confidence_set",
    "mse",
    "owa",
    "pit",
    "quantile_loss",
    "recipe_names",
    "results_to_latex",
    "rmse",
    "rmsse",
    "rse",
    "run_recipe",
    "scaled_quantile_loss",
    "scaling_law",
    "smape",
    "variogram_score",
]
