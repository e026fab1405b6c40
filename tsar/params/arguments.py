"""Arguments of the methods of estimators, checked before any work."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tsar.exceptions import ParameterError
from tsar.params.constraints import check_count, matches

__all__ = [
    "ArrowStream",
    "Frame",
    "SampleWeight",
    "check_fractions",
    "check_horizon",
    "check_levels",
    "check_percentages",
    "check_range",
    "check_samples",
    "column_labels",
    "frame_first",
    "holds_columns",
]


class ArrowStream(Protocol):
    """A frame of polars or pyarrow, or of any library that hands its columns over by Arrow."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return a capsule with an Arrow stream."""


Frame: TypeAlias = pd.DataFrame | pd.Series | ArrowStream
SampleWeight: TypeAlias = (
    ArrayLike | pd.Series | Mapping[Any, float] | Literal["equal_series"] | None
)

Owner = TypeVar("Owner")
Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def check_horizon(owner: str, horizon: Any) -> int:
    """Return the horizon given to ``predict``, or raise a :class:`ParameterError`."""
    return check_count(owner, "horizon", horizon)


def check_levels(owner: str, quantiles: Any, fitted: Sequence[float]) -> list[float]:
    """Check the quantile levels that ``predict`` is asked for.

    Parameters
    ----------
    owner : str
        Name of the estimator, for messages.
    quantiles : sequence of float, float or None
    fitted : sequence of float
        The levels that were fitted.

    Returns
    -------
    list of float

    Raises
    ------
    ParameterError
        A level was not fitted.
    """
    if quantiles is None:
        return []
    if not fitted:
        raise ParameterError(
            f"{owner}: predict(quantiles=...) needs a model fitted for quantiles; call "
            f"calibrate(df), df may be the frame that was fitted, or fit a model that is trained, "
            f"such as NLinear, with loss='quantile' and quantiles=, or with a distribution such as "
            f"loss='gaussian'"
        )
    levels = list(quantiles) if isinstance(quantiles, Sequence | np.ndarray) else [quantiles]
    if isinstance(quantiles, str) or any(level not in fitted for level in levels):
        raise ParameterError(
            f"{owner}: quantiles must be among the fitted levels "
            f"{', '.join(map(str, fitted))}, got {quantiles!r}; name others before fit"
        )
    return levels


def check_fractions(owner: str, quantiles: Any) -> list[float]:
    """Check quantile levels of a model that has all of them; see :func:`check_levels`."""
    if quantiles is None:
        return []
    levels = _numbers(quantiles)
    if levels is None or not all(0 < level < 1 for level in levels):
        raise ParameterError(
            f"{owner}: quantiles must be numbers between 0 and 1, both excluded, got {quantiles!r}"
        )
    return levels


def check_percentages(owner: str, level: Any) -> list[float]:
    """Check the levels of the intervals that are asked for.

    Parameters
    ----------
    owner : str
        Name of the estimator, for messages.
    level : float or sequence of float or None
        In percent.

    Returns
    -------
    list of float
        In the order given, each once.

    Raises
    ------
    ParameterError
        A level is no percentage, or looks like a share.
    """
    if level is None:
        return []
    levels = _numbers(level)
    if levels is None or not all(0 < one < 100 for one in levels):
        raise ParameterError(
            f"{owner}: level must be percentages between 0 and 100, both excluded, got {level!r}; "
            f"level=[80, 95] asks for intervals that cover 80 and 95 of 100 values"
        )
    shares = [one for one in levels if one < 1]
    if shares:
        raise ParameterError(
            f"{owner}: level is in percent, got {level!r}; did you mean {100 * shares[0]:g}?"
        )
    return list(dict.fromkeys(levels))


def _numbers(value: Any) -> list[float] | None:
    """Return a number or a sequence of numbers as a list; None for anything else."""
    listed = list(value) if isinstance(value, Sequence | np.ndarray) else [value]
    if isinstance(value, str) or not all(matches(one, float) for one in listed):
        return None
    return [float(one) for one in listed]


def check_range(owner: str, name: str, limits: Any) -> None:
    """Raise a :class:`ParameterError` unless limits are a pair (low, high), None for no limit."""
    if limits is None:
        return
    stated = [limit for limit in limits if limit is not None]
    if len(limits) != 2 or not all(map(math.isfinite, stated)) or stated != sorted(set(stated)):
        raise ParameterError(
            f"{owner}: {name} must be a pair of numbers that rise, None for no limit, such as "
            f"(0, None), got {limits!r}"
        )


def check_samples(owner: str, samples: Any) -> int:
    """Return the number of samples asked for, or raise a :class:`ParameterError`."""
    return check_count(owner, "samples", samples)


def column_labels(columns: Any) -> list[Any]:
    """Return a label, or a sequence of labels, or None as a list of labels."""
    if columns is None:
        return []
    return [columns] if isinstance(columns, str | int) else list(columns)


def holds_columns(value: Any) -> bool:
    """Return whether something is data, in the sense of :data:`Frame`, and no class."""
    is_pandas = isinstance(value, pd.DataFrame | pd.Series)
    return is_pandas or (hasattr(value, "__arrow_c_stream__") and not isinstance(value, type))


def frame_first(
    predict: Callable[Concatenate[Owner, Arguments], Answer],
) -> Callable[Concatenate[Owner, Arguments], Answer]:
    """Let a frame in the first place be ``df``; ``horizon`` and ``future`` may follow it.

    Pipelines of scikit-learn pass the data first and the rest by name.
    """
    after_frame = ("horizon", "future")

    @wraps(predict)
    def called(self: Owner, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        # What is not computed yet is data as well, and refused as such.
        if args and (holds_columns(args[0]) or hasattr(args[0], "collect")):
            if len(args) > 1 + len(after_frame):
                raise ParameterError(
                    f"{type(self).__name__}: predict takes df, horizon and future by place, got "
                    f"{len(args)} arguments; pass the others by name"
                )
            placed = dict(zip(after_frame, args[1:], strict=False))
            by_name: Callable[..., Answer] = predict
            return by_name(self, df=args[0], **placed, **kwargs)
        return predict(self, *args, **kwargs)

    return called
