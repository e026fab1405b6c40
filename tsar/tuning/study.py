"""Studies: where trials are kept, whose they are, and what became of killed ones."""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tsar.exceptions import MissingExtraError, ParameterError, TrainingError
from tsar.files import is_process_alive, process_name

__all__ = [
    "ERROR",
    "ask",
    "import_optuna",
    "is_counted",
    "open_study",
    "place_of",
    "quiet",
    "reason_of",
    "release_killed",
]

# Names of what is kept with a study and with its trials.
BELONGS, PROCESS, ERROR = "tsar", "process", "error"
# Of a trial that is made again: which one was killed, and its place.
AGAIN, PLACE = "again", "place"
# Between a trial's beginning and its note of the process.
UNSIGNED = timedelta(minutes=1)
TRIES = 5


def import_optuna() -> Any:
    """Return the module optuna.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("OptunaSearch needs optuna: pip install 'tsar[tune]'") from None
    return optuna


@contextlib.contextmanager
def quiet(optuna: Any) -> Iterator[None]:
    """Keep Optuna from writing its own lines to the console."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextlib.contextmanager
def open_study(
    optuna: Any,
    storage: str | os.PathLike[str] | None,
    study_name: str,
    pruner: Any,
    belongs: Mapping[str, Any],
) -> Iterator[Any]:
    """Create a study, or go on with the one that is stored, provided that it is the same.

    Connections are given back at the end; the study makes new ones if it is used later.

    Parameters
    ----------
    optuna : module
    storage : path, str or None
        A SQLite file, the URL of a database, or None for the memory.
    study_name : str
    pruner : optuna.pruners.BasePruner
    belongs : mapping of str to JSON
        What the study is about; a stored one must be about the same.

    Raises
    ------
    ParameterError
        The storage cannot be opened, or the study is about something else.
    TrainingError
        The storage fails later on.
    """
    # Optuna brings it along, and is installed if this is called.
    from sqlalchemy.exc import SQLAlchemyError

    opened = None if storage is None else _open_storage(optuna, storage)
    try:
        study = optuna.create_study(
            storage=opened,
            study_name=study_name,
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )
        _check_belongs(study, storage, belongs)
        yield study
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        raise TrainingError(
            f"OptunaSearch: storage must work until the last trial, {_shown(storage)} does not: "
            f"{_reason(error)}; what is stored is kept, call fit again to "
            f"go on with it"
        ) from None
    finally:
        if opened is not None:
            opened.engine.dispose()


def _open_storage(optuna: Any, storage: str | os.PathLike[str]) -> Any:
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    url = os.fspath(storage)
    # A server may close connections during a long trial.
    options: dict[str, Any] = {"pool_pre_ping": True}
    try:
        if "://" not in url:
            path = Path(url).absolute()
            if not path.parent.is_dir():
                raise FileNotFoundError(f"there is no folder {path.parent}")
            # Another process may be writing; a trial is worth waiting for.
            url, options = f"sqlite:///{path}", {"connect_args": {"timeout": 60}}
        _check_url(url)
        for left in reversed(range(TRIES)):
            try:
                # Tables are made without a pool, which would be lost with a connection in it.
                optuna.storages.RDBStorage(url, engine_kwargs={**options, "poolclass": NullPool})
                return optuna.storages.RDBStorage(url, engine_kwargs=options)
            except SQLAlchemyError as error:
                # Two processes that make the tables of one database at once: one of them fails.
                made = "already exists" in str(error) or "UNIQUE" in str(error).upper()
                if not (made and left):
                    raise
                time.sleep(0.3)
    except (
        *(OSError, ImportError, ValueError, RuntimeError),
        *(SQLAlchemyError, optuna.exceptions.StorageInternalError),
    ) as error:
        reason = _reason(error)
        if isinstance(error, ImportError):
            reason += (
                "; install the driver of the database, for postgresql+psycopg:// by "
                "pip install 'psycopg[binary]'"
            )
        raise ParameterError(
            f"OptunaSearch: storage must be a SQLite file that can be written or the URL of a "
            f"database, such as 'postgresql+psycopg://user@host/database', got {_shown(storage)}: "
            f"{reason}"
        ) from None


def _check_url(url: str) -> None:
    """Find what a driver would complain of by quoting a piece of the password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        host = make_url(url).host or ""
    except (ArgumentError, ValueError):
        host = "@"
    if "@" in host:
        raise ValueError(
            "it is no URL; in names and passwords, write special characters as "
            "urllib.parse.quote_plus does"
        )


def _shown(storage: Any) -> str:
    """Return how a storage is written in an error: without its password."""
    hidden = re.sub(r"(://[^:/]*:).*@", r"\1***@", str(storage))
    return repr(re.sub(r"(?i)(password=)[^&]*", r"\1***", hidden))


def _reason(error: BaseException) -> str:
    """Return what a driver said first, without what was made of it on the way up."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).partition("\n")[0]


def _check_belongs(study: Any, storage: Any, belongs: Mapping[str, Any]) -> None:
    # In this order: who begins at the same time notes what it is about before its first trial.
    begun = bool(study.get_trials(deepcopy=False))
    stored = study.user_attrs.get(BELONGS)
    if stored is None and not begun:
        study.set_user_attr(BELONGS, dict(belongs))
        return
    settings = {} if stored is None else stored
    differing = [key for key in belongs if settings.get(key) != belongs[key]]
    if not differing:
        return
    key = differing[0]
    now, then = belongs[key], settings.get(key)
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        part = next(name for name in {**then, **now} if now.get(name) != then.get(name))
        key, now, then = f"{key} of {part}", now.get(part), then.get(part)
    raise ParameterError(
        f"OptunaSearch: study {study.study_name!r} in {_shown(storage)} must belong to this "
        f"search; its {key} is {then}, here it is {now}; choose another study_name"
    )


# ------------------------------------------------------------------ killed trials


def ask(study: Any, *, queued: bool) -> Any:
    """Begin a trial: one that waits to be made again, or a new one.

    Parameters
    ----------
    study : optuna.Study
    queued : bool
        Whether a new trial is signed before it begins, so that it can be told at any instant
        whose it is. A sampler that counts its own trials does not know such ones.
    """
    waiting = any(one.state.name == "WAITING" for one in study.get_trials(deepcopy=False))
    if queued and not waiting:
        study.enqueue_trial({}, user_attrs={PROCESS: process_name()})
    trial = study.ask()
    trial.set_user_attr(PROCESS, process_name())
    return trial


def place_of(study: Any, trial: Any) -> int:
    """Return the place of a trial among those that a search would make if none were killed.

    A trial that is made again has the place of the one that was killed, and no other has it.
    """
    if PLACE in trial.user_attrs:
        return int(trial.user_attrs[PLACE])
    again = [one for one in study.get_trials(deepcopy=False) if AGAIN in one.user_attrs]
    return int(trial.number) - sum(one.number < trial.number for one in again)


def release_killed(optuna: Any, study: Any, *, redraw: bool = False) -> None:
    """Fail the trials whose process on this machine is gone, and queue them again.

    Parameters
    ----------
    optuna : module
    study : optuna.Study
    redraw : bool, default False
        Whether their parameters are drawn again, from the seed of their place, rather than
        queued: as many as had been drawn.
    """
    states = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        if not _is_alive(trial):
            try:
                study.tell(trial.number, state=states.FAIL)
            except (ValueError, RuntimeError):
                continue  # Another process has come first, and queued them.
            if ERROR not in trial.user_attrs:
                _queue_again(study, trial, redraw)
    if study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        return
    # Whoever failed a trial may have been killed before it was queued.
    listed = {one.user_attrs.get(AGAIN) for one in study.get_trials(deepcopy=False)}
    for trial in study.get_trials(deepcopy=False, states=(states.FAIL,)):
        if PROCESS in trial.user_attrs and not is_counted(trial) and trial.number not in listed:
            _queue_again(study, trial, redraw)


def _queue_again(study: Any, trial: Any, redraw: bool) -> None:
    if redraw or trial.params:
        attributes = {PROCESS: process_name(), AGAIN: trial.number, PLACE: place_of(study, trial)}
        study.enqueue_trial({} if redraw else trial.params, user_attrs=attributes)


def _is_alive(trial: Any) -> bool:
    """Whether the process of a trial may be running, as far as can be told from here."""
    process = str(trial.user_attrs.get(PROCESS, ""))
    if ":" not in process:
        return bool(datetime.now() - trial.datetime_start < UNSIGNED)
    return is_process_alive(process)


def is_counted(trial: Any) -> bool:
    """Whether a trial is one of those that were asked for; killed and queued ones are not."""
    state = trial.state.name
    return state != "WAITING" and (state != "FAIL" or ERROR in trial.user_attrs)


def reason_of(trial: Any) -> str | None:
    """Return why a trial failed, None if it did not."""
    if trial.state.name != "FAIL":
        return None
    return str(trial.user_attrs.get(ERROR, "its process ended"))
