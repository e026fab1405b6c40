"""A folder that keeps what was found out of candidates, so that a later run need not.

Dimension letters: W windows, H horizon, C variates.
"""

import hashlib
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tsar.data.digest import data_digest
from tsar.exceptions import ParameterError
from tsar.files import whole_file
from tsar.forecasting.base import Forecaster
from tsar.forecasting.held_out import HeldOutWindows

__all__ = ["TrialFolder", "TrialResult"]


class TrialResult(NamedTuple):
    """What a candidate forecast of held-out windows.

    Attributes
    ----------
    forecasts : float64 array of shape (W, H, C)
    fit_seconds : float
    best_steps : int or None
        Steps of training after which rows held out by the candidate itself were forecast best;
        None where it held out none.
    """

    forecasts: np.ndarray
    fit_seconds: float
    best_steps: int | None = None


class TrialFolder:
    """A folder of results, each for a candidate with its parameters, the data and the windows.

    Parameters
    ----------
    owner : str
        Who asks, for messages.
    folder : path
        Made if it is not there.
    windows : HeldOutWindows

    Raises
    ------
    ParameterError
        The folder cannot be made.
    """

    def __init__(self, owner: str, folder: str | Path, windows: HeldOutWindows) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ParameterError(
                f"{owner}: folder must be one that can be made, got {str(folder)!r}: {error}"
            ) from None
        places = np.concatenate([windows.owners, windows.rows]).tobytes()
        # The order of series and variates is that of the forecasts.
        order = repr([list(windows.panel.ids), list(windows.panel.variates)])
        digest = hashlib.sha256(f"{data_digest(windows.panel)} {order}".encode() + places)
        self.about = f"{digest.hexdigest()[:16]} {windows.horizon}"
        self.shape = windows.truth.shape

    def _path(self, name: str, forecaster: Forecaster) -> Path:
        parameters = sorted(forecaster.get_params().items())
        told = f"{self.about} {name} {type(forecaster).__qualname__} {parameters!r}"
        return self.folder / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.npz"

    def load(self, name: str, forecaster: Forecaster) -> TrialResult | None:
        """Return the result of a candidate, None where there is none.

        Parameters
        ----------
        name : str
        forecaster : Forecaster
            With the parameters that it is tried with.
        """
        try:
            with (
                self._path(name, forecaster).open("rb") as file,
                np.load(file, allow_pickle=False) as stored,
            ):
                forecasts, fit_seconds = stored["forecasts"], float(stored["fit_seconds"])
                best_steps = int(stored["best_steps"]) or None
        # What is damaged is tried again.
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if forecasts.shape != self.shape or forecasts.dtype != np.float64:
            return None
        return TrialResult(forecasts, fit_seconds, best_steps)

    def save(self, name: str, forecaster: Forecaster, result: TrialResult) -> None:
        """Keep the result of a candidate.

        Parameters
        ----------
        name : str
        forecaster : Forecaster
        result : TrialResult
        """
        with (
            whole_file(self._path(name, forecaster)) as unfinished,
            unfinished.open("wb") as file,
        ):
            np.savez(
                file,
                forecasts=result.forecasts,
                fit_seconds=result.fit_seconds,
                best_steps=result.best_steps or 0,
            )
