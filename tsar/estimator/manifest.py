"""The manifest of a saved model: which files it has, how large they are, and their digests.

A file that was damaged, cut, changed or taken from another model is found by it before anything is
read from the file. Models of format 1 have none.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

from tsar.exceptions import PersistenceError
from tsar.params.constraints import Interval
from tsar.params.records import Count, check_record

__all__ = ["MANIFEST", "check_files", "write_manifest"]

MANIFEST = "manifest.json"
# Two names and two digests take less than one thousand bytes.
LARGEST = 100_000


class _File(TypedDict):
    bytes: Count
    sha256: str


class _Manifest(TypedDict):
    format: Annotated[int, Interval(1)]
    files: dict[str, _File]


def write_manifest(folder: Path, names: Sequence[str], version: int) -> None:
    """Write the manifest of files that are written.

    Parameters
    ----------
    folder : pathlib.Path
    names : sequence of str
        The files.
    version : int
        The format of the model.
    """
    manifest = {"format": version, "files": {name: _described(folder / name) for name in names}}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def check_files(folder: Path, names: Sequence[str]) -> int | None:
    """Compare the files of a saved model with its manifest.

    Parameters
    ----------
    folder : pathlib.Path
    names : sequence of str
        The files that a model has.

    Returns
    -------
    int or None
        The format that the manifest states; None if there is no manifest.

    Raises
    ------
    PersistenceError
        The manifest is damaged, or a file is missing or is not the one that was saved.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > LARGEST:
            raise PersistenceError(f"load: {MANIFEST} in {str(folder)!r} is damaged: too long")
        manifest: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise PersistenceError(f"load: {MANIFEST} in {str(folder)!r} is damaged: {error}") from None
    check_record(f"load: {MANIFEST} in {str(folder)!r}", manifest, _Manifest)
    if sorted(manifest["files"]) != sorted(names):
        raise PersistenceError(
            f"load: {MANIFEST} in {str(folder)!r} must list {', '.join(names)}, it lists "
            f"{', '.join(sorted(manifest['files']))[:200] or 'nothing'}"
        )
    for name in names:
        _check_file(folder / name, manifest["files"][name])
    return int(manifest["format"])


def _check_file(path: Path, expected: _File) -> None:
    shown = f"load: {path.name} in {str(path.parent)!r}"
    try:
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise PersistenceError(
                f"{shown} has {size} bytes, and had {expected['bytes']} when it was saved; it is "
                f"damaged or of another model, copy the folder again or save the model again"
            )
        present = _described(path)
    except OSError as error:
        raise PersistenceError(
            f"{shown} is missing or cannot be read, the model is damaged or incomplete: {error}"
        ) from None
    if present != expected:
        raise PersistenceError(
            f"{shown} is not what was saved (its sha256 differs); it is damaged or of another "
            f"model, copy the folder again or save the model again"
        )


def _described(path: Path) -> _File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}
