"""Public data sets: a card for each, and one function that loads them as frames.

A card (``datasets/<name>.toml``) says where a data set comes from, under which licence,
how its rows are split and what was published on it. The bundled sets are read from
statsmodels and need nothing else; the others are read from the folder that the
environment variable ``TSAR_DATA`` names, else from the cache, else they are fetched.
"""

import hashlib
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsar.data.shipped import shipped_file, shipped_names
from tsar.exceptions import DataError, MissingExtraError

__all__ = [
    "Borders",
    "DatasetCard",
    "PublishedResult",
    "dataset_names",
    "fetch_dataset",
    "load_card",
    "load_dataset",
]


@dataclass(frozen=True)
class Borders:
    """Rows at which the training, validation and test parts of a data set end.

    Parameters
    ----------
    train_end, val_end, test_end : int
        First row after each part. Only the rows forecast belong to a part: the
        context of its first windows reaches back over the border.
    """

    train_end: int
    val_end: int
    test_end: int

    def __post_init__(self) -> None:
        if not 0 < self.train_end <= self.val_end < self.test_end:
            raise DataError(
                f"Borders: expected 0 < train_end <= val_end < test_end, got "
                f"{self.train_end}, {self.val_end}, {self.test_end}"
            )


@dataclass(frozen=True)
class PublishedResult:
    """One published cell: errors on the z-scored scale of the training rows.

    Parameters
    ----------
    model : str
        Name in the publication.
    horizon : int
        Steps forecast.
    mse, mae : float
        Errors averaged over windows, steps and variates.
    context_length : int or None
        Steps the model saw; None where it plays no part.
    drop_last : bool
        Whether the last incomplete batch of test windows was left out.
    batch_size : int
        Size of those batches.
    source : str
        Where the numbers were read.
    """

    model: str
    horizon: int
    mse: float
    mae: float
    context_length: int | None
    drop_last: bool
    batch_size: int
    source: str


@dataclass(frozen=True)
class _File:
    """Where the file of a data set lies and what it must be."""

    path: str
    url: str
    sha256: str
    time_column: str
    time_format: str


@dataclass(frozen=True)
class DatasetCard:
    """What is known about a data set.

    Parameters
    ----------
    name : str
        Name for :func:`load_dataset`.
    title, description, licence, homepage, citation : str
        In words.
    frequency : str
        pandas alias of the time steps.
    rows : int
        Number of time steps.
    columns : tuple of str
        Names of the variates.
    borders : Borders or None
        Published split; None where there is none.
    published : tuple of PublishedResult
        Published results, one per model and horizon.
    file : object or None
        Path, address and checksum; None for the bundled sets.
    """

    name: str
    title: str
    description: str
    licence: str
    homepage: str
    citation: str
    frequency: str
    rows: int
    columns: tuple[str, ...]
    borders: Borders | None
    published: tuple[PublishedResult, ...]
    file: _File | None

    @property
    def bundled(self) -> bool:
        """Whether the data set comes with the base dependencies."""
        return self.file is None


def dataset_names() -> list[str]:
    """List the data sets that have a card."""
    return shipped_names("datasets")


def load_card(name: str) -> DatasetCard:
    """Read the card of a data set.

    Parameters
    ----------
    name : str
        One of :func:`dataset_names`.

    Raises
    ------
    ParameterError
        If there is no such card; it suggests the nearest name.

    Examples
    --------
    >>> from tsar.data.datasets import load_card
    >>> load_card("ETTh1").borders
    Borders(train_end=8640, val_end=11520, test_end=14400)
    """
    path = shipped_file("datasets", name, "load_dataset")
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    tables = content.pop("published", [])
    borders, file = content.pop("borders", None), content.pop("file", None)
    return DatasetCard(
        name=name,
        columns=tuple(content.pop("columns")),
        borders=Borders(**borders) if borders else None,
        published=tuple(cell for table in tables for cell in _cells(table)),
        file=_File(**file) if file else None,
        **content,
    )


def _cells(table: dict[str, Any]) -> list[PublishedResult]:
    """Split one row of a published table into its cells."""
    horizons = table["horizons"]
    sizes = table["batch_size"]
    if isinstance(sizes, int):
        sizes = [sizes] * len(horizons)
    return [
        PublishedResult(
            model=table["model"],
            horizon=horizon,
            mse=mse,
            mae=mae,
            context_length=table.get("context_length"),
            drop_last=table["drop_last"],
            batch_size=batch_size,
            source=table["source"],
        )
        for horizon, mse, mae, batch_size in zip(
            horizons, table["mse"], table["mae"], sizes, strict=True
        )
    ]


def load_dataset(name: str) -> pd.DataFrame:
    """Load a data set as a wide frame.

    Parameters
    ----------
    name : str
        One of :func:`dataset_names`.

    Returns
    -------
    pandas.DataFrame
        float64, a column per variate, on a regular DatetimeIndex whose ``freq`` is set.

    Raises
    ------
    ParameterError
        If there is no such data set.
    DataError
        If a file is not the one that the card describes, or cannot be fetched.
    MissingExtraError
        If the file must be fetched and pooch is not installed.

    Examples
    --------
    >>> import tsar
    >>> tsar.load_dataset("elnino").head(2)
                sea_temperature
    1950-01-01            23.11
    1950-02-01            24.20
    """
    card = load_card(name)
    if card.file is None:
        frame = _BUNDLED[name]()
    else:
        frame = _read(_locate(card, card.file), card.file)
    frame.index = pd.DatetimeIndex(frame.index, freq=card.frequency, name=None)
    return frame[list(card.columns)].astype("float64")


def fetch_dataset(name: str) -> Path | None:
    """Make sure that a data set is on this machine, and say where.

    Parameters
    ----------
    name : str
        One of :func:`dataset_names`.

    Returns
    -------
    pathlib.Path or None
        The file, its checksum verified; None for a bundled set.
    """
    card = load_card(name)
    return None if card.file is None else _locate(card, card.file)


def _locate(card: DatasetCard, file: _File) -> Path:
    """Find the verified file of a card: the TSAR_DATA folder, the cache, the network."""
    folder = os.environ.get("TSAR_DATA")
    if folder and (path := Path(folder) / file.path).is_file():
        _verify(card, file, path)
        return path
    return _fetch(card, file)


def _verify(card: DatasetCard, file: _File, path: Path) -> None:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != file.sha256:
        raise DataError(
            f"{card.name}: {path} is not the published file (sha256 {digest[:12]}..., expected "
            f"{file.sha256[:12]}...); replace it by {file.url} or take it out of TSAR_DATA"
        )


def _fetch(card: DatasetCard, file: _File) -> Path:
    """Return the cached file, fetched anew where it is missing or its checksum is off."""
    where = os.environ.get("TSAR_DATA") or "which is not set"
    absent = f"{card.name}: no {file.path} in TSAR_DATA ({where})"
    try:
        import pooch
    except ImportError:
        raise MissingExtraError(
            f"{absent}, and fetching it needs pooch: pip install 'tsar[cli,datasets]', "
            f"then tsar fetch {card.name}"
        ) from None
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        fetched = pooch.retrieve(
            file.url,
            known_hash=f"sha256:{file.sha256}",
            fname=Path(file.path).name,
            path=pooch.os_cache("tsar"),
        )
    # A refused or broken connection is an OSError, a wrong checksum a ValueError.
    except (OSError, ValueError) as error:
        raise DataError(
            f"{absent}, and {file.url} could not be fetched ({type(error).__name__}); "
            f"run this where there is a network: tsar fetch {card.name}"
        ) from None
    finally:
        logger.setLevel(level)
    return Path(fetched)


def _read(path: Path, file: _File) -> pd.DataFrame:
    frame = pd.read_csv(path, index_col=file.time_column)
    frame.index = pd.to_datetime(frame.index, format=file.time_format)
    return frame


# The statsmodels loaders are imported where they are called: reading a CSV needs none.


def _elnino() -> pd.DataFrame:
    from statsmodels.datasets import elnino

    years = elnino.load_pandas().data.set_index("YEAR")
    index = pd.date_range(f"{int(years.index[0])}-01-01", periods=years.size, freq="MS")
    return pd.DataFrame({"sea_temperature": years.to_numpy().ravel()}, index=index)


def _co2() -> pd.DataFrame:
    from statsmodels.datasets import co2

    frame: pd.DataFrame = co2.load_pandas().data
    return frame


def _macrodata() -> pd.DataFrame:
    from statsmodels.datasets import macrodata

    frame: pd.DataFrame = macrodata.load_pandas().data
    months = 3 * frame["quarter"].to_numpy(np.int64) - 2
    stamps = {"year": frame["year"].to_numpy(np.int64), "month": months, "day": 1}
    return frame.set_index(pd.DatetimeIndex(pd.to_datetime(pd.DataFrame(stamps))))


_BUNDLED = {"co2": _co2, "elnino": _elnino, "macrodata": _macrodata}
