"""What became of the series of a file."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

__all__ = ["FALLBACK", "OK", "SHORT", "STATUS", "Report", "report_of"]

OK, SHORT, FALLBACK = "ok", "short_history", "fallback"
STATUS = "status"


@dataclass
class Report:
    """What became of a file.

    Attributes
    ----------
    n_series, n_failed, n_short : int
        All series; those that were not forecast; those that were forecast from less than
        a context.
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
    """

    n_series: int
    n_failed: int
    n_short: int
    fitted_on: str
    calibrated_on: str | None
    series: pd.DataFrame
    seconds: float
    forecast: pd.DataFrame | None = None
    n_fallback: int = 0
    reading: str = ""
    unused: list[Any] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON, without the forecast."""
        series = self.series.astype(object).where(self.series.notna(), None)
        return {
            "n_series": self.n_series,
            "n_ok": self.n_series - self.n_failed - self.n_short - self.n_fallback,
            "n_short_history": self.n_short,
            "n_fallback": self.n_fallback,
            "n_failed": self.n_failed,
            "reading": self.reading,
            "fitted_on": self.fitted_on,
            "calibrated_on": self.calibrated_on,
            "seconds": round(self.seconds, 3),
            "series": series.to_dict(orient="records"),
        }


def report_of(
    n_series: int,
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
    listed = pd.DataFrame(rows, columns=["id", STATUS, "reason"])
    counts = n_series, len(bad), len(short)
    return Report(*counts, fitted_on, calibrated_on, listed, 0.0, whole, len(replaced))
