"""What moves a forecast, by masks that are learned through the network.

Dimension letters: W windows, T steps of context and horizon, F numbers of a step that can be
masked, H horizon, C variates.
"""

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
from tsar.training.learned_masks import LearnedMask

__all__ = ["Effect", "learned_effects"]


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
class _MaskedInput:
    """Numbers of a window that can be masked.

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


def _masked_inputs(model: FittedForecaster) -> list[_MaskedInput]:
    """Return what a fitted network reads that is a number, the variates first."""
    coding = model.learned_.coding
    inputs = [
        _MaskedInput("history", label, "target", [column])
        for column, label in enumerate(model.end_.variates)
    ]
    for role in ("past", "future", "static"):
        inputs += [
            _MaskedInput(role, column.name, role, [place])
            for place, column in enumerate(getattr(coding, role))
            # Nothing lies between two categories, so that none can be hidden in part.
            if not column.n_categories
        ]
    if coding.n_calendar:
        inputs.append(
            _MaskedInput("calendar", "calendar", "calendar", list(range(coding.n_calendar)))
        )
    return inputs


class _Packing:
    """Puts numbers of several inputs side by side, and back to where they were.

    Parameters
    ----------
    inputs : Inputs
        Of W windows.
    masked : sequence of _MaskedInput
        Those that take part. What is constant in time has its place at the first step.

    Attributes
    ----------
    places : list of slice
        The columns of each of them, in the order of ``masked``.
    """

    def __init__(self, inputs: Inputs, masked: Sequence[_MaskedInput]) -> None:
        self.inputs, self.masked = inputs, masked
        ends = np.cumsum([len(one.columns) for one in masked])
        self.places = [
            slice(int(end) - len(one.columns), int(end))
            for one, end in zip(masked, ends, strict=True)
        ]
        self.n_steps = max(self._part(one).shape[1] for one in masked)

    def _part(self, one: _MaskedInput) -> Tensor:
        tensor: Tensor = getattr(self.inputs, one.tensor)[..., one.columns]
        return tensor[:, None] if one.role == "static" else tensor

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        longer = [functional.pad(part, (0, 0, 0, self.n_steps - part.shape[1])) for part in parts]
        return torch.cat(longer, dim=2)

    def pack(self) -> Tensor:
        """Return the numbers, (W, T, F), 0 where an input has no more steps."""
        return self._joined([self._part(one) for one in self.masked])

    def hideable(self) -> Tensor:
        """Return where there is something that was measured, (W, T, F)."""
        observed = self.inputs.observed
        return self._joined(
            [
                torch.ones_like(self._part(one), dtype=torch.bool)
                if one.role != "history" or observed is None
                else observed[..., one.columns]
                for one in self.masked
            ]
        )

    def unpack(self, x: Tensor) -> Inputs:
        """Return the inputs with other numbers (W, T, F)."""
        tensors: dict[str, Tensor] = {}
        for one, place in zip(self.masked, self.places, strict=True):
            whole = tensors.get(one.tensor, getattr(self.inputs, one.tensor))
            part = x[:, 0, place] if one.role == "static" else x[:, : whole.shape[1], place]
            columns = torch.tensor(one.columns, device=x.device)
            tensors[one.tensor] = whole.index_copy(-1, columns, part)
        return replace(self.inputs, **tensors)


class _Masks:
    """Learns masks, and notes what they have of each input.

    Parameters
    ----------
    model : FittedForecaster
    learned_mask : LearnedMask
    panel : Panel
    truth : float array of shape (W, H, C)
        NaN where not observed.

    Attributes
    ----------
    n_shown, mae_increase : float arrays of shape (n_inputs, W, C)
        How many numbers of an input the mask shows, and by how much the mean absolute error
        grows where these are hidden instead.
    """

    def __init__(
        self, model: FittedForecaster, learned_mask: LearnedMask, panel: Panel, truth: np.ndarray
    ) -> None:
        self.model, self.learned_mask, self.truth = model, learned_mask, truth
        self.inputs = _masked_inputs(model)
        shape = (len(self.inputs), len(truth), truth.shape[2])
        self.n_shown, self.mae_increase = np.zeros(shape), np.zeros(shape)
        self._means = Scaling.measure(panel.values, panel.offsets, panel.offsets[1:]).mean

    def targets(self) -> list[tuple[list[int], list[int]]]:
        """Return which variates share a mask, and the numbers of the inputs that are masked.

        Variates share one where none of them reads what another does: the gradients of each
        then stay its own.
        """
        variates = list(range(self.model.end_.n_variates))
        every = list(range(len(self.inputs)))
        if not self.model.forecasts_variates_alone:
            return [([variate], every) for variate in variates]
        covariates = every[len(variates) :]
        if not covariates and self.learned_mask.replacement == "fixed":
            return [(variates, variates)]
        return [([variate], [variate, *covariates]) for variate in variates]

    def learn(self, places: np.ndarray, owners: np.ndarray, windows: OpenWindows) -> None:
        """Learn the masks of a batch, ``places`` among all windows, of the series ``owners``."""
        scaling = windows.scaling
        # The mean of the series, as where inputs are hidden one by one; of covariates it is 0.
        divisor = np.where(scaling.scale > 0, scaling.scale, 1.0)
        mean = np.nan_to_num((self._means[owners] - scaling.mean) / divisor)
        for variates, numbers in self.targets():
            packing = _Packing(windows.inputs, [self.inputs[number] for number in numbers])
            x, where = packing.pack(), packing.hideable()
            baseline = torch.zeros_like(x[:, :1])
            read = [number for number in numbers if self.inputs[number].role == "history"]
            baseline[:, 0, : len(read)] = torch.from_numpy(mean[:, read]).to(x)

            def forecast(
                x: Tensor, packing: _Packing = packing, variates: list[int] = variates
            ) -> Tensor:
                return windows.forecast(packing.unpack(x))[..., variates]

            mask = self._mask(forecast, x, baseline, where)
            with torch.no_grad():
                whole = self._errors(forecast(x), places, variates, scaling)
            for number, place in zip(numbers, packing.places, strict=True):
                own, without = mask[..., place], x.clone()
                without[..., place] += own * (baseline[..., place] - x[..., place])
                with torch.no_grad():
                    errors = self._errors(forecast(without), places, variates, scaling)
                column = number if len(variates) > 1 else 0
                at = number, places, variates[column]
                self.n_shown[at] = own.sum(dim=(1, 2)).cpu().numpy()
                self.mae_increase[at] = (errors - whole)[:, column]

    def _mask(
        self, forecast: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor, where: Tensor
    ) -> Tensor:
        """Learn masks (W, T, F), their price in units of what all that is masked does together.

        It is then a share, whatever the unit of the forecast, and however much of it is moved.
        """
        with torch.no_grad():
            hidden = forecast(torch.where(where, baseline, x))
            moved = (hidden - forecast(x)).square().mean(dim=1, keepdim=True).sqrt()
            # A forecast that nothing moves stays as it is.
            moved = torch.where(moved > 0, moved, 1.0)
        return self.learned_mask.learn(
            lambda x: forecast(x) / moved, x, baseline=baseline, where=where
        ).mask

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

    def effects(self) -> list[Effect]:
        """Return what was noted, an effect for each input."""
        every = list(range(self.truth.shape[2]))
        shown, worse = self.n_shown[:, :, None], self.mae_increase[:, :, None]
        labels = [(one.role, one.label) for one in self.inputs]
        if self.model.forecasts_variates_alone:
            # Of each variate, its own history.
            shown, worse = (
                np.concatenate(
                    [part[every, ..., every].transpose(1, 2, 0)[None], part[len(every) :]]
                )
                for part in (shown, worse)
            )
            labels = [("history", None), *labels[len(every) :]]
        return [
            Effect(*label, every, *numbers)
            for label, *numbers in zip(labels, shown, worse, strict=True)
        ]


def learned_effects(
    model: FittedForecaster,
    learned_mask: LearnedMask,
    panel: Panel,
    owners: np.ndarray,
    rows: np.ndarray,
    truth: np.ndarray,
    verbose: int,
) -> list[Effect]:
    """Return what each input does to forecasts, by masks that are learned.

    Parameters
    ----------
    model : FittedForecaster
        One that lets gradients through.
    learned_mask : LearnedMask
    panel : Panel
        As :meth:`FittedForecaster.forecast` takes it.
    owners, rows : int64 arrays of shape (W,)
        Series of each window, and the row at which its forecast begins.
    truth : float array of shape (W, H, C)
        NaN where not observed.
    verbose : int
        1 shows a progress bar of the windows.

    Returns
    -------
    list of Effect
    """
    masks = _Masks(model, learned_mask, panel, truth)
    with progress(shown=verbose >= 1, total=len(owners), desc=model.name, unit="window") as bar:
        for places, windows in model.opened(panel, owners, rows, truth.shape[1]):
            masks.learn(places, owners[places], windows)
            bar.update(len(places))
    return masks.effects()
