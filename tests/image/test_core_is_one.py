"""The core is one: what draws, attends and trains stands in it, and what is in it serves all."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import tsar
from tsar.checks.images import Images, small_image_model
from tsar.core import generation
from tsar.core.mixers import MIXERS, Mixer
from tsar.image import BlockFlow, FlowAR, TokenAR, drawn
from tsar.language import LanguageModel, MaskedDiffusionLM, masked_text

PACKAGE = Path(tsar.__file__).parent
OF_THE_CORE = {"softmax", "multinomial", "scaled_dot_product_attention", "SGD"}


def _called(path):
    """Return the last names of all that a module calls."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            function = node.func
            yield (
                function.attr
                if isinstance(function, ast.Attribute)
                else getattr(function, "id", "")
            )


@pytest.mark.parametrize("family", ["forecasting", "language", "image"])
def test_families_neither_draw_nor_attend_nor_step_by_themselves(family):
    for path in (PACKAGE / family).rglob("*.py"):
        own = OF_THE_CORE & set(_called(path))
        assert not own, f"{path} calls {sorted(own)}"
        steps = [name for name in ("optimizer.step(", ".backward()") if name in path.read_text()]
        assert not steps, f"{path}: {steps}"


def _runs(path, length=6):
    """Return the runs of so many lines in the bodies of functions, docstrings aside."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = [line.strip() for part in body for line in ast.unparse(part).splitlines()]
            for begin in range(len(lines) - length + 1):
                yield tuple(lines[begin : begin + length]), f"{path.name}: {node.name}"


def test_no_six_lines_stand_in_two_families():
    places = {}
    for family in ("forecasting", "language", "image"):
        for path in (PACKAGE / family).rglob("*.py"):
            for run, place in _runs(path):
                places.setdefault(run, {}).setdefault(family, place)
    assert len(places) > 1000, "it reads the code"
    twice = [list(held.values()) for held in places.values() if len(held) > 1]
    assert not twice, f"move what these share to where both can reach it: {twice}"


class Fading(Mixer):
    """The mean of the tokens so far, each weighing half of the next, through a linear map."""

    causal = True

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.map = nn.Linear(d_model, d_model)

    def forward(self, x, *, mask=None, memory=None):
        return self.extend(x, self.init_state(len(x)))[0]

    def init_state(self, batch):
        return (self.map.weight.new_zeros(batch, self.map.weight.shape[1]),)

    def extend(self, x, state):
        (held,), parts = state, []
        for token in x.unbind(1):
            held = (held + token) / 2
            parts.append(held)
        return self.map(torch.stack(parts, dim=1)), (held,)


@pytest.fixture
def fading():
    tsar.register(Fading, "fading")
    yield "fading"
    MIXERS.unregister("fading")


def test_a_mixer_of_ones_own_serves_three_families(fading):
    """It trains in each, and what each says piece by piece is what it says at once."""
    sizes = {"d_model": 8, "n_layers": 1, "d_ff": 8, "random_state": 0, "device": "cpu"}
    hours = pd.date_range("2024-01-01", periods=200, freq="h")
    wide = pd.DataFrame({"y": np.sin(np.arange(200) / 4)}, hours)
    forecaster = tsar.PatchTST(
        **sizes, context_length=32, horizon=4, n_heads=2, mixer=fading, max_steps=30
    )
    losses = forecaster.fit(wide).history_["train_loss"]
    assert losses[-1] < losses[0]
    text = LanguageModel(**sizes, mixer=fading, context_length=16, max_steps=60, batch_size=4)
    text.set_params(learning_rate=0.03, learning_rate_schedule="constant")
    text.fit("one two three " * 40)
    assert text.perplexity("one two three ") < 30
    ids = torch.tensor([text.encode("one two")])
    with torch.no_grad():
        whole = text.module_(ids)
        state, parts = text.module_.init_state(1), []
        for place in range(ids.shape[1]):
            part, state = text.module_.extend(ids[:, place : place + 1], state)
            parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    images = Images().data()
    model = small_image_model(TokenAR, tokenizer="pixels", n_levels=2, mixer=fading, max_steps=60)
    model.fit(images.round())
    assert model.bits_per_dim(images.round()) < 1.0
    images = model.sample(2, random_state=0)
    losses = model.token_losses(images)
    network = model.module_
    ids = model.tokenizer_.ids(torch.from_numpy(images)[:, None] * 2 - 1)
    with torch.no_grad():
        x, memory = network.first(2)
        state = network.decoder.init_state(network.labels(torch.full((2,), network.labels.null)))
        for place in range(network.n_tokens):
            z, state = network.decoder.extend(x, state)
            loss = network.head.loss(z, ids[:, place : place + 1])
            np.testing.assert_allclose(loss[:, 0], losses[:, place], atol=1e-4)
            if place + 1 < network.n_tokens:
                x, memory = network.after(place, ids[:, place : place + 1], memory)


def test_all_that_is_drawn_goes_through_the_loops_of_the_core(monkeypatch):
    """Without the two loops nothing is drawn."""
    calls = []

    def counted(name, function):
        def call(*arguments, **keywords):
            calls.append(name)
            return function(*arguments, **keywords)

        return call

    levels = counted("levels", generation.generate_levels)
    monkeypatch.setattr(generation, "generate_levels", levels)
    monkeypatch.setattr(drawn, "generate_levels", levels)
    sizes = {"d_model": 8, "n_layers": 1, "d_ff": 8, "n_heads": 2, "random_state": 0}
    options = {**sizes, "device": "cpu", "context_length": 16, "max_steps": 2, "batch_size": 2}
    LanguageModel(**options).fit("one two three " * 9).generate("one", 5, random_state=0)
    assert calls == ["levels"]
    small_image_model(TokenAR, tokenizer="pixels", n_levels=2).fit(Images().data().round()).sample(
        2, random_state=0
    )
    assert calls == ["levels", "levels"]
    for cls in (FlowAR, BlockFlow):
        model = small_image_model(cls).fit(Images().data())
        model.sample(2, random_state=0)
        mask = np.eye(8, dtype=bool)
        model.inpaint(Images().data(), mask, random_state=0)
    assert calls == 6 * ["levels"]
    model = MaskedDiffusionLM(**options).fit("one two three " * 9)
    monkeypatch.setattr(masked_text, "unmask", counted("unmask", masked_text.unmask))
    model.generate("one", 5, random_state=0)
    assert "unmask" in calls
