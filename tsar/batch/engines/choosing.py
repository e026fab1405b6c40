"""Engines by name, and by the frames that are theirs."""

import importlib.util
import sys
from typing import Any

from tsar.batch.engines.dask_engine import Dask
from tsar.batch.engines.engine import Engine, FrameEngine, Local
from tsar.batch.engines.ray_engine import Ray
from tsar.batch.engines.spark_engine import Spark
from tsar.exceptions import DataError, MissingExtraError, ParameterError
from tsar.params.constraints import did_you_mean

__all__ = ["ENGINES", "engine_called", "engine_of"]

FRAMES: dict[str, type[FrameEngine]] = {"ray": Ray, "dask": Dask, "spark": Spark}
ENGINES: dict[str, type[Engine]] = {"local": Local, **FRAMES}
# What has to be there, by the name of the engine, which is that of the extra as well.
NEEDED = {
    "ray": ("ray", "pyarrow", "cloudpickle"),
    "dask": ("dask", "distributed", "pyarrow", "cloudpickle"),
    "spark": ("pyspark", "pyarrow", "cloudpickle"),
}
# Where the frames of each are defined; who has one has imported it.
HOMES = {"ray": "ray", "dask": "dask", "spark": "pyspark"}


def engine_called(name: Any) -> Engine:
    """Return an engine.

    Raises
    ------
    ParameterError
        There is none of that name.
    MissingExtraError
        Its library is not installed.
    """
    if name not in ENGINES:
        near = did_you_mean(str(name), ENGINES)
        raise ParameterError(
            f"batch: engine must be one of {', '.join(map(repr, ENGINES))}, got {name!r}{near}"
        )
    for library in NEEDED.get(name, ()):
        # Modules that are there are not looked for again.
        if library not in sys.modules and importlib.util.find_spec(library) is None:
            raise MissingExtraError(f"engine={name!r} needs {library}: pip install 'tsar[{name}]'")
    return ENGINES[name]()


def engine_of(frame: Any) -> FrameEngine:
    """Return the engine whose frame this is.

    Raises
    ------
    DataError
        It is of none.
    MissingExtraError
        A library beside that of the engine is not installed.
    """
    for name, engine in FRAMES.items():
        if HOMES[name] in sys.modules and engine().holds(frame):
            engine_called(name)
            return engine()
    kind = f"{type(frame).__module__}.{type(frame).__qualname__}"
    raise DataError(
        f"batch: frame must be a Ray Dataset, a Dask DataFrame or a Spark DataFrame, got a {kind}; "
        f"a file is for tsar.batch.forecast, a frame of pandas for fit and predict of a forecaster"
    )
