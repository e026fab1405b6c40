"""How errors fall with size."""

from typing import Any

import numpy as np

from tsar.evaluation.scaling import ScalingLaw
from tsar.exceptions import ParameterError
from tsar.plot.axes import axes_or_new
from tsar.plot.drawing import OBSERVED, add_legend

__all__ = ["scaling_law"]

POINTS = 100


def scaling_law(law: ScalingLaw, *, confidence: float = 0.95, ax: Any = None) -> Any:
    """Draw runs and the power law fitted to them, both on logarithmic scales.

    Parameters
    ----------
    law : ScalingLaw
        What :func:`tsar.evaluation.scaling_law` returned.
    confidence : float, default 0.95
        Of the band around the law, inside (0, 1).
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError
        It is no such law, or the confidence is no share.
    """
    owner = "plot.scaling_law"
    if not isinstance(law, ScalingLaw):
        raise ParameterError(
            f"{owner}: law must be what tsar.evaluation.scaling_law returned, got "
            f"{type(law).__name__}"
        )
    at = np.geomspace(law.sizes.min(), law.sizes.max(), POINTS)
    low, high = law.predict_interval(at, confidence=confidence)
    ax = axes_or_new(owner, ax)
    ax.plot(law.sizes, law.losses, "o", markersize=4, color=OBSERVED, label="runs")
    ax.plot(at, law.predict(at), color="C0", label=f"exponent {law.exponent:.3g}")
    ax.fill_between(at, low, high, color="C0", alpha=0.2, linewidth=0, label=f"{confidence:.0%}")
    if law.floor > 0:
        ax.axhline(law.floor, color="C1", linestyle="--", label=f"floor {law.floor:.3g}")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("size")
    ax.set_ylabel("loss")
    add_legend(ax)
    return ax
