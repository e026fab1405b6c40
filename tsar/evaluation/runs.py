"""Finished backtests of a comparison: what each took, and where they are kept."""

import contextlib
import hashlib
import json
import os
import tempfile
import threading
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import pandas as pd

from tsar.evaluation.backtesting import forecaster_in
from tsar.exceptions import PersistenceError
from tsar.files import only_writer, remove_unfinished, whole_file
from tsar.forecasting.base import Forecaster

__all__ = ["OK", "PeakMemory", "Run", "RunFolder", "fingerprint_of"]

OK = "ok"
FORMAT_VERSION = 1
SETTINGS, LOCK = "compare.json", ".lock"
# Seconds between two looks at the memory of the process.
INTERVAL = 0.005
MEGABYTE = 2**20


@dataclass(frozen=True)
class Run:
    """The backtest of one model.

    Attributes
    ----------
    columns : dict of str to float64 array of shape (rows,)
        Forecasts, by the name of their column.
    fit_seconds, forecast_seconds : float
        What fits and forecasts took.
    peak_memory_mb : float
        By how much the memory of the process grew at most, in MB; NaN where the system
        does not tell.
    status : str
        "ok", where another model stood in, or why there are no forecasts.
    """

    columns: dict[str, np.ndarray]
    fit_seconds: float
    forecast_seconds: float
    peak_memory_mb: float
    status: str = OK


class PeakMemory:
    """Watch by how much the memory of the process grows, from a thread of its own.

    Attributes
    ----------
    megabytes : float
        The largest growth since the beginning; NaN where the system does not tell.
    """

    def __enter__(self) -> "PeakMemory":
        self._page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
        self._begin = self._largest = self._held()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._thread.join()
        self._largest = max(self._largest, self._held())

    @property
    def megabytes(self) -> float:
        return (self._largest - self._begin) / MEGABYTE

    def _watch(self) -> None:
        while not self._done.wait(INTERVAL):
            self._largest = max(self._largest, self._held())

    def _held(self) -> float:
        try:
            # The second number is the pages in memory.
            return int(Path("/proc/self/statm").read_bytes().split()[1]) * self._page
        except OSError:
            return float("nan")


def fingerprint_of(model: Any) -> str:
    """Return a text that is the same for models with the same parameters and the same fit."""
    forecaster = forecaster_in("compare", model)
    content = hashlib.sha256(f"{type(model).__qualname__} {type(forecaster).__qualname__}".encode())
    for name, value in sorted(model.get_params(deep=True).items()):
        if not isinstance(value, Forecaster):
            content.update(f"{name}={value!r};".encode())
    if forecaster.__sklearn_is_fitted__():
        record, tensors = forecaster.learned_state()
        # When it was fitted, and how long that took, decides nothing.
        record.pop("manifest", None)
        content.update(json.dumps(record, sort_keys=True, default=str).encode())
        for name in sorted(tensors):
            content.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return content.hexdigest()


def _fingerprint_of_data(df: Any) -> str:
    content = hashlib.sha256()
    names = [df.name] if isinstance(df, pd.Series) else list(df.columns)
    content.update(repr([names, df.index.names]).encode())
    content.update(pd.util.hash_pandas_object(df, index=True).to_numpy().tobytes())
    return content.hexdigest()


class RunFolder:
    """A folder of finished runs of one comparison.

    Inside of a ``with`` block no other comparison writes there.

    Parameters
    ----------
    folder : path
        Created if it is not there.
    df : DataFrame or Series
        The data of the comparison.
    settings : dict
        What can be written as JSON, and decides what is forecast.

    Raises
    ------
    PersistenceError
        The folder cannot be written, or, on entering, belongs to other data or other settings.
    OutputInUseError
        On entering, if another comparison writes there.
    """

    def __init__(self, folder: str | os.PathLike[str], df: Any, settings: dict[str, Any]) -> None:
        self.path = Path(folder)
        own = {"format": FORMAT_VERSION, "data": _fingerprint_of_data(df), **settings}
        self._own = json.loads(json.dumps(own))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # An error now is better than one after the first model.
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise PersistenceError(f"compare: {str(folder)!r} cannot be written: {error}") from None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(only_writer("compare", self.path, self.path / LOCK))
            self._take_over(self.path / SETTINGS, self._own)
            self._locked = stack.pop_all()
        return self

    def __exit__(self, *_: Any) -> None:
        self._locked.close()

    def _take_over(self, there: Path, own: dict[str, Any]) -> None:
        remove_unfinished(there)
        if there.exists():
            self._check_same(self._read(there), own)
        elif any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise PersistenceError(
                f"compare: folder {str(self.path)!r} holds something else; name an empty or a new "
                f"folder"
            )
        else:
            self._write(there, json.dumps(own, indent=1).encode())

    def _check_same(self, held: dict[str, Any], own: dict[str, Any]) -> None:
        differing = [name for name in own if held.get(name) != own[name]]
        if not differing:
            return
        told = ", ".join(
            "other data" if name == "data" else f"{name}={held.get(name)!r}, not {own[name]!r}"
            for name in differing
        )
        raise PersistenceError(
            f"compare: folder {str(self.path)!r} belongs to another comparison ({told}); name "
            f"another folder, or delete this one"
        )

    def load(self, name: str, fingerprint: str) -> Run | None:
        """Return the run of a model, None where it is not finished.

        Raises
        ------
        PersistenceError
            The folder holds a run of that name with other parameters, or a broken file.
        """
        record = self.path / f"{quote(name, safe='')}.json"
        if not record.exists():
            return None
        held = self._read(record)
        if held.pop("fingerprint", None) != fingerprint:
            raise PersistenceError(
                f"compare: folder {str(self.path)!r} holds {name!r} with other parameters or "
                f"another fit; give the model another name, or name another folder"
            )
        try:
            with np.load(record.with_suffix(".npz"), allow_pickle=False) as arrays:
                columns = {
                    label: arrays[f"column{place}"]
                    for place, label in enumerate(held.pop("columns"))
                }
            return Run(columns, **held)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise PersistenceError(
                f"compare: the results of {name!r} in {str(self.path)!r} cannot be read ({error}); "
                f"delete {record.name}"
            ) from None

    def save(self, name: str, fingerprint: str, run: Run) -> None:
        """Keep a finished run; a killed process leaves no half one."""
        record = self.path / f"{quote(name, safe='')}.json"
        remove_unfinished(record)
        remove_unfinished(record.with_suffix(".npz"))
        arrays = {f"column{place}": values for place, values in enumerate(run.columns.values())}
        self._write(record.with_suffix(".npz"), arrays)
        held = asdict(run) | {"fingerprint": fingerprint, "columns": list(run.columns)}
        # The record comes last: where it is, the run is finished.
        self._write(record, json.dumps(held, indent=1).encode())

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PersistenceError(
                f"compare: {str(path)!r} cannot be read ({error}); delete it"
            ) from None
        if not isinstance(held, dict):
            raise PersistenceError(
                f"compare: {str(path)!r} is no record of a comparison; delete it"
            )
        return held

    def _write(self, path: Path, content: bytes | dict[str, np.ndarray]) -> None:
        try:
            with whole_file(path) as unfinished, unfinished.open("wb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    np.savez(file, **content)  # type: ignore[arg-type]
        except OSError as error:
            raise PersistenceError(f"compare: {str(path)!r} cannot be written: {error}") from None
