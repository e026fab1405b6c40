"""Draw what tsar does in one picture: a frame, a model, its forecast.

Run in docs/figures of a checkout as ``python ../../examples/overview.py``; it needs matplotlib
(``pip install 'tsar[plot]'``) and draws overview.png, the figure of the first page. The model is
fitted for it, in seconds.
"""

from matplotlib.figure import Figure

import tsar
from tsar import plot

CODE = """model = tsar.PatchTST(
    context_length=96,
    horizon=12,
    loss="gaussian",
)
model.fit(sea)
model.predict(level=[80, 95])"""
TEXT = {"family": "monospace", "fontsize": 9, "va": "center", "linespacing": 1.5}


def draw(path: str) -> None:
    """Draw the three parts beside each other."""
    sea = tsar.load_dataset("elnino")
    model = tsar.PatchTST(
        context_length=96, horizon=12, loss="gaussian", max_epochs=8, random_state=0
    )
    forecast = model.fit(sea).predict(level=[80, 95])
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    frame, code, chart = figure.subplots(1, 3, width_ratios=[1, 1.15, 2.1])
    rows = [f"{time:%Y-%m}  {value:5.2f}" for time, value in sea["sea_temperature"].tail(7).items()]
    listed = "\n".join(["         sea_temp.", "...          ...", *rows])
    for ax, title, text in ((frame, "your frame", listed), (code, "one model", CODE)):
        ax.set_axis_off()
        ax.set_title(title, loc="left", fontweight="bold")
        ax.text(0.0, 0.5, text, transform=ax.transAxes, **TEXT)
    plot.forecast(forecast, sea, rows=48, ax=chart)
    chart.set_title("its forecast", loc="left", fontweight="bold")
    chart.set_xlabel("")
    figure.savefig(path, dpi=130)
    print(f"drew {path}")


if __name__ == "__main__":
    draw("overview.png")
