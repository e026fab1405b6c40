"""Draw the layers of the package from the contracts that hold them.

Run in docs/figures of a checkout as ``python ../../examples/layers.py``; it needs matplotlib
(``pip install 'tsar[plot]'``) and draws layers.png, the figure of docs/how_it_is_built.md.
"""

import tomllib
from pathlib import Path

from matplotlib.figure import Figure

CONTRACTS = Path(__file__).resolve().parents[1] / "pyproject.toml"


def layers_of(name: str) -> list[list[str]]:
    """Return the layers of a contract, the highest first, each a list of modules."""
    settings = tomllib.loads(CONTRACTS.read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    found = next(contract for contract in contracts if contract["name"] == name)
    # A module in parentheses need not be there.
    rows = [[part.strip() for part in layer.split("|")] for layer in found["layers"]]
    return [[part for part in row if not part.startswith("(")] for row in rows]


def draw(path: str) -> None:
    """Draw both contracts beside each other."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    for ax, name in zip(figure.subplots(1, 2), ("The package", "Forecasting"), strict=True):
        rows = layers_of(name)[::-1]
        for height, row in enumerate(rows):
            for place, module in enumerate(row):
                left, width = place / len(row), 1 / len(row)
                ax.barh(height, width - 0.02, left=left, height=0.8, color="C0", alpha=0.25)
                ax.text(left + width / 2, height, module, ha="center", va="center")
        ax.set_title(f"{name}: each imports from below", fontsize=10)
        ax.set_axis_off()
    figure.savefig(path, dpi=110)
    print(f"drew {path}")


if __name__ == "__main__":
    draw("layers.png")
