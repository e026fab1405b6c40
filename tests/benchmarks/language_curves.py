"""Draw the curves that language_training.py --curve has written, over tokens and over seconds.

python tests/benchmarks/language_curves.py NAME=CURVE.csv ... --out FIGURE.png
"""

import argparse
from pathlib import Path

import pandas as pd

from tsar import plot
from tsar.plot.axes import grid_or_new


def main() -> None:
    """Write the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", nargs="+", metavar="NAME=CURVE.csv")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    curves = {name: pd.read_csv(path) for name, path in (c.split("=", 1) for c in options.curves)}
    axes = grid_or_new("language_curves", None, (1, 2), size=(11, 4)).ravel()
    for ax, over in zip(axes, ("tokens", "seconds"), strict=True):
        plot.training_losses(curves, over, ax=ax)
    axes[0].figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
