"""Models in a line each, for lists of them, and lists as tables."""

from typing import Any

from rich.table import Table

from tsar.forecasting.capabilities import capabilities, learning
from tsar.forecasting.registry import forecaster_class

__all__ = ["abilities", "as_table", "summary"]


def abilities(model: str) -> list[str]:
    """Say what a model learns, which covariates it reads, and what else it can."""
    cls = forecaster_class(model)
    has = capabilities(cls)
    kinds = ("past", "future", "static")
    parts = [
        [name for name in has if (name in kinds) == covariates] for covariates in (True, False)
    ]
    said = [
        ", ".join(name for name in part if has[name])
        or ("as its members" if any(has[name] is None for name in part) else "")
        for part in parts
    ]
    return [learning(cls), *said]


def summary(model: str) -> str:
    return (forecaster_class(model).__doc__ or "").strip().partition("\n")[0]


def as_table(heads: list[str], rows: list[list[Any]]) -> Table:
    """Return rows below their heads, to be printed."""
    table = Table(box=None, pad_edge=False)
    for place, head in enumerate(heads):
        # The first column is a name to type again: it is never cut.
        table.add_column(head, no_wrap=place == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
