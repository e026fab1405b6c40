"""Files that appear whole or not at all, and places that one process at a time writes to."""

import contextlib
import itertools
import json
import os
import shutil
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from tsar.exceptions import OutputInUseError

__all__ = [
    "is_process_alive",
    "only_writer",
    "process_name",
    "remove_unfinished",
    "unfinished_folder",
    "whole_file",
]

# How long names of files and hosts may be inside of the name of an unfinished one.
LONGEST = 80
# A lock that was let go of while it was being taken looks as if it were held for a moment.
MOMENT = 0.2
TRIES = 3
_numbers = itertools.count()


def process_name() -> str:
    """Return the name of this process among those of all machines, ``"<host>:<id>"``."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_process_alive(name: str) -> bool:
    """Whether a process may be running, as far as can be told from here.

    Parameters
    ----------
    name : str
        As :func:`process_name` gave it.
    """
    host, _, number = name.rpartition(":")
    # Signal 0 asks whether a process is there; elsewhere than on POSIX it would end it.
    if host != socket.gethostname() or os.name != "posix" or not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


# ------------------------------------------------------------------ whole or not at all


def _prefix(path: Path) -> str:
    return f".{path.name[:LONGEST]}.unfinished-"


def _unfinished(path: Path) -> Path:
    name = f"{process_name()[-LONGEST:].replace(':', '-')}-{next(_numbers)}"
    return path.parent / (_prefix(path) + name)


def remove_unfinished(path: Path) -> None:
    """Remove what processes of this machine left of a file or folder when they were killed.

    Parameters
    ----------
    path : pathlib.Path
        Where it was to appear; its folder need not be there.
    """
    prefix, host = _prefix(path), socket.gethostname()
    with contextlib.suppress(OSError):
        for entry in list(path.parent.iterdir()):
            if entry.name.startswith(prefix):
                owner, _, number = (
                    entry.name.removeprefix(prefix).rpartition("-")[0].rpartition("-")
                )
                if host.endswith(owner) and not is_process_alive(f"{host}:{number}"):
                    _remove(entry)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Let a file be written under another name, and give it its own at the end of the block.

    It has the permissions of any new file, whatever the writer thinks of that. If the block
    fails, nothing is left of it, and a file that was there before stays.

    Parameters
    ----------
    path : pathlib.Path

    Yields
    ------
    pathlib.Path
        Where to write: an empty file in the same folder.
    """
    unfinished = _unfinished(path)
    handle = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    # What the umask, or the default of the folder, left of it.
    mode = os.fstat(handle).st_mode & 0o777
    os.close(handle)
    try:
        yield unfinished
        unfinished.chmod(mode)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside ``path``, which is removed at the end if it is still there.

    Parameters
    ----------
    path : pathlib.Path
        What it is going to be, or what is to be put into it.

    Yields
    ------
    pathlib.Path
    """
    folder = _unfinished(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------ one at a time


@contextlib.contextmanager
def only_writer(owner: str, place: Path, lock_file: Path) -> Iterator[None]:
    """Keep other processes and threads from writing to the same place inside of the block.

    The lock is that of the operating system: it ends with the process, however that ends.

    Parameters
    ----------
    owner : str
        Who asks, for the message.
    place : pathlib.Path
        What is written.
    lock_file : pathlib.Path
        The file that is locked, made with its folder, and removed at the end.

    Raises
    ------
    OutputInUseError
        Another one writes there; it says which process on which machine, and since when.
    """
    lock = FileLock(lock_file, mode=0o666, thread_local=False)
    try:
        _acquire(lock, lock_file)
    except Timeout:
        raise OutputInUseError(
            f"{owner}: {str(place)!r} is being written by {_holder(lock_file)}; wait for it to "
            f"end, or name another place"
        ) from None
    try:
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        note = json.dumps({"process": process_name(), "since": since})
        lock_file.write_text(note, encoding="utf-8")
        yield
    finally:
        # While it is held: who has opened the file finds out that it is no longer there.
        with contextlib.suppress(OSError):
            lock_file.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, lock_file: Path) -> None:
    for left in reversed(range(TRIES)):
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=MOMENT, poll_interval=MOMENT / 10)
            return
        except FileNotFoundError:
            # Whoever held it has removed the folder with it.
            if not left:
                raise


def _holder(lock_file: Path) -> str:
    try:
        holder = json.loads(lock_file.read_text(encoding="utf-8"))
        host, _, number = holder["process"].rpartition(":")
        return f"process {number} on {host}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # It has only just begun, or the system lets nobody read what is locked.
        return "another process"
