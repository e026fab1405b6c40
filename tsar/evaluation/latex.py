"""Tables of results for LaTeX."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from tsar.evaluation.recipes import Result

__all__ = ["latex_table", "results_to_latex"]

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: rf"\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def latex_table(
    frame: pd.DataFrame,
    best: Mapping[Any, str],
    *,
    digits: int = 3,
    caption: str | None = None,
    label: str | None = None,
) -> str:
    """Write a frame as a table with the rules of booktabs.

    Parameters
    ----------
    frame : DataFrame
    best : mapping of column to {"min", "max"}
        Columns whose smallest or largest number is bold; all that are shown alike are.
    digits : int
        After the point.
    caption, label : str or None
        Of the table, as LaTeX; with neither, it is a ``tabular`` alone.

    Returns
    -------
    str
    """
    numeric = [pd.api.types.is_float_dtype(frame[name].dtype) for name in frame]
    cells = [
        [f"{value:.{digits}f}" if np.isfinite(value) else "--" for value in frame[name]]
        if number
        else [_escaped(value) for value in frame[name]]
        for name, number in zip(frame, numeric, strict=True)
    ]
    for place, name in enumerate(frame):
        if name in best and frame[name].notna().any():
            chosen = frame[name].min() if best[name] == "min" else frame[name].max()
            bold = f"{chosen:.{digits}f}"
            cells[place] = [rf"\textbf{{{c}}}" if c == bold else c for c in cells[place]]
    columns = "".join("r" if number else "l" for number in numeric)
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(_escaped, frame)) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in zip(*cells, strict=True)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return _in_table(lines, caption, label)


def results_to_latex(
    results: Iterable[Result], *, caption: str | None = None, label: str | None = None
) -> str:
    """Write what a recipe gave as a table for LaTeX.

    Parameters
    ----------
    results : iterable of Result
        What :func:`tsar.evaluation.run_recipe` yields, one after the other.
    caption, label : str or None
        Of the table, as LaTeX; with neither, it is a ``tabular`` alone.

    Returns
    -------
    str
        A row for each data set, horizon and metric, with the published error and the one that
        was obtained, the smaller in bold. It needs the package booktabs.
    """
    lines = [
        r"\begin{tabular}{lrllrr}",
        r"\toprule",
        r"data & horizon & metric & reference & published & obtained \\",
        r"\midrule",
    ]
    for result in results:
        cell = result.cell.published
        pair = [result.published, result.obtained]
        shown = [f"{value:.4f}" if np.isfinite(value) else "--" for value in pair]
        if result.cell.band:
            smaller = f"{np.nanmin(pair):.4f}"
            shown = [rf"\textbf{{{text}}}" if text == smaller else text for text in shown]
        parts = [result.cell.dataset, cell.horizon, result.metric, cell.model or "--"]
        lines.append(" & ".join([*map(_escaped, parts), *shown]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return _in_table(lines, caption, label)


def _in_table(lines: list[str], caption: str | None, label: str | None) -> str:
    if caption is None and label is None:
        return "\n".join(lines)
    head = [r"\begin{table}", r"\centering"]
    head += [] if caption is None else [rf"\caption{{{caption}}}"]
    head += [] if label is None else [rf"\label{{{label}}}"]
    return "\n".join([*head, *lines, r"\end{table}"])


def _escaped(value: Any) -> str:
    return "".join(SPECIAL.get(character, character) for character in str(value))
