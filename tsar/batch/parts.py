"""Finished parts of a long run, and the file that is made of them."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pandas as pd

from tsar.data.tables import write_table
from tsar.data.workbook import read_cells, write_workbook
from tsar.exceptions import DataError, ParameterError
from tsar.files import only_writer, whole_file

__all__ = ["Parts", "write_json"]

RUN, LOCK = "run.json", "lock"


class Parts:
    """A folder beside the output, with a file for each finished block of series.

    Inside of a ``with`` block no other run writes to the same output.

    Parameters
    ----------
    out : pathlib.Path
        What is going to be written.
    run : mapping of str to JSON
        What the run is about; another run cannot go on with its parts.
    resume : bool
        Whether to go on with what is there, rather than to begin anew.

    Raises
    ------
    OutputInUseError
        On entering, if another run writes to the output.
    DataError
        Something else is in the way.
    ParameterError
        What is there is of another run.
    """

    def __init__(self, out: Path, run: Mapping[str, Any], resume: bool) -> None:
        self.out, self.folder = out, out.parent / f".{out.name}.parts"
        self.run, self.resume = run, resume

    def __enter__(self) -> Self:
        self._check_ours()
        with contextlib.ExitStack() as stack:
            stack.enter_context(only_writer("batch", self.out, self.folder / LOCK))
            self._take_over()
            write_json(dict(self.run), self.folder / RUN)
            self._locked = stack.pop_all()
        return self

    def __exit__(self, *_: Any) -> None:
        self._locked.close()
        # It stays if there is something to go on with.
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _entries(self) -> list[Path]:
        return [entry for entry in self.folder.iterdir() if entry.name != LOCK]

    def _stored(self) -> dict[str, Any] | None:
        """Return what the run is about that left the folder, None if nothing says so."""
        try:
            stored = json.loads((self.folder / RUN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder} cannot be read: {error}; remove it") from None
        if not isinstance(stored, dict):
            raise DataError(f"{self.folder} cannot be read: {RUN} is no table; remove it")
        return stored

    def _check_ours(self) -> None:
        if not self.folder.exists() or self._stored() is not None:
            return
        # A run that is killed at its very beginning has noted nothing yet.
        if any(not entry.name.startswith(f".{RUN}.") for entry in self._entries()):
            raise DataError(f"{self.folder} is in the way; it was not made by tsar, remove it")

    def _take_over(self) -> None:
        stored = self._stored()
        if not self.resume:
            self._clear()
            return
        before = stored or self.run
        differing = next((key for key in self.run if before.get(key) != self.run[key]), None)
        if differing is not None:
            raise ParameterError(
                f"batch: resume must go on with the same call, but its {differing} was "
                f"{before.get(differing)!r} and is {self.run[differing]!r}; call it without resume "
                f"to begin anew"
            )

    def _clear(self) -> None:
        # What says whose they are goes last: a process may be killed in between.
        for entry in sorted(self._entries(), key=lambda entry: entry.name == RUN):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    @property
    def model(self) -> Path:
        """Where the model is kept that was fitted for this run."""
        return self.folder / "model"

    def facts(self, number: int) -> dict[str, Any] | None:
        """Return what was noted of a finished part, None if it has to be made (again)."""
        part = self._path(number)
        try:
            facts: dict[str, Any] = json.loads(part.with_suffix(".json").read_text("utf-8"))
            return facts if facts["bytes"] == part.stat().st_size else None
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
        JOIN.get(whole.suffix, _join_csv)(paths, whole)
        whole.replace(self.out)
        self.remove()

    def remove(self) -> None:
        """Remove everything that is kept; the folder goes at the end of the block."""
        self._clear()


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


def _join_workbooks(paths: list[Path], whole: Path) -> None:
    write_workbook(pd.concat(map(read_cells, paths), ignore_index=True), whole)


JOIN = {".parquet": _join_parquet, ".xlsx": _join_workbooks}


def write_json(content: Any, path: Path) -> None:
    """Write JSON; the file appears whole or not at all.

    Parameters
    ----------
    content : JSON
    path : pathlib.Path
    """
    with whole_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, default=str)
