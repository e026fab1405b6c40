"""Files at addresses such as ``s3://bucket/name``, by way of copies on this machine.

Whatever fsspec reaches is reached. An object store has neither locks nor a way to rename: what is
here fetches whole files, and writes whole files. Nothing appends, and nothing is locked.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from tsar.exceptions import DataError, MissingExtraError, PersistenceError, TsarError

__all__ = ["Storage", "address_in"]

# One letter is a drive of Windows. A path has lost one of the slashes.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]+?):/(/?)(.+)", re.DOTALL)


def address_in(path: Any) -> str | None:
    """Return the address that a text or a path is, None for a path on this machine.

    ``pathlib`` makes ``s3:/bucket`` of ``s3://bucket``, which is undone.
    """
    if not isinstance(path, str | os.PathLike):
        return None
    match = _ADDRESS.fullmatch(str(path))
    if match is None or not (match[2] or isinstance(path, PurePath)):
        return None
    return f"{match[1]}://{match[3]}"


class Storage:
    """What lies at an address, a file or a folder.

    Parameters
    ----------
    owner : str
        Who asks, for messages.
    address : str
        As :func:`address_in` gives it. Passwords and keys do not belong into it: fsspec finds them
        in the environment.

    Raises
    ------
    MissingExtraError
        fsspec, or what it needs for addresses of this kind, is not installed.
    DataError
        fsspec knows no such addresses.
    """

    def __init__(self, owner: str, address: str) -> None:
        self.owner, self.address = owner, address.rstrip("/")
        try:
            import fsspec
        except ImportError:
            raise MissingExtraError(
                f"{owner}: {address!r} is no path on this machine, and other places need fsspec: "
                f"pip install 'tsar[remote]'"
            ) from None
        try:
            self._files, self._path = fsspec.core.url_to_fs(self.address)
        except ImportError as error:
            raise MissingExtraError(
                f"{owner}: {address!r} needs another package: {error}"
            ) from None
        except ValueError as error:
            raise DataError(
                f"{owner}: {address!r} cannot be reached: {error}; addresses are such as "
                f"s3://bucket/name, and paths on this machine have no '://'"
            ) from None

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rpartition("/")[2]

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        with self._told("cannot be reached"):
            return bool(self._files.exists(self._path))

    def names(self) -> list[str]:
        """Return what a folder holds, nothing where there is none."""
        with self._told("cannot be listed"):
            # What another machine wrote a moment ago counts.
            self._files.invalidate_cache()
            if not self._files.isdir(self._path):
                return []
            held = (str(one).rstrip("/") for one in self._files.ls(self._path, detail=False))
            return sorted(one.rpartition("/")[2] for one in held if one != self._path.rstrip("/"))

    @contextlib.contextmanager
    def fetched(self) -> Iterator[Path]:
        """Give a copy of the file, which is removed at the end of the block.

        Raises
        ------
        DataError
            There is no such file, or it cannot be read.
        """
        with tempfile.TemporaryDirectory(prefix="tsar-") as folder, self.named(folder):
            copy = Path(folder) / self.name
            with self._told("cannot be read"):
                self._files.get_file(self._path, str(copy))
            yield copy

    @contextlib.contextmanager
    def fetched_folder(self, names: Sequence[str]) -> Iterator[Path]:
        """Give a folder with copies of some files of this one, those that are there."""
        with tempfile.TemporaryDirectory(prefix="tsar-") as above, self.named(above):
            folder = Path(above) / self.name
            folder.mkdir()
            for name in names:
                # What is missing is for the reader to tell.
                with self._told("cannot be read"), contextlib.suppress(FileNotFoundError):
                    self._files.get_file(f"{self._path}/{name}", str(folder / name))
            yield folder

    @contextlib.contextmanager
    def written(self) -> Iterator[Path]:
        """Give a path to write to, and send what is there at the end of a block that succeeds.

        That the place can be written to is found out at once, by an empty file beside it that
        is removed again.
        """
        with tempfile.TemporaryDirectory(prefix="tsar-") as folder, self.named(folder):
            self._check_writable()
            copy = Path(folder) / self.name
            yield copy
            self._put(copy, self._path)

    def replace(self, folder: Path, names: Sequence[str]) -> None:
        """Send files of a folder on this machine, the last one last, in place of those there.

        The last one is what says that the others are complete: it is removed before they are
        changed.
        """
        *others, last = names
        with self._told("cannot be written"):
            # Folders are no more than parts of names on object stores.
            self._files.makedirs(self._path, exist_ok=True)
            if self._files.exists(f"{self._path}/{last}"):
                self._files.rm_file(f"{self._path}/{last}")
        for name in (*others, last):
            self._put(folder / name, f"{self._path}/{name}")

    def _check_writable(self) -> None:
        probe = f"{self._path}.tsar-probe-{os.getpid()}"
        with self._told("cannot be written"):
            self._files.makedirs(self._path.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(probe, b"")
            self._files.rm_file(probe)

    def _put(self, copy: Path, path: str) -> None:
        with self._told("cannot be written"):
            self._files.put_file(str(copy), path)

    @contextlib.contextmanager
    def named(self, folder: str) -> Iterator[None]:
        """Let errors of tsar name the address where they name a copy of it."""
        try:
            yield
        except (DataError, PersistenceError) as error:
            error.args = (self.in_place_of(folder, str(error)), *error.args[1:])
            raise

    def in_place_of(self, folder: str, text: str) -> str:
        """Return a text with the address in the place of a copy in a folder."""
        return text.replace(os.path.join(folder, self.name), self.address)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Make one error of ours of whatever a file system raises."""
        try:
            yield
        except (TsarError, KeyboardInterrupt):
            raise
        except FileNotFoundError as error:
            if what == "cannot be read":
                raise DataError(f"{self.owner}: there is no file {self.address}") from error
            raise DataError(f"{self.owner}: {self.address} {what}: {error}") from error
        except Exception as error:
            # Each of them has errors of its own.
            detail = str(error) or type(error).__name__
            raise DataError(f"{self.owner}: {self.address} {what}: {detail}") from error
