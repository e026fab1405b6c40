"""What mixers cost over the length of a sequence, and what training makes of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from tsar.exceptions import DataError
from tsar.params.constraints import check_choice
from tsar.plot.axes import axes_or_new
from tsar.plot.drawing import add_legend

__all__ = ["mixer_costs", "training_losses"]

COSTS = {
    "pass_ms": "milliseconds of a pass",
    "step_ms": "milliseconds of one more token",
    "state": "numbers remembered",
}
# One for each ten colours.
STYLES = ("o-", "s--", "^:", "x-.")
OVER = ("tokens", "seconds")


def mixer_costs(
    costs: pd.DataFrame,
    value: Literal["pass_ms", "step_ms", "state"] = "step_ms",
    *,
    mixers: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    """Draw what mixers cost over the length of a sequence, both on logarithmic scales.

    Parameters
    ----------
    costs : DataFrame
        Of :func:`tsar.evaluation.mixers.mixer_costs`.
    value : {"pass_ms", "step_ms", "state"}, default "step_ms"
        The time of a pass over all tokens, that of one more token, or what is remembered then.
    mixers : sequence of str, optional
        Those to draw; all that have such a value by default.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    DataError, ParameterError
        The table is another one, or nothing is left to draw.
    """
    owner = "plot.mixer_costs"
    check_choice(owner, "value", value, COSTS)
    missing = [name for name in ("mixer", "length", value) if name not in costs]
    if missing:
        raise DataError(
            f"{owner}: costs must be a table of evaluation.mixers.mixer_costs, got one without "
            f"{missing[0]!r}"
        )
    measured = list(costs.loc[costs[value].notna(), "mixer"].unique())
    for name in mixers or ():
        check_choice(owner, "mixers", name, measured)
    names = list(mixers) if mixers is not None else measured
    if not names:
        raise DataError(f"{owner}: no mixer of the table has a value of {value!r}")
    ax = axes_or_new(owner, ax)
    # Of the whole table, so that a mixer has one colour in all panels.
    places = {name: place for place, name in enumerate(costs["mixer"].unique())}
    for name in names:
        rows = costs[(costs["mixer"] == name) & costs[value].notna()].sort_values("length")
        style, colour = STYLES[places[name] // 10 % len(STYLES)], f"C{places[name] % 10}"
        ax.plot(rows["length"], rows[value], style, markersize=3, color=colour, label=name)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xlabel("tokens")
    ax.set_ylabel(COSTS[value])
    add_legend(ax)
    return ax


def training_losses(
    curves: Mapping[str, pd.DataFrame],
    over: Literal["tokens", "seconds"] = "tokens",
    *,
    ax: Any = None,
) -> Any:
    """Draw how the losses of several trainings fall.

    Parameters
    ----------
    curves : mapping of str to DataFrame
        By a name for the legend, with the columns ``tokens``, ``seconds`` and ``train_loss``.
    over : {"tokens", "seconds"}, default "tokens"
        What was read, or how long it took.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    DataError, ParameterError
        There is no curve, or one without such a column.
    """
    owner = "plot.training_losses"
    check_choice(owner, "over", over, OVER)
    if not isinstance(curves, Mapping) or not curves:
        raise DataError(f"{owner}: curves must map a name to a table, got {type(curves).__name__}")
    for name, curve in curves.items():
        missing = [column for column in (over, "train_loss") if column not in curve]
        if missing:
            raise DataError(f"{owner}: the curve {name!r} has no column {missing[0]!r}")
    ax = axes_or_new(owner, ax)
    for place, (name, curve) in enumerate(curves.items()):
        at, loss = curve[over].to_numpy(np.float64), curve["train_loss"].to_numpy(np.float64)
        ax.plot(at, loss, linewidth=1.2, color=f"C{place}", label=name)
    ax.set_xscale("log")
    ax.set_xlabel(over)
    ax.set_ylabel("nats a token, in training")
    add_legend(ax)
    return ax
