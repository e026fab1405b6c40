"""What moves a forecast, by gradients through the network: what the ways to say so share.

Dimension letters: W windows, T steps of context and horizon, F numbers of a step that can be
moved, P parts of the inputs, H horizon, C variates, n of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tsar.data.panel import Panel
from tsar.data.scaling import Scaling
from tsar.data.windows import Inputs
from tsar.forecasting.fitted.contract import FittedForecaster, OpenWindows
from tsar.progress import progress

__all__ = ["Attributed", "Attribution", "Effect", "MovedWindows"]


class Effect(NamedTuple):
    """What an input does to the forecasts of W windows.

    Parameters
    ----------
    role : {"history", "past", "future", "static", "calendar"}
    label : label
        Without one it is the histories of all variates, each of which moves only itself.
    variates : list of int
        Those that may be moved.
    importance, mae_increase : float arrays of shape (W, any, C)
        NaN where there is nothing to say.
    """

    role: str
    label: Any
    variates: list[int]
    importance: np.ndarray
    mae_increase: np.ndarray


@dataclass(frozen=True)
class _Part:
    """Numbers of a window that a forecast is attributed to.

    Parameters
    ----------
    role : {"history", "past", "future", "static", "calendar"}
    label : label
        The column of the frame; that of the calendar is its role.
    tensor : str
        The field of ``Inputs`` that has them.
    columns : list of int
        Where in its last axis they are.
    """

    role: str
    label: Any
    tensor: str
    columns: list[int]


def _parts(model: FittedForecaster) -> list[_Part]:
    """Return what a fitted network reads that is a number, the variates first."""
    coding = model.learned_.coding
    inputs = [
        _Part("history", label, "target", [column])
        for column, label in enumerate(model.end_.variates)
    ]
    for role in ("past", "future", "static"):
        inputs += [
            _Part(role, column.name, role, [place])
            for place, column in enumerate(getattr(coding, role))
            # Nothing lies between two categories, so that none can be moved in part.
            if not column.n_categories
        ]
    if coding.n_calendar:
        inputs.append(_Part("calendar", "calendar", "calendar", list(range(coding.n_calendar))))
    return inputs


class _Packing:
    """Puts numbers of several inputs side by side, and back to where they were.

    Parameters
    ----------
    inputs : Inputs
        Of W windows.
    parts : sequence of _Part
        Those that take part. What is constant in time has its place at the first step.

    Attributes
    ----------
    places : list of slice
        The columns of each of them, in the order of ``parts``.
    """

    def __init__(self, inputs: Inputs, parts: Sequence[_Part]) -> None:
        self.inputs, self.parts = inputs, parts
        ends = np.cumsum([len(one.columns) for one in parts])
        self.places = [
            slice(int(end) - len(one.columns), int(end))
            for one, end in zip(parts, ends, strict=True)
        ]
        self.n_steps = max(self._own(one).shape[1] for one in parts)

    def _own(self, one: _Part) -> Tensor:
        tensor: Tensor = getattr(self.inputs, one.tensor)[..., one.columns]
        return tensor[:, None] if one.role == "static" else tensor

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        longer = [functional.pad(part, (0, 0, 0, self.n_steps - part.shape[1])) for part in parts]
        return torch.cat(longer, dim=2)

    def pack(self) -> Tensor:
        """Return the numbers, (W, T, F), 0 where an input has no more steps."""
        return self._joined([self._own(one) for one in self.parts])

    def hideable(self) -> Tensor:
        """Return where there is something that was measured, (W, T, F)."""
        observed = self.inputs.observed
        return self._joined(
            [
                torch.ones_like(self._own(one), dtype=torch.bool)
                if one.role != "history" or observed is None
                else observed[..., one.columns]
                for one in self.parts
            ]
        )

    def unpack(self, x: Tensor) -> Inputs:
        """Return the inputs with other numbers (W, T, F)."""
        tensors: dict[str, Tensor] = {}
        for one, place in zip(self.parts, self.places, strict=True):
            whole = tensors.get(one.tensor, getattr(self.inputs, one.tensor))
            part = x[:, 0, place] if one.role == "static" else x[:, : whole.shape[1], place]
            columns = torch.tensor(one.columns, device=x.device)
            tensors[one.tensor] = whole.index_copy(-1, columns, part)
        return replace(self.inputs, **tensors)


@dataclass(frozen=True)
class MovedWindows:
    """Windows that a forecast of some variates is attributed to the numbers of.

    Parameters
    ----------
    forecast : callable
        Maps windows (W, T, F) to scaled forecasts (W, H, n), with gradients.
    x : Tensor of shape (W, T, F)
    baseline : Tensor of shape (W, T, F)
        What stands in for each number.
    where : bool Tensor of shape (W, T, F)
        What was measured, and can be moved.
    places : list of slice
        The columns of each of the P parts.
    unit : Tensor of shape (W, n)
        What a scaled forecast of 1 is in the units of the data.
    """

    forecast: Callable[[Tensor], Tensor]
    x: Tensor
    baseline: Tensor
    where: Tensor
    places: list[slice]
    unit: Tensor


class Attributed(NamedTuple):
    """What a forecast was attributed to.

    Parameters
    ----------
    importance : Tensor of shape (W, P)
    share : Tensor of shape (W, T, F)
        In [0, 1]: how much of each number counts, and is hidden to see what it is worth.
    """

    importance: Tensor
    share: Tensor


class Attribution(ABC):
    """Attributes forecasts to the numbers that a network reads.

    A subclass gives :meth:`attribute`.

    Parameters
    ----------
    model : FittedForecaster
        One that lets gradients through.
    panel : Panel
        As :meth:`FittedForecaster.forecast` takes it.
    owners, rows : int64 arrays of shape (W,)
        Series of each window, and the row at which its forecast begins.
    truth : float array of shape (W, H, C)
        NaN where not observed.
    """

    # Whether variates that do not read each other can be looked at in one pass.
    takes_variates_together: bool = True

    def __init__(
        self,
        model: FittedForecaster,
        panel: Panel,
        owners: np.ndarray,
        rows: np.ndarray,
        truth: np.ndarray,
    ) -> None:
        self.model, self.panel, self.truth = model, panel, truth
        self.owners, self.rows = owners, rows
        self.parts = _parts(model)
        shape = (len(self.parts), len(truth), truth.shape[2])
        self.importance, self.mae_increase = np.zeros(shape), np.zeros(shape)
        self._means = Scaling.measure(panel.values, panel.offsets, panel.offsets[1:]).mean

    @abstractmethod
    def attribute(self, windows: MovedWindows) -> Attributed:
        """Say what the forecasts of windows are due to.

        There is one variate, or there is one for each part, which reads that part alone.
        """

    def effects(self, verbose: int) -> list[Effect]:
        """Return what each input does to forecasts.

        Parameters
        ----------
        verbose : int
            1 shows a progress bar of the windows.
        """
        total, name = len(self.owners), self.model.name
        with progress(shown=verbose >= 1, total=total, desc=name, unit="window") as bar:
            for places, windows in self.model.opened(
                self.panel, self.owners, self.rows, self.truth.shape[1]
            ):
                self._note(places, windows)
                bar.update(len(places))
        return self._as_effects()

    def _targets(self) -> list[tuple[list[int], list[int]]]:
        """Return which variates are looked at together, and the numbers of the parts.

        Variates are where none of them reads what another does: the gradients of each then
        stay its own.
        """
        variates = list(range(self.model.end_.n_variates))
        every = list(range(len(self.parts)))
        if not self.model.forecasts_variates_alone:
            return [([variate], every) for variate in variates]
        covariates = every[len(variates) :]
        if not covariates and self.takes_variates_together:
            return [(variates, variates)]
        return [([variate], [variate, *covariates]) for variate in variates]

    def _note(self, places: np.ndarray, windows: OpenWindows) -> None:
        """Note what the forecasts of a batch are due to, ``places`` among all windows."""
        scaling = windows.scaling
        # The mean of the series, as where inputs are hidden one by one; of covariates it is 0.
        divisor = np.where(scaling.scale > 0, scaling.scale, 1.0)
        mean = np.nan_to_num((self._means[self.owners[places]] - scaling.mean) / divisor)
        for variates, numbers in self._targets():
            packing = _Packing(windows.inputs, [self.parts[number] for number in numbers])
            x = packing.pack()
            baseline = torch.zeros_like(x)
            read = [number for number in numbers if self.parts[number].role == "history"]
            baseline[..., : len(read)] = torch.from_numpy(mean[:, None, read]).to(x)

            def forecast(
                x: Tensor, packing: _Packing = packing, variates: list[int] = variates
            ) -> Tensor:
                return windows.forecast(packing.unpack(x))[..., variates]

            moved = MovedWindows(
                forecast,
                x,
                baseline,
                packing.hideable(),
                packing.places,
                torch.from_numpy(divisor[:, variates]).to(x),
            )
            importance, share = self.attribute(moved)
            with torch.no_grad():
                whole = self._errors(forecast(x), places, variates, scaling)
            for place, (number, columns) in enumerate(zip(numbers, packing.places, strict=True)):
                without = x.clone()
                without[..., columns] += (share * (baseline - x))[..., columns]
                with torch.no_grad():
                    errors = self._errors(forecast(without), places, variates, scaling)
                column = number if len(variates) > 1 else 0
                at = number, places, variates[column]
                self.importance[at] = importance[:, place].cpu().numpy()
                self.mae_increase[at] = (errors - whole)[:, column]

    def _errors(
        self, forecast: Tensor, places: np.ndarray, variates: list[int], scaling: Scaling
    ) -> np.ndarray:
        """Return the mean absolute errors of scaled forecasts, (W, n), NaN without any truth."""
        own = Scaling(scaling.mean[:, variates], scaling.scale[:, variates])
        restored = self.model.in_range(own.restore(forecast.cpu().double().numpy()))
        errors = np.abs(restored - self.truth[places][..., variates])
        seen = ~np.isnan(errors)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(seen, errors, 0.0).sum(axis=1) / seen.sum(axis=1))

    def _as_effects(self) -> list[Effect]:
        """Return what was noted, an effect for each input."""
        every = list(range(self.truth.shape[2]))
        importance, worse = self.importance[:, :, None], self.mae_increase[:, :, None]
        labels = [(one.role, one.label) for one in self.parts]
        if self.model.forecasts_variates_alone:
            # Of each variate, its own history.
            importance, worse = (
                np.concatenate(
                    [part[every, ..., every].transpose(1, 2, 0)[None], part[len(every) :]]
                )
                for part in (importance, worse)
            )
            labels = [("history", None), *labels[len(every) :]]
        return [
            Effect(*label, every, *numbers)
            for label, *numbers in zip(labels, importance, worse, strict=True)
        ]
