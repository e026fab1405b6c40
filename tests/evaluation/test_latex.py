"""Tables for LaTeX: what is in them, what is bold, and that names do not break them."""

import math

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.data.datasets import PublishedResult
from tsar.evaluation import compare, results_to_latex
from tsar.evaluation.latex import latex_table
from tsar.evaluation.recipes import Cell, Result


def test_a_table_by_hand():
    frame = pd.DataFrame(
        {
            "model": ["a_b", "c&d%", "e"],
            "mae": [0.12345, 0.1231, math.nan],
            "skill": [0.5, 1.0, 0.7],
        }
    )
    expected = r"""
\begin{tabular}{lrr}
\toprule
model & mae & skill \\
\midrule
a\_b & \textbf{0.123} & 0.500 \\
c\&d\% & \textbf{0.123} & \textbf{1.000} \\
e & -- & 0.700 \\
\bottomrule
\end{tabular}
""".strip()
    assert latex_table(frame, {"mae": "min", "skill": "max"}) == expected
    whole = latex_table(frame, {}, caption="Errors", label="tab:errors").splitlines()
    assert whole[:4] == [
        r"\begin{table}",
        r"\centering",
        r"\caption{Errors}",
        r"\label{tab:errors}",
    ]
    assert whole[-1] == r"\end{table}" and not any("textbf" in line for line in whole)


@pytest.mark.parametrize("character", list("&%$#_{}~^\\"))
def test_no_character_breaks_a_row(character):
    row = latex_table(pd.DataFrame({"m": [f"x{character}y"]}), {}).splitlines()[4]
    unescaped = row.removesuffix(r" \\")
    assert unescaped.startswith("x\\") and unescaped.endswith("y")


def _board(**options):
    rng = np.random.default_rng(0)
    values = np.tile([1.0, 5, 3, 9], 30)[:, None] + rng.normal(0, 0.1, (120, 3))
    frame = pd.DataFrame(values, columns=list("abc"))
    models = {"last": tsar.Naive(horizon=4), "SeasonalNaive": tsar.SeasonalNaive(horizon=4)}
    models["SeasonalNaive"].set_params(season_length=4)
    return compare(models, frame, windows=6, **options)


def test_a_leaderboard_with_its_best_in_bold():
    board = _board(metrics=["mae", "rmse"], level=80)
    board_too = _board(metrics=["mae", "coverage", "interval_score"], level=80)
    lines = board.to_latex().splitlines()
    assert lines[2] == r"model & mae & rmse & skill & p\_value \\"
    values = board.frame.set_index("model")
    best = values.loc["SeasonalNaive"]
    start = rf"SeasonalNaive & \textbf{{{best['mae']:.3f}}} & \textbf{{{best['rmse']:.3f}}} &"
    assert lines[4].startswith(start)
    assert lines[5].startswith(f"last & {values.loc['last', 'mae']:.3f} &")
    assert "fit" not in board.to_latex() and r"\caption{x}" in board.to_latex("x")
    lines = board_too.to_latex().splitlines()
    heads = [head.strip(" \\") for head in lines[2].replace(r"\_", "_").split("&")]
    row = dict(zip(heads, lines[4].rstrip(" \\").split(" & "), strict=True))
    (coverage,) = (head for head in heads if head.startswith("coverage"))
    (score,) = (head for head in heads if head.startswith("interval_score"))
    assert "textbf" not in row[coverage] and "textbf" in row[score]


def test_win_rates_are_counted():
    board = _board(metrics="mae")
    rates = board.win_rates()
    losses = board.series_losses
    wins = (losses["SeasonalNaive"] < losses["last"]).mean()
    assert rates.loc["SeasonalNaive", "last"] == wins == 1.0
    assert rates.loc["last", "SeasonalNaive"] == 0.0 and np.isnan(np.diag(rates)).all()
    equal = compare(
        {"one": tsar.Naive(horizon=2), "two": tsar.Naive(horizon=2)},
        pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=["a", "b"]),
        metrics="mae",
        windows=3,
        baseline="one",
    )
    assert equal.win_rates().loc["one", "two"] == 0.5


def test_results_of_a_recipe():
    published = PublishedResult("Model_1", 96, 0.4, 0.5, None, False, 32, "x")
    cell = Cell("my_set", published, {"mse": 1.0, "mae": 1.0}, False)
    nothing = Cell(
        "my_set", PublishedResult("", 96, *[math.nan] * 2, None, False, 32, "x"), {}, True
    )
    results = [
        Result(cell, "mse", 0.39, 7, 1.0),
        Result(cell, "mae", 0.51, 7, 1.0),
        Result(nothing, "mse", 0.2, 7, 1.0),
    ]
    assert results_to_latex(results).splitlines()[4:7] == [
        r"my\_set & 96 & mse & Model\_1 & 0.4000 & \textbf{0.3900} \\",
        r"my\_set & 96 & mae & Model\_1 & \textbf{0.5000} & 0.5100 \\",
        r"my\_set & 96 & mse & -- & -- & 0.2000 \\",
    ]
