"""The files of a run."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsar.data.tables import check_writable
from tsar.exceptions import DataError, ParameterError
from tsar.files import remove_unfinished

__all__ = ["Paths"]


@dataclass(frozen=True)
class Paths:
    """What a run reads and writes; None where there is no such file."""

    source: Path
    out: Path | None
    future: Path | None
    report: Path | None
    resume: bool

    @classmethod
    def of(cls, source: Any, out: Any, future: Any, report: Any, resume: bool) -> "Paths":
        """Read the paths, and find out whether what is to be written can be."""
        read = Path(source)
        written, future_file, noted = (
            None if path is None else Path(path) for path in (out, future, report)
        )
        if written is not None:
            check_writable(written, inputs=[read] if future_file is None else [read, future_file])
        elif resume:
            raise ParameterError("batch: resume needs out=, beside which finished blocks are kept")
        if noted is not None:
            folder = noted.absolute().parent
            if not folder.is_dir() or not os.access(folder, os.W_OK) or noted.is_dir():
                raise DataError(f"report {noted} cannot be written; name a file in a folder")
            if noted.resolve() in [path.resolve() for path in (read, written, future_file) if path]:
                raise DataError(f"report {noted} is the file of the data; write to another one")
        return cls(read, written, future_file, noted, resume)

    def remove_unfinished(self) -> None:
        """Remove what a run that was killed has left beside what is to be written."""
        for path in (self.out, self.report):
            if path is not None:
                remove_unfinished(path)
