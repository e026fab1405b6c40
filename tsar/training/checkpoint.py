"""Checkpoints of a training, from which a killed one goes on as if it had not been."""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tsar.exceptions import ParameterError, TrainingError
from tsar.files import remove_unfinished, whole_file
from tsar.training.state import Snapshot

__all__ = ["Checkpoint", "checkpoint_folder", "checkpoints_in", "describe_value", "digest"]

FILE = "training-checkpoint.safetensors"
DEEPEST = 8
DIGEST_LENGTH = 64
# One is written when so many minutes have gone by since the one before.
MINUTES = 10.0

# In which folder the training inside of a fit leaves its checkpoints. Between the fit that is
# asked for and the training lies what only some estimators have.
_folder: ContextVar[Path | None] = ContextVar("checkpoint_folder", default=None)


@contextlib.contextmanager
def checkpoints_in(folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Let what is trained inside of a ``with`` block leave its checkpoints in a folder.

    Parameters
    ----------
    folder : path or None
        None leaves none.

    Raises
    ------
    ParameterError
        It is no path, or the path of a file.
    """
    path = None
    if folder is not None:
        text = os.fspath(folder) if isinstance(folder, str | os.PathLike) else None
        if not isinstance(text, str) or not text:
            raise ParameterError(f"checkpoint must be the path of a folder, got {folder!r}")
        path = Path(text).absolute()
        if path.exists() and not path.is_dir():
            raise ParameterError(f"checkpoint must be a folder, and {text!r} is a file")
    token = _folder.set(path)
    try:
        yield
    finally:
        _folder.reset(token)


def checkpoint_folder() -> Path | None:
    """Return the folder that :func:`checkpoints_in` names here."""
    return _folder.get()


class Checkpoint:
    """The file in which a training leaves its state every so many minutes.

    It appears when everything is written and not before: a training that is killed while it
    writes goes on from the checkpoint before.

    Parameters
    ----------
    folder : Path
        Created with the first checkpoint, and removed with the last if nothing else is in it.

    Attributes
    ----------
    identity : dict or None
        Of the training that left the checkpoint in the folder, see :meth:`claim`; None where
        there is none.

    Raises
    ------
    TrainingError
        If the file in the folder is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identity: dict[str, Any] | None = None
        # Which phase is trained, and how many steps those before it made.
        self.phase, self.spent = 0, 0
        self._snapshot: Snapshot | None = None
        self._last = time.monotonic()
        existing = next(above for above in (folder, *folder.absolute().parents) if above.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise TrainingError(
                f"no checkpoint can be written in {str(folder)!r}: {str(existing)!r} is no folder "
                f"that can be written; choose another folder"
            )
        if (folder / FILE).exists():
            self._read()

    def _read(self) -> None:
        try:
            with safe_open(self.folder / FILE, framework="pt") as stored:
                record = json.loads(stored.metadata()["record"])
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            self._snapshot = Snapshot.from_tensors(tensors, record["run"])
            self.identity = record["identity"]
            self.phase, self.spent = record["phase"], record["spent"]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"the checkpoint in {str(self.folder)!r} is damaged: {error}; remove it to train "
                f"from the beginning"
            ) from None

    def claim(self, identity: dict[str, str]) -> None:
        """Say which training leaves its checkpoints here.

        Parameters
        ----------
        identity : dict of str to str
            Everything that decides what the training gives, by name.

        Raises
        ------
        TrainingError
            If there is a checkpoint of another one.
        """
        if self.identity is not None and self.identity != identity:
            names = [name for name in identity if self.identity.get(name) != identity[name]]
            names += [name for name in self.identity if name not in identity]
            told = "; ".join(_told(n, self.identity.get(n), identity.get(n)) for n in names)
            raise TrainingError(
                f"the checkpoint in {str(self.folder)!r} is of another training: {told}; restore "
                f"what differs, remove the checkpoint, or choose another folder"
            )
        self.identity = identity

    def take(self) -> Snapshot | None:
        """Return what there is to go on from; afterwards there is nothing."""
        snapshot, self._snapshot = self._snapshot, None
        return snapshot

    @property
    def due(self) -> bool:
        """Whether it is time for another one."""
        return time.monotonic() - self._last >= MINUTES * 60

    def write(self, snapshot: Snapshot) -> None:
        """Write a checkpoint in place of the one before.

        Raises
        ------
        TrainingError
            If the folder cannot be written to.
        """
        tensors, run = snapshot.to_tensors()
        record = {
            "identity": self.identity,
            "phase": self.phase,
            "spent": self.spent,
            "run": run,
        }
        target = self.folder / FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished(target)
            with whole_file(target) as unfinished:
                save_file(
                    {name: tensor.contiguous() for name, tensor in tensors.items()},
                    unfinished,
                    {"record": json.dumps(record)},
                )
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"no checkpoint can be written in {str(self.folder)!r}: {error}"
            ) from None
        self._last = time.monotonic()

    def remove(self) -> None:
        """Remove the checkpoint, and the folder if it is empty then."""
        if self.folder.is_dir():
            (self.folder / FILE).unlink(missing_ok=True)
            remove_unfinished(self.folder / FILE)
            with contextlib.suppress(OSError):
                self.folder.rmdir()


def _told(name: str, before: str | None, now: str | None) -> str:
    # Nobody can compare digests.
    if {len(text) for text in (before, now) if text is not None} == {DIGEST_LENGTH}:
        return f"{name} differ"
    return f"{name} was {before}, now {now}"


def digest(tensors: Iterable[Tensor | None]) -> str:
    """Return a digest of tensors: their types, shapes and numbers."""
    digester = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            digester.update(b"none")
            continue
        digester.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digester.update(flat.view(torch.uint8).numpy().data)
    return digester.hexdigest()


def describe_value(value: object, depth: int = 0) -> str:
    """Return a value as text that is the same in every process, and of no other value.

    Of a function, that is what it does and what it holds on to; of an object, its attributes,
    down to a certain ``depth``.
    """

    def inner(held: object) -> str:
        return describe_value(held, depth + 1)

    if isinstance(value, type) or depth > DEEPEST:
        cls = value if isinstance(value, type) else type(value)
        return f"{cls.__module__}.{cls.__qualname__}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(inner, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{inner(key)}: {inner(one)}' for key, one in value.items())}}}"
    if isinstance(value, Tensor):
        return f"Tensor {digest([value])}"
    if isinstance(value, FunctionType):
        code = value.__code__
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        content = [code.co_code, repr(code.co_consts), code.co_names, held, value.__defaults__]
        return f"{value.__module__}.{value.__qualname__} {_short(inner(content))}"
    if hasattr(value, "__dict__"):
        return f"{_placeless(repr(value))} {_short(inner(type(value)) + inner(vars(value)))}"
    return _placeless(repr(value))


def _short(content: str) -> str:
    return hashlib.sha256(_placeless(content).encode()).hexdigest()[:12]


def _placeless(text: str) -> str:
    """Leave out where in memory something lies."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)
