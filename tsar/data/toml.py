"""TOML files whose tables are read strictly: a key that is passed over is a wrong result."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsar.exceptions import DataError
from tsar.params.constraints import check_choice, check_value, did_you_mean

__all__ = ["as_toml", "check_table", "read_toml"]


def read_toml(path: Path, owner: str) -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    path : pathlib.Path
    owner : str
        What the file is, for messages: "recipe shop.toml".

    Raises
    ------
    DataError
        It is missing, is no text or no TOML; it names the line.
    """
    if path.is_dir():
        raise DataError(f"{owner} is a folder; name a file in it")
    if not path.is_file():
        others = [file.name for file in path.parent.glob("*.toml")]
        raise DataError(f"there is no {owner}{did_you_mean(path.name, others)}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{owner} cannot be read: {error}") from None


def check_table(owner: str, table: Mapping[str, Any], keys: Mapping[str, Any]) -> None:
    """Check that a table has known keys only, and values of their types.

    Parameters
    ----------
    owner : str
        For messages.
    table : mapping
    keys : mapping of str to type hint
        All that it may have.

    Raises
    ------
    ParameterError
        A key is none of them, with the nearest as a suggestion; or a value is of another type.
    """
    for key, value in table.items():
        check_choice(owner, "key", key, keys)
        check_value(owner, key, value, keys[key])


def as_toml(value: Any) -> str:
    """Write a value as TOML has it; None, for which TOML has nothing, as ``"none"``.

    Parameters
    ----------
    value : str, number, bool, None, or a list or tuple of such

    Examples
    --------
    >>> from tsar.data.toml import as_toml
    >>> print(as_toml([0, 1e-5, None, True, "ds"]))
    [0, 1e-05, "none", true, "ds"]
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps("none" if value is None else str(value), ensure_ascii=False)
