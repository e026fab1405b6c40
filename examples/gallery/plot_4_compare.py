"""
Which model is best, and is it luck?
====================================

Models on the same thirty years, with bootstrap intervals; those that may be the best are filled.
"""

import tsar
from tsar import plot
from tsar.evaluation import compare

sea = tsar.load_dataset("elnino")
models = [
    tsar.Naive(horizon=12),
    tsar.AutoReg(horizon=12, season_length=12),
    tsar.Theta(horizon=12),
    tsar.NLinear(context_length=48, horizon=12, max_epochs=15, random_state=0),
]
board = compare(models, sea, windows=30)
ax = plot.leaderboard(board)

# %%
# The board as a frame; ``p_value`` is that of a Diebold-Mariano test against the best.

board.frame[["model", "mase", "skill", "p_value"]].round(3)
