"""Choose parameters with Optuna, in the order of time, and use what was found.

Run with ``python examples/tuning.py``; it needs ``pip install 'tsar[tune]'`` and takes seconds. The
search is kept in a file: run again with the same file, it goes on where it was.
"""

import tempfile
from pathlib import Path

import tsar
from tsar.evaluation import mae
from tsar.tuning import OptunaSearch

sea = tsar.load_dataset("elnino")  # monthly sea temperature, 1950 to 2010
history, future = sea.iloc[:-12], sea.iloc[-12:]

model = tsar.NLinear(horizon=12, max_epochs=20, random_state=0)
space = {"context_length": [24, 48, 96], "learning_rate": (1e-3, 1e-1, "log")}

with tempfile.TemporaryDirectory() as folder:
    kept = f"sqlite:///{Path(folder) / 'trials.db'}"
    # Judged by what each trial errs on the last ten years of the history, in degrees.
    names = {"windows": 10, "storage": kept, "study_name": "sea", "random_state": 0}
    first = OptunaSearch(model, space, n_trials=4, **names).fit(history)
    search = OptunaSearch(model, space, n_trials=8, **names).fit(history)

print(search.trials_[["number", "state", "score", "context_length", "learning_rate"]].round(4))
print(f"best of {len(first.trials_)} trials: {-first.best_score_:.3f} degrees of error;", end=" ")
print(f"of {len(search.trials_)}: {-search.best_score_:.3f}, with {search.best_params_}")
assert search.best_score_ >= first.best_score_

for name, candidate in {
    "tuned": search,
    "as it comes": tsar.NLinear(horizon=12, random_state=0).fit(history),
    "last season": tsar.SeasonalNaive(horizon=12).fit(history),
}.items():
    print(f"{name:12} MAE of the year held out {mae(future, candidate.predict()):.2f} degrees")
