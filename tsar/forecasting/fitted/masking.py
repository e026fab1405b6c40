"""What moves a forecast, by masks that are learned through the network.

Dimension letters: W windows, T steps of context and horizon, F numbers of a step that can be
masked, H horizon, C variates.
"""

from collections.abc import Sequence
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
    n_shown : float array of shape (n_inputs, W, C)
        How many numbers of an input the mask shows.
    mae_increase : float array of shape (n_inputs, W, H, C)
        By how much the absolute error grows where these are hidden instead.
    """

    def __init__(
        self, model: FittedForecaster, learned_mask: LearnedMask, panel: Panel, truth: np.ndarray
    ) -> None:
        self.model, self.learned_mask, self.truth = model, learned_mask, truth
        self.inputs = _masked_inputs(model)
        self.n_shown = np.zeros((len(self.inputs), len(truth), truth.shape[2]))
        self.mae_increase = np.zeros((len(self.inputs), *truth.shape))
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
        scaling, history = windows.scaling, windows.inputs.target
        # The mean of the series, as where inputs are hidden one by one; of covariates it is 0.
        divisor = np.where(scaling.scale > 0, scaling.scale, 1.0)
        mean = np.nan_to_num((self._means[owners] - scaling.mean) / divisor)
        for variates, numbers in self.targets():
            packing = _Packing(windows.inputs, [self.inputs[number] for number in numbers])
            x, where = packing.pack(), packing.hideable()
            baseline = torch.zeros_like(x[:, :1])
            read = [number for number in numbers if self.inputs[number].role == "history"]
            baseline[:, 0, : len(read)] = torch.from_numpy(mean[:, read]).to(history)

            def forecast(
                x: Tensor, packing: _Packing = packing, variates: list[int] = variates
            ) -> Tensor:
                return windows.forecast(packing.unpack(x))[..., variates]

            with torch.no_grad():
                whole, hidden = forecast(x), forecast(torch.where(where, baseline, x))
            moved = (hidden - whole).square().mean(dim=1, keepdim=True).sqrt()
            # In units of what the inputs do, the price of a mask is a share of that. A forecast
            # that nothing moves stays as it is.
            moved = torch.where(moved > 0, moved, 1.0)

            def in_units(x: Tensor, forecast: Any = forecast, moved: Tensor = moved) -> Tensor:
                result: Tensor = forecast(x) / moved
                return result

            mask, _ = self.learned_mask.learn(in_units, x, baseline=baseline, where=where)
            truth = self.truth[places][..., variates]

            def errors(
                x: Tensor,
                forecast: Any = forecast,
                variates: list[int] = variates,
                truth: np.ndarray = truth,
            ) -> np.ndarray:
                with torch.no_grad():
                    scaled = forecast(x).cpu().double().numpy()
                restored = Scaling(scaling.mean[:, variates], scaling.scale[:, variates])
                return np.abs(self.model.in_range(restored.restore(scaled)) - truth)

            best = errors(x)
            for number, place in zip(numbers, packing.places, strict=True):
                without = x.clone()
                own = mask[..., place]
                without[..., place] += own * (baseline[..., place] - x[..., place])
                column = number if len(variates) > 1 else 0
                worse = (errors(without) - best)[..., column]
                self.n_shown[number, places, variates[column]] = own.sum(dim=(1, 2)).cpu().numpy()
                self.mae_increase[number, places, :, variates[column]] = worse

    def effects(self) -> list[Effect]:
        """Return what was noted, an effect for each input."""
        every = list(range(self.truth.shape[2]))
        effects = [
            Effect(one.role, one.label, every, shown[:, None], worse)
            for one, shown, worse in zip(self.inputs, self.n_shown, self.mae_increase, strict=True)
        ]
        if not self.model.forecasts_variates_alone:
            return effects
        # Of each variate, its own history.
        shown, worse = (
            np.stack([part[variate, ..., variate] for variate in every], axis=-1)
            for part in (self.n_shown, self.mae_increase)
        )
        return [Effect("history", None, every, shown[:, None], worse), *effects[len(every) :]]


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
