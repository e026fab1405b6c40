"""Draw the losses that ``train.py`` wrote: of one training, and of others by their size.

::

    python draw.py tiny.csv figure.png 2x32=small.csv 4x96=larger.csv
"""

import argparse
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  (the way of drawing is chosen first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curve", type=Path, help="of the training")
    parser.add_argument("figure", type=Path)
    parser.add_argument("others", nargs="*", help="NAME=FILE of short trainings")
    arguments = parser.parse_args()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    curve = pd.read_csv(arguments.curve)
    left.plot(curve["step"], curve["loss"])
    left.set(xlabel="steps", ylabel="quantile loss, synthetic validation", title="The training")
    for other in arguments.others:
        name, _, file = other.partition("=")
        losses = pd.read_csv(file)
        right.plot(losses["step"], losses["loss"], marker="o", label=name)
    right.set(xlabel="steps", title="Short trainings, by blocks x width")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(arguments.figure, dpi=110)


if __name__ == "__main__":
    main()
