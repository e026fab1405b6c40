"""Parameters and labels as JSON, with what plain JSON would lose."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

import numpy as np
import pandas as pd

from tsar.data.dtypes import dtype_called, dtype_name
from tsar.data.offsets import describe_offset, rebuild_offset
from tsar.data.timeaxis import zone_name
from tsar.exceptions import PersistenceError

__all__ = ["IndexRecord", "check_array", "decode", "decode_index", "encode", "encode_index"]


class IndexRecord(TypedDict):
    """What :func:`encode_index` returns."""

    dtype: str
    name: Any
    labels: list[Any]
    categories: "IndexRecord | None"
    ordered: bool


def check_array(
    arrays: Mapping[str, np.ndarray], name: str, dtype: str, shape: Sequence[int | None]
) -> np.ndarray:
    """Return an array of a saved model if it has its type and its shape.

    Parameters
    ----------
    arrays : mapping of str to array
    name : str
    dtype : str
    shape : sequence of int or None
        None stands for any number.

    Raises
    ------
    PersistenceError
        It is missing, or has others.
    """
    array = arrays.get(name)
    fits = (
        array is not None
        and array.dtype == dtype
        and array.ndim == len(shape)
        and all(size in (None, held) for size, held in zip(shape, array.shape, strict=True))
    )
    if array is None or not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        described = "none" if array is None else f"{array.dtype} of shape {array.shape}"
        raise PersistenceError(
            f"load: the array {name!r} must be {dtype} of shape ({sizes}), got {described}"
        )
    return array


def encode(value: Any) -> Any:
    """Return a parameter or label in a form that JSON keeps apart from all others."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.datetime64):
        return encode(pd.Timestamp(value))
    if isinstance(value, np.timedelta64):
        return encode(pd.Timedelta(value))
    if isinstance(value, np.generic):
        return encode(value.item())
    if isinstance(value, tuple):
        return {"tuple": [encode(item) for item in value]}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, pd.offsets.BaseOffset):
        return {"offset": describe_offset(value)}
    if isinstance(value, pd.Timedelta):
        return {"timedelta": value.isoformat()}
    if isinstance(value, datetime.timedelta):
        return {"seconds": value.total_seconds()}
    if isinstance(value, pd.Timestamp):
        zone = None if value.tz is None else zone_name(value.tz)
        return {"timestamp": [value.isoformat(), zone]}
    if type(value) is datetime.date:
        return {"date": value.isoformat()}
    if isinstance(value, pd.Period):
        return {"period": [value.ordinal, value.freqstr]}
    raise PersistenceError(
        f"save: {value!r} of type {type(value).__name__} cannot be stored; "
        f"use numbers, strings or timestamps as labels and parameters"
    )


def decode(value: Any) -> Any:
    """Undo :func:`encode`."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    content: Any
    kind, content = next(iter(value.items())) if len(value) == 1 else (", ".join(value), None)
    if kind == "tuple":
        return tuple(decode(item) for item in content)
    if kind == "offset":
        return rebuild_offset(content)
    if kind == "seconds":
        return datetime.timedelta(seconds=content)
    if kind == "timedelta":
        return pd.Timedelta(content)
    if kind == "timestamp":
        text, zone = content
        stamp = pd.Timestamp(text)
        return stamp if zone is None else stamp.tz_convert(zone)
    if kind == "date":
        return datetime.date.fromisoformat(content)
    if kind == "period":
        ordinal, alias = content
        return cast(Any, pd.PeriodIndex).from_ordinals([ordinal], freq=alias)[0]
    raise PersistenceError(f"load: unknown kind of value {kind!r}; was it written by this program?")


def encode_index(index: pd.Index) -> dict[str, Any]:
    """Return an index of ids or variate names as JSON, its dtype included."""
    categories = None
    if isinstance(index, pd.CategoricalIndex):
        categories = encode_index(index.categories)
    return {
        "dtype": dtype_name(index.dtype),
        "name": encode(index.name),
        "labels": [encode(label) for label in index],
        "categories": categories,
        "ordered": bool(getattr(index, "ordered", False)),
    }


def decode_index(stored: dict[str, Any]) -> pd.Index:
    """Undo :func:`encode_index`."""
    labels = [decode(label) for label in stored["labels"]]
    name = decode(stored["name"])
    if stored["categories"] is not None:
        categories = decode_index(stored["categories"])
        return pd.CategoricalIndex(
            labels, categories=categories, ordered=stored["ordered"], name=name
        )
    # Tuples are labels like others.
    return pd.Index(labels, dtype=dtype_called(stored["dtype"]), name=name, tupleize_cols=False)
