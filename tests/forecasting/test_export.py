"""Fitted networks are exported as they are, with gradients on or off."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import tsar
from tsar.checks import small_forecaster
from tsar.forecasting import AutoformerForecaster

# One block of each kind is traced as many are; the last layer of SpaceTime is another one.
ONE_BLOCK = {"n_layers": 1}
CLASSES = [
    *(
        tsar.AutoCon,
        tsar.CARD,
        tsar.ETSformer,
        tsar.Informer,
        tsar.LSTNet,
        tsar.TSM2,
        tsar.SMamba,
        tsar.SpaceTime,
        tsar.PatchTST,
        tsar.PITS,
        tsar.iTransformer,
        AutoformerForecaster,
    ),
    *(tsar.DLinear, tsar.NLinear, tsar.ARNet),
]


class OfTarget(nn.Module):
    """A network as a function of the histories alone."""

    def __init__(self, network, inputs):
        super().__init__()
        self.network, self.inputs = network, inputs

    def forward(self, target):
        return self.network(dataclasses.replace(self.inputs, target=target))


@pytest.mark.parametrize("n_variates", [1, 14])
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_fitted_networks_are_exported(cls, n_variates):
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=90, freq="h")
    series = pd.DataFrame(rng.normal(size=(90, n_variates)).cumsum(axis=0), index=index)
    series.columns = [f"v{number}" for number in range(n_variates)]
    has_blocks = "n_layers" in cls().get_params(deep=False) and cls is not tsar.SpaceTime
    blocks = ONE_BLOCK if has_blocks else {}
    model = small_forecaster(cls, max_steps=1, device="cpu", **blocks).fit(series)
    seen = []
    with model.module_.register_forward_pre_hook(lambda _, given: seen.append(given[0])):
        model.predict()
    target = seen[0].target.clone()
    wrapped = OfTarget(model.module_, seen[0]).eval()
    expected = wrapped(target)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            program = torch.export.export(wrapped, (target,))
            calls = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
            assert calls and all("autograd" not in call for call in calls)
            torch.testing.assert_close(program.module()(target), expected)
