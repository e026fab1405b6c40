"""Constraints of parameters: what passes, and the one form of the message."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pytest
from sklearn.base import BaseEstimator

import tsar
from tsar.exceptions import ParameterError
from tsar.params.constraints import Interval, check_choice, check_parameters, did_you_mean


@dataclass(kw_only=True, eq=False, repr=False)
class Base(BaseEstimator):
    size: Annotated[int, Interval(1)] = 4
    share: Annotated[float, Interval(0, 1, open_high=True)] = 0.5


@dataclass(kw_only=True, eq=False, repr=False)
class Model(Base):
    norm: Literal["layer", "batch"] = "batch"
    limit: Annotated[int, Interval(1)] | None = None
    levels: Sequence[Annotated[float, Interval(0, 1, open_low=True, open_high=True)]] = (0.5,)
    flag: bool = False


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"size": np.int64(3), "share": np.float32(0.25)},
        {"share": 0},
        {"limit": 7},
        {"levels": [0.1, 0.9]},
        {"levels": (0.1, 0.9)},
        {"norm": "layer", "flag": True},
    ],
)
def test_admitted(parameters):
    check_parameters(Model(**parameters))


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"size": 0}, "Model: size must be an integer in [1, inf), got 0"),
        ({"size": 2.0}, "Model: size must be an integer in [1, inf), got 2.0"),
        (
            {"size": np.timedelta64(3)},
            f"Model: size must be an integer in [1, inf), got {np.timedelta64(3)!r}",
        ),
        ({"size": True}, "Model: size must be an integer in [1, inf), got True"),
        ({"share": 1}, "Model: share must be a number in [0, 1), got 1"),
        ({"share": float("nan")}, "Model: share must be a number in [0, 1), got nan"),
        ({"limit": "x"}, "Model: limit must be an integer in [1, inf) or None, got 'x'"),
        (
            {"norm": "bacth"},
            "Model: norm must be one of 'layer', 'batch', got 'bacth' (did you mean 'batch'?)",
        ),
        (
            {"levels": [0.5, 1.0]},
            "Model: levels must be a list or tuple, each a number in (0, 1), got [0.5, 1.0]",
        ),
        (
            {"levels": {0.5}},
            "Model: levels must be a list or tuple, each a number in (0, 1), got {0.5}",
        ),
        ({"flag": 1}, "Model: flag must be a boolean, got 1"),
    ],
)
def test_rejected(parameters, message):
    with pytest.raises(ParameterError) as raised:
        check_parameters(Model(**parameters))
    assert str(raised.value) == message


def test_infinity_is_never_reached():
    assert float("inf") not in Interval(0)
    assert 1e308 in Interval(0)
    assert str(Interval(0, 1, open_low=True)) == "(0, 1]"


def test_choices_come_with_a_suggestion():
    check_choice("tsar", "model", "PatchTST", ["PatchTST", "NLinear"])
    with pytest.raises(ParameterError, match=r"did you mean 'PatchTST'\?"):
        check_choice("tsar", "model", "PatchTTS", ["PatchTST", "NLinear"])
    assert did_you_mean("zzz", ["PatchTST"]) == ""
    # Upper and lower case are no difference worth a refusal without a hint.
    assert did_you_mean("patchtst", ["NLinear", "PatchTST"]) == " (did you mean 'PatchTST'?)"
    assert did_you_mean("NAIVE", ["Naive", "SeasonalNaive"]) == " (did you mean 'Naive'?)"


def test_a_parameter_that_is_no_field_is_named():
    class Deeper(tsar.Naive):
        """With an argument that only its constructor knows."""

        def __init__(self, depth=1, horizon=24):
            super().__init__(horizon=horizon)
            self.depth = depth

    with pytest.raises(ParameterError, match=r"^Deeper: depth must be a field .* depth: int = 1"):
        Deeper(depth=3).check()


def test_what_may_be_anything_is_not_described():
    with pytest.raises(ParameterError, match=r"groups must be a list or tuple, got 's'$"):
        tsar.Reconciled(groups="s").check()
