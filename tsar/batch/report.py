"""What became of the series of a file."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from tsar.data.tidying import NOTES

__all__ = ["ENDED", "FALLBACK", "OK", "SHORT", "STATUS", "Report", "report_of"]

OK, SHORT, FALLBACK, ENDED = "ok", "short_history", "fallback", "ended"
STATUS = "status"


@dataclass
class Report:
    """What became of a file.

    Attributes
    ----------
    n_series, n_failed, n_short : int
        All series; those that were not forecast; those that were forecast from less than
        a context.
    model : str
        What forecast, in words: a name, and of a combination its members with their weights.
    fitted_on : str
        What the model was fitted on, in words.
    calibrated_on : str or None
        On what the intervals were calibrated, in words; None where there are none, or those of
        the model itself.
    series : DataFrame
        ``id``, ``status`` and ``reason`` of every series that is not "ok".
    seconds : float
        From the first check to the last row.
    forecast : DataFrame or None
        The forecast, where no file was asked for.
    reading : str
        How the files were read: separator, decimal mark, columns, and what was left out.
    unused : list of str
        The columns of the file that were neither forecast nor had another role.
    n_fallback : int
        Those that a simpler model forecast, because the chosen one failed.
    notes : DataFrame
        What was done to doubled and missing rows and to series that ended, as in
        :func:`tsar.tidy`.
    n_ended : int
        Series that were skipped because they ended; they are in ``series``, and not failed.
    n_other_times : int
        Series whose forecast begins at another time than that of most.
    """

    n_series: int
    n_failed: int
    n_short: int
    model: str
    fitted_on: str
    calibrated_on: str | None
    series: pd.DataFrame
    seconds: float
    forecast: pd.DataFrame | None = None
    n_fallback: int = 0
    reading: str = ""
    unused: list[Any] = field(default_factory=list)
    notes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=NOTES))
    n_ended: int = 0
    n_other_times: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON, without the forecast."""
        series = self.series.astype(object).where(self.series.notna(), None)
        return {
            "n_series": self.n_series,
            "n_ok": self.n_series - self.n_failed - self.n_short - self.n_fallback - self.n_ended,
            "n_short_history": self.n_short,
            "n_fallback": self.n_fallback,
            "n_failed": self.n_failed,
            "n_ended": self.n_ended,
            "n_other_times": self.n_other_times,
            "reading": self.reading,
            "model": self.model,
            "fitted_on": self.fitted_on,
            "calibrated_on": self.calibrated_on,
            "seconds": round(self.seconds, 3),
            "series": series.to_dict(orient="records"),
            "notes": self.notes.to_dict(orient="records"),
        }


def report_of(
    n_series: int,
    model: str,
    fitted_on: str,
    calibrated_on: str | None,
    finished: list[Any],
    whole: pd.DataFrame | None,
) -> Report:
    bad = [row for facts in finished for row in facts["bad"]]
    short = [name for facts in finished for name in facts["short"]]
    rows = bad + [[name, SHORT, "observed for less than a context"] for name in short]
    # Parts of runs that were stopped before there was such a status have none.
    replaced = [row for facts in finished for row in facts.get("fallback", [])]
    rows += [[name, FALLBACK, reason] for name, reason in replaced]
    notes = [row for facts in finished for row in facts["notes"]]
    begins: Counter[str] = Counter()
    for facts in finished:
        begins.update(facts["begins"])
    n_ended = sum(status == ENDED for _, status, _ in bad)
    return Report(
        n_series=n_series,
        n_failed=len(bad) - n_ended,
        n_short=len(short),
        model=model,
        fitted_on=fitted_on,
        calibrated_on=calibrated_on,
        series=pd.DataFrame(_with_labels(rows), columns=["id", STATUS, "reason"]),
        seconds=0.0,
        forecast=whole,
        n_fallback=len(replaced),
        notes=pd.DataFrame(_with_labels(notes), columns=NOTES),
        n_ended=n_ended,
        n_other_times=begins.total() - max(begins.values(), default=0),
    )


def _with_labels(rows: list[list[Any]]) -> list[list[Any]]:
    """Return rows that begin with an id: of several columns it is a list in JSON, and a tuple."""
    return [[tuple(name) if isinstance(name, list) else name, *rest] for name, *rest in rows]
