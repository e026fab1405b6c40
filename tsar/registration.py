"""One way for what is defined outside of tsar to be known by name: an estimator, a mixer, ..."""

import importlib
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from tsar.core.mixers import MIXERS, Mixer
from tsar.estimator.base import Estimator
from tsar.exceptions import ParameterError
from tsar.forecasting.base import Forecaster
from tsar.forecasting.outputs.losses import LOSSES, Loss
from tsar.forecasting.registry import FORECASTERS
from tsar.persistence import OTHER_ESTIMATORS
from tsar.training.optim import OPTIMIZER_CLASSES, Optimizer
from tsar.training.schedules import SCHEDULE_CLASSES, Schedule

__all__ = ["load_plugin", "register"]


def register(thing: Any, name: str | None = None) -> Any:
    """Make a class of your own known by name, as if it were one of tsar.

    ============ ==================================================================
    forecaster   named on the command line, in recipes and by ``batch.forecast``;
                 found by ``tsar.load``, ``tsar.checks`` and ``tsar models``
    estimator    of another family: found by ``tsar.load``
    mixer        ``mixer="name"`` of every model that mixes tokens
    loss         ``loss="name"`` of every model that is trained
    optimizer    an object of it is saved with a model, and found by ``tsar.load``
    schedule     likewise
    metric       ``metrics="name"`` of ``measure`` and ``compare``
    ============ ==================================================================

    It holds for as long as the process lives. An installed package makes it hold for good by an
    entry point in the group ``tsar.forecasters``, ``tsar.estimators``, ``tsar.mixers``,
    ``tsar.losses``, ``tsar.optimizers``, ``tsar.schedules`` or ``tsar.metrics``.

    Parameters
    ----------
    thing : type or Metric
        A subclass of :class:`~tsar.Forecaster`, of another estimator, of
        :class:`tsar.core.mixers.Mixer`, of :class:`tsar.forecasting.outputs.losses.Loss`, of
        :class:`tsar.training.optim.Optimizer`, of :class:`tsar.training.schedules.Schedule`, or
        a :class:`tsar.evaluation.Metric`.
    name : str, optional
        What to call it; of a class its own name by default. An estimator has no other, because
        that is what a saved model says of it.

    Returns
    -------
    thing
        The same, so that it works as a decorator.

    Raises
    ------
    ParameterError
        It is none of these, or the name belongs to something else.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import tsar
    >>> @tsar.register
    ... @dataclass(kw_only=True, eq=False, repr=False)
    ... class Yesterday(tsar.SeasonalNaive):
    ...     season_length: int | None = 1
    >>> "Yesterday" in tsar.forecasting.registry.forecaster_names()
    True
    """
    # Metrics stand on the evaluation of forecasts, which who only fits does not need to import.
    from tsar.evaluation.measuring import METRICS, Metric

    own: Any = getattr(thing, "__name__", None) if name is None else name
    kinds: list[tuple[type, Any]] = [
        (Forecaster, FORECASTERS),
        (Estimator, OTHER_ESTIMATORS),
        (Mixer, MIXERS),
        (Loss, LOSSES),
        (Optimizer, OPTIMIZER_CLASSES),
        (Schedule, SCHEDULE_CLASSES),
    ]
    if isinstance(thing, Metric):
        METRICS.register(own, thing)
        return thing
    for base, registry in kinds:
        if isinstance(thing, type) and issubclass(thing, base):
            if issubclass(base, Estimator) and own != thing.__name__:
                raise ParameterError(
                    f"register: an estimator is known by the name of its class, "
                    f"{thing.__name__!r}, got name={own!r}; leave it out"
                )
            if inspect.isabstract(thing):
                lacking = ", ".join(sorted(getattr(thing, "__abstractmethods__", ())))
                raise ParameterError(
                    f"register: {thing.__name__} is abstract, it lacks {lacking}; register a "
                    f"subclass"
                )
            registry.register(own, thing)
            return thing
    raise ParameterError(
        f"register: a class must be a forecaster, another estimator, a mixer or a loss, an "
        f"optimizer or a schedule, or an object a Metric, got {thing!r}; derive it from the base "
        f"class of its kind"
    )


def load_plugin(path: str | os.PathLike[str]) -> ModuleType:
    """Import a file of your own, and make the forecasters, mixers and losses in it known by name.

    What the file registers itself, under a name of its choice, stays as it is. The file becomes
    a module with the name of the file, and its folder is a place to import from, as if Python
    had been started with it.

    Parameters
    ----------
    path : path
        A ``.py`` file. It is run: name none that you do not know.

    Returns
    -------
    module

    Raises
    ------
    ParameterError
        It is no such file, a module of that name is another one, what it defines cannot be
        registered, or nothing of the kind is in it.
    """
    file = Path(path).absolute()
    if file.suffix != ".py" or not file.is_file() or not file.stem.isidentifier():
        raise ParameterError(
            f"plugin: {str(path)!r} must be a Python file whose name can be imported, such as "
            f"my_model.py"
        )
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    try:
        module = importlib.import_module(file.stem)
    except (ImportError, SyntaxError, AttributeError, NameError, TypeError) as error:
        raise ParameterError(
            f"plugin: {str(path)!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if Path(getattr(module, "__file__", None) or "").resolve() != file.resolve():
        raise ParameterError(
            f"plugin: there is another module called {file.stem!r}; rename {str(path)!r}"
        )
    kinds = (Forecaster, Estimator, Mixer, Loss)
    own = [
        thing
        for name, thing in vars(module).items()
        if isinstance(thing, type)
        and issubclass(thing, kinds)
        and thing.__module__ == module.__name__
        and not name.startswith("_")
        and not inspect.isabstract(thing)
    ]
    if not own:
        raise ParameterError(
            f"plugin: {str(path)!r} defines no forecaster, other estimator, mixer or loss; derive "
            f"a class from one of their base classes"
        )
    modules_before = {
        thing
        for registry in (FORECASTERS, OTHER_ESTIMATORS, MIXERS, LOSSES)
        for thing in (registry[name] for name in registry)
    }
    for thing in own:
        if thing not in modules_before:
            register(thing)
    return module
