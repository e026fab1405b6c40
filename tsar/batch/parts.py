"""Finished parts of a long run, and the file that is made of them."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tsar.data.tables import write_table
from tsar.exceptions import DataError, ParameterError

__all__ = ["Parts", "write_json"]

RUN = "run.json"


class Parts:
    """A folder beside the output, with a file for each finished block of series.

    Parameters
    ----------
    out : pathlib.Path
        What is going to be written.
    run : mapping of str to JSON
        What the run is about; another run cannot go on with its parts.
    resume : bool
        Whether to go on with what is there, rather than to begin anew.
    """

    def __init__(self, out: Path, run: Mapping[str, Any], resume: bool) -> None:
        self.out, self.folder = out, out.parent / f".{out.name}.parts"
        if self.folder.exists():
            self._take_over(run, resume)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(dict(run), self.folder / RUN)

    def _take_over(self, run: Mapping[str, Any], resume: bool) -> None:
        try:
            stored = json.loads((self.folder / RUN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            stored = None
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder} cannot be read: {error}; remove it") from None
        if stored is None and any(self.folder.iterdir()):
            raise DataError(f"{self.folder} is in the way; it was not made by tsar, remove it")
        if not resume:
            shutil.rmtree(self.folder)
            return
        known = stored or run
        differing = next((key for key in run if known.get(key) != run[key]), None)
        if differing is not None:
            raise ParameterError(
                f"batch: resume must go on with the same call, but its {differing} was "
                f"{known.get(differing)!r} and is {run[differing]!r}; call it without resume to "
                f"begin anew"
            )

    @property
    def model(self) -> Path:
        """Where the model is kept that was fitted for this run."""
        return self.folder / "model"

    def facts(self, number: int) -> dict[str, Any] | None:
        """Return what was noted of a finished part, None if it has to be made (again)."""
        part = self._path(number)
        try:
            found: dict[str, Any] = json.loads(part.with_suffix(".json").read_text("utf-8"))
            return found if found["bytes"] == part.stat().st_size else None
        except (OSError, ValueError, KeyError, TypeError):
            # Not there, or damaged since.
            return None

    def add(self, number: int, frame: pd.DataFrame, facts: Mapping[str, Any]) -> None:
        """Keep a part; it counts as finished when its facts are written."""
        part = self._path(number)
        write_table(frame, part)
        write_json({**facts, "bytes": part.stat().st_size}, part.with_suffix(".json"))

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}{self.out.suffix.lower()}"

    def join(self, n_parts: int) -> None:
        """Make the output of all parts: it appears whole, and the parts are removed."""
        paths = [self._path(number) for number in range(n_parts)]
        whole = self.folder / f"whole{self.out.suffix.lower()}"
        (_join_parquet if whole.suffix == ".parquet" else _join_csv)(paths, whole)
        whole.replace(self.out)
        self.remove()

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)


def _join_csv(paths: list[Path], whole: Path) -> None:
    with whole.open("wb") as out:
        for number, path in enumerate(paths):
            with path.open("rb") as part:
                if number:
                    part.readline()
                shutil.copyfileobj(part, out, 1 << 22)


def _join_parquet(paths: list[Path], whole: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A column that is empty in one part has no type there.
    schemas = [pq.read_schema(path) for path in paths]
    schema = pa.unify_schemas(schemas, promote_options="permissive")
    with pq.ParquetWriter(whole, schema) as writer:
        for path in paths:
            writer.write_table(pq.read_table(path).cast(schema))


def write_json(content: Any, path: Path) -> None:
    """Write JSON; the file appears whole or not at all.

    Parameters
    ----------
    content : JSON
    path : pathlib.Path
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, default=str)
    Path(name).chmod(0o644)
    Path(name).replace(path)
