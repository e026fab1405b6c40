"""Names of dtypes that lead back to them.

Several dtypes of text share a name, and some of pyarrow's have one that pandas cannot read.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

__all__ = ["dtype_called", "dtype_name", "float_dtype"]

TEXT = "text of "
ARROW, MISSING_IS_NAN = "arrow", ", nan"


def dtype_name(dtype: Any) -> str:
    """Return the name of a dtype, which :func:`dtype_called` reads.

    What has none, such as a dictionary of pyarrow, is called "object", and categories are called
    "category" whatever they are.
    """
    name = str(dtype)
    if isinstance(dtype, np.dtype) or _called(name) == dtype:
        return name
    if isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if isinstance(dtype, pd.StringDtype):
        # The storage "pyarrow_numpy" of pandas 2 says so itself.
        storage = str(dtype.storage)
        nan = dtype.na_value is np.nan and not storage.endswith("numpy")
        return f"{TEXT}{storage}{MISSING_IS_NAN if nan else ''}"
    if isinstance(dtype, pd.ArrowDtype) and types.is_string_dtype(dtype) and name[:6] == "string":
        return TEXT + ARROW
    return "object"


# A forecast asks several times, and pandas takes its time for names of text.
@lru_cache(maxsize=256)
def dtype_called(name: str) -> Any:
    """Return the dtype that :func:`dtype_name` gave a name."""
    if not name.startswith(TEXT):
        return types.pandas_dtype(name)
    storage = name.removeprefix(TEXT)
    if storage == ARROW:
        import pyarrow

        return pd.ArrowDtype(pyarrow.string())
    if storage.endswith(MISSING_IS_NAN):
        return pd.StringDtype(storage.removesuffix(MISSING_IS_NAN), na_value=np.nan)
    return pd.StringDtype(storage)


def float_dtype(name: str) -> Any:
    """Return the floating dtype in which a forecast of a column is given.

    Parameters
    ----------
    name : str
        Of the dtype of the column. Integers and what has fewer than 32 bits become float64.
    """
    dtype = dtype_called(name)
    same = (
        types.is_float_dtype(dtype) and dtype.itemsize > 2 and not isinstance(dtype, pd.SparseDtype)
    )
    return dtype if same else np.dtype(np.float64)


@lru_cache(maxsize=256)
def _called(name: str) -> Any:
    try:
        return types.pandas_dtype(name)
    except (TypeError, ValueError, NotImplementedError):
        return None
