"""Which model forecasts best, by how much, and is the difference more than luck?

Run with ``python examples/comparing_models.py``; it needs nothing but tsar, and matplotlib for the
figure (``pip install 'tsar[plot]'``), and takes half a minute. The comparison is kept in a folder:
run again, it reads finished models from there.
"""

import importlib.util
import tempfile
from pathlib import Path

import tsar
from tsar import plot
from tsar.evaluation import backtest, compare, measure

sea = tsar.load_dataset("elnino")  # monthly sea temperature, 1950 to 2010

small = {"context_length": 48, "horizon": 12, "max_epochs": 10, "random_state": 0}
models = {
    "NLinear": tsar.NLinear(**small),
    "PatchTST": tsar.PatchTST(**small, d_model=16, n_heads=2, d_ff=32, n_layers=2),
    "Theta": tsar.Theta(horizon=12),
    "mean of three": tsar.Ensemble(
        models=[tsar.NLinear(**small), tsar.Theta(), tsar.SeasonalNaive()], horizon=12
    ),
}

with tempfile.TemporaryDirectory() as folder:
    # Twenty years, each forecast from what was known when it began.
    board = compare(models, sea, metrics=["mase", "mae"], windows=20, folder=Path(folder) / "sea")
    again = compare(models, sea, metrics=["mase", "mae"], windows=20, folder=Path(folder) / "sea")
    assert again.frame["mase"].equals(board.frame["mase"])
    if importlib.util.find_spec("matplotlib"):
        plot.leaderboard(board).figure.savefig(Path(folder) / "leaderboard.png")

print(board.frame[["model", "mase", "mae", "skill", "p_value", "set_p_value"]].round(3))
print("may be the best one, with 90 % confidence:", ", ".join(board.confidence_set()))

# How fast does the best one lose accuracy with the step?
best = board.frame["model"].iloc[0]
chosen = models.get(best, tsar.SeasonalNaive(horizon=12))
errors = measure(backtest({best: chosen}, sea, windows=20), "mae", by="step")
print(errors.set_index("step")["mae"].round(2).iloc[[0, 5, 11]].to_dict())
