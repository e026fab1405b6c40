"""Forecasters whose parameters of size and training a fit chooses where they are None."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from torch import Tensor

from tsar.data.panel import Panel
from tsar.estimator.trained import ScheduleName, TrainedEstimator
from tsar.exceptions import PersistenceError
from tsar.forecasting.chosen import (
    DataSize,
    choose_batch_size,
    choose_context_length,
    choose_max_steps,
)
from tsar.forecasting.network_insight import NetworkInsight
from tsar.params.constraints import Interval
from tsar.training.schedules import Schedule

__all__ = ["DataDrivenForecaster"]

Positive = Annotated[int, Interval(1)]

# Of a training whose length is given.
GIVEN_LENGTH: Mapping[str, Any] = {
    "batch_size": 32,
    "learning_rate": 1e-3,
    "learning_rate_schedule": "constant",
    "patience": 5,
    "early_stopping": True,
}


@dataclass(kw_only=True, eq=False, repr=False)
class DataDrivenForecaster(TrainedEstimator, NetworkInsight):
    """A forecaster around a network, whose fit looks at the data where a parameter is None.

    Parameters
    ----------
    context_length : int or None, default None
        Steps of history that a forecast reads. None: two of the longest cycle of the calendar
        for which the series have room, and at least two horizons;
        :mod:`tsar.forecasting.chosen` has the rules.
    max_epochs : int or None, default None
        Longest training, in passes over all examples.
    max_steps : int or None, default None
        Longest training in steps, where it is shorter. None with ``max_epochs=None``: 100 passes
        over the windows, at least 400 and at most 2,000 steps.
    batch_size : int or None, default None
        Windows per step. None: 32, and where the length of the training is chosen so many that
        128 numbers are forecast at every step of the horizon, all variates counted.
    learning_rate : float or None, default None
        Largest learning rate of the schedule. None: 1e-3, and what suits the network where the
        length of the training is chosen.
    learning_rate_schedule : str, Schedule or None, default None
        "constant", "halving" (halved after every epoch from the second on), "type3"
        (a tenth less after every epoch from the fourth on), "cosine" or "one_cycle", or an
        object of :mod:`tsar.training.schedules` such as
        ``Cosine(lowest=0.1, warmup_steps=100)``. None: "one_cycle" where the length of the
        training is chosen, otherwise "constant".
    early_stopping : bool, int, float or None, default None
        Hold out the end of every series that is long enough, stop when it is no longer
        forecast better, and keep the best weights. A number says how much is held out: rows,
        or a share of the rows inside (0, 1); True is 0.2, and at least one horizon. None: True,
        but where the length of the training is chosen and there are 300 windows and more that
        share no row, all variates counted: so many are learned from as a whole.
    patience : int or None, default None
        Validations (one per epoch) without improvement before stopping. None: 5, and to the end
        of the schedule where the length of the training is chosen.

    Attributes
    ----------
    chosen_ : dict
        What the fit chose from the data, by parameter: those that are None.
    fitted_parameters_ : dict
        The parameters that ``fit`` was called with, and in the place of None what it chose.
    context_length_, max_epochs_, max_steps_, batch_size_, learning_rate_, \
learning_rate_schedule_, early_stopping_, patience_ : object
        The values that the fit used, given or chosen.
    """

    parameter_group: ClassVar[str] = "training"
    other_groups: ClassVar[Mapping[str, str]] = {"context_length": "model"}

    context_length: Positive | None = None
    # None is one value more than in the other families.
    max_epochs: Positive | None = None  # type: ignore[assignment]
    max_steps: Positive | None = None
    batch_size: Positive | None = None  # type: ignore[assignment]
    learning_rate: Annotated[float, Interval(0, open_low=True)] | None = None  # type: ignore[assignment]
    learning_rate_schedule: ScheduleName | Schedule | None = None  # type: ignore[assignment]
    early_stopping: bool | Positive | Annotated[float, Interval(0, 1, True, True)] | None = None  # type: ignore[assignment]
    patience: Positive | None = None  # type: ignore[assignment]

    # The rate of a training whose length is chosen.
    _untuned_rate: ClassVar[float] = 1e-3
    # The parameters that a fit may choose, where they are None.
    _choosable: ClassVar[tuple[str, ...]] = (
        *("context_length", "max_epochs", "max_steps", "batch_size"),
        *("learning_rate", "learning_rate_schedule", "early_stopping", "patience"),
    )

    @property
    def context(self) -> int:
        """The steps of history that a forecast reads, once they are given or chosen."""
        assert self.context_length is not None, "a fit chooses it"
        return int(self.context_length)

    def _check_training_length(self) -> None:
        """Any length will do: what is not given is chosen."""

    @property
    def _shortest_context(self) -> int:
        """The shortest context that the other parameters allow."""
        return 1

    def choose(self, panel: Panel) -> dict[str, Any]:
        """Return what a fit on a panel uses in the place of the parameters that are None.

        Parameters
        ----------
        panel : Panel

        Returns
        -------
        dict
            By parameter, those that are None and are to be chosen.
        """
        size = DataSize.of(panel, int(self.horizon))
        chosen: dict[str, Any] = {}
        context = self.context_length
        if context is None:
            context = chosen["context_length"] = choose_context_length(size, self._shortest_context)
        training = GIVEN_LENGTH
        if self.max_epochs is None and self.max_steps is None:
            batch_size = self.batch_size or choose_batch_size(size, context)
            n_steps = choose_max_steps(size, context, batch_size)
            chosen["max_steps"] = n_steps
            # The best weights are those of some epoch; the schedule runs to its end.
            training = {
                "batch_size": batch_size,
                "learning_rate": self._untuned_rate,
                "learning_rate_schedule": "one_cycle",
                "patience": n_steps,
                "early_stopping": not size.is_large(context),
            }
        chosen |= {name: value for name, value in training.items() if getattr(self, name) is None}
        return chosen

    @contextlib.contextmanager
    def settled(self, panel: Panel, go_on: bool = False) -> Iterator[dict[str, Any]]:
        """Let the parameters that are None have values, inside of a ``with`` block.

        Parameters
        ----------
        panel : Panel
            What they are chosen from.
        go_on : bool, default False
            Whether to keep to what the fit before chose.

        Yields
        ------
        dict
            What was chosen.

        Raises
        ------
        ParameterError
            What was chosen and what was given do not go together.
        """
        chosen = self.choose(panel)
        if go_on and self.__sklearn_is_fitted__():
            chosen |= {name: self.chosen_[name] for name in chosen.keys() & self.chosen_.keys()}
        self.__dict__.update(chosen)
        try:
            self._check_consistency()
            yield chosen
        finally:
            self.__dict__.update(dict.fromkeys(chosen))

    def fit_panel(self, panel: Panel, go_on: bool) -> Self:
        with self.settled(panel, go_on) as chosen:
            super().fit_panel(panel, go_on)
            self._remember_choices(chosen)
        return self

    def _remember_choices(self, names: Collection[str]) -> None:
        """Keep what was used, and which of it was chosen."""
        used = self.fitted_parameters_
        self.chosen_ = {name: used[name] for name in self._choosable if name in names}
        for name in self._choosable:
            setattr(self, f"{name}_", used[name])

    # ------------------------------------------------------------ persistence

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record, tensors = super().learned_state()
        record["fitted"]["chosen"] = list(self.chosen_)
        return record, tensors

    def restore_choices(self, names: Collection[str]) -> None:
        """Know again, after loading, which of the parameters were chosen.

        Parameters
        ----------
        names : collection of str

        Raises
        ------
        PersistenceError
            One of them is not chosen by any fit.
        """
        others = sorted(set(names) - set(self._choosable))
        if others:
            raise PersistenceError(
                f"load: what a fit of {self.name} chose must be among {list(self._choosable)}, "
                f"got {others}; the saved model was changed"
            )
        self._remember_choices(names)
        self.__dict__.update(dict.fromkeys(names))
