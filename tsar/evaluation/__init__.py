"""Metrics, published protocols and the recipes that reproduce published numbers."""

from tsar.evaluation.backtesting import backtest
from tsar.evaluation.metrics import mae, mase, mse, rmse
from tsar.evaluation.published import evaluate
from tsar.evaluation.recipes import load_recipe, recipe_names, run_recipe

__all__ = [
    "backtest",
    "evaluate",
    "load_recipe",
    "mae",
    "mase",
    "mse",
    "recipe_names",
    "rmse",
    "run_recipe",
]
