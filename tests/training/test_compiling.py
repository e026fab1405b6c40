import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import tsar
from tsar.exceptions import ParameterError

needs_compiler = pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("g++") is None, reason="needs a compiler of C++"
)
# Torch warns of its own parts while it compiles.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch", "ignore::FutureWarning:torch"
)
SIZES = {
    # What its contrast draws is no dropout, and is drawn from elsewhere when it is compiled.
    "AutoCon": {"d_model": 4, "d_ff": 4, "n_layers": 1, "contrast_weight": 0.0},
    "AutoformerForecaster": {"d_model": 8, "d_ff": 8, "n_layers": 1, "n_decoder_layers": 1},
    "CARD": {"d_model": 8, "d_ff": 8, "n_layers": 1},
    "Chimera": {"d_model": 8, "n_layers": 1, "patch_length": 8, "d_state": 2},
    "DGM2": {"d_model": 8, "n_patterns": 4},
    "NLinear": {},
    "Informer": {"d_model": 8, "d_ff": 8, "n_decoder_layers": 1, "factor": 20.0},
    "LSTNet": {"d_model": 8, "season_length": 4},
    "PITS": {"d_model": 8, "patch_length": 8},
    "PatchTST": {"d_model": 8, "d_ff": 8, "n_heads": 2, "n_layers": 1},
    "SMamba": {"d_model": 8, "d_ff": 8, "n_layers": 1},
    "TimeMoE": {"d_model": 8, "d_ff": 8, "n_heads": 2, "n_layers": 1, "horizon_lengths": (1, 6)},
    "TSM2": {"d_model": 8, "n_layers": 1},
    "iTransformer": {"d_model": 8, "d_ff": 8, "n_heads": 2, "n_layers": 1},
}


@pytest.fixture(scope="module")
def frame():
    values = np.random.default_rng(0).normal(size=(150, 2)).cumsum(0)
    return pd.DataFrame(values, pd.date_range("2020", periods=150, freq="h"), ["a", "b"])


def _fitted(name, frame, **options):
    common = {"context_length": 24, "horizon": 6, "max_steps": 4, "random_state": 0}
    return getattr(tsar, name)(**{"device": "cpu", **common, **SIZES[name], **options}).fit(frame)


@needs_compiler
def test_a_compiled_training_gives_the_numbers_of_one_that_is_not(frame, monkeypatch):
    # Helpers that compile beside each other would take longer to start.
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    plain, compiled = (_fitted("NLinear", frame, compile=how) for how in (False, True))
    np.testing.assert_allclose(plain.predict(), compiled.predict(), rtol=1e-5, atol=1e-5)
    assert plain.history_["val_loss"] == pytest.approx(compiled.history_["val_loss"], rel=1e-5)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SIZES))
def test_compiled_trainings_of_networks(name, frame):
    dropout = {} if name in ("NLinear", "TimeMoE") else {"dropout": 0.0}
    plain, compiled = (_fitted(name, frame, compile=how, **dropout) for how in (False, True))
    np.testing.assert_allclose(plain.predict(), compiled.predict(), rtol=1e-3, atol=1e-3)
    if dropout:
        # What is dropped is drawn from the seed of the run, and from nothing else.
        before = torch.default_generator.get_state()
        first = _fitted(name, frame, compile=True, dropout=0.5)
        assert torch.equal(before, torch.default_generator.get_state())
        torch.rand(3)
        again = _fitted(name, frame, compile=True, dropout=0.5)
        assert again.history_["train_loss"] == first.history_["train_loss"]
        other = _fitted(name, frame, compile=True, dropout=0.5, random_state=1)
        assert other.history_["train_loss"] != first.history_["train_loss"]


@needs_compiler
@pytest.mark.slow
def test_compiled_noise_repeats(frame):
    """It is drawn from elsewhere than without a compiler, but from the seed of the run."""
    options = {"d_model": 8, "d_state": 4, "n_layers": 1, "n_steps": 5, "n_samples": 4}
    sizes = {"context_length": 24, "horizon": 6, "max_steps": 4, "device": "cpu", "compile": True}
    first, again, other = (
        tsar.TSDiff(**sizes, **options, random_state=seed).fit(frame) for seed in (0, 0, 1)
    )
    assert again.history_["train_loss"] == first.history_["train_loss"]
    assert other.history_["train_loss"] != first.history_["train_loss"]


@needs_compiler
@pytest.mark.gpu
def test_compiled_trainings_of_an_accelerator_draw_from_their_own_seed(frame):
    options = {"compile": True, "dropout": 0.5, "device": "cuda"}
    before = torch.cuda.get_rng_state()
    first = _fitted("PatchTST", frame, **options)
    assert torch.equal(before, torch.cuda.get_rng_state())
    torch.rand(3, device="cuda")
    again = _fitted("PatchTST", frame, **options)
    assert again.history_["train_loss"] == first.history_["train_loss"]


def test_where_nothing_compiles_it_is_refused_before_the_training(frame, monkeypatch):
    def broken(function):
        def call(*arguments):
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found\nmore")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    message = r"NLinear: compile=True, but .* for cpu here: InvalidCxxCompiler: .* found; install"
    with pytest.raises(ParameterError, match=message):
        _fitted("NLinear", frame, compile=True)


def test_forecasts_are_not_compiled(frame, monkeypatch):
    """They do not depend on their company, which a compiler does not know of."""
    model = _fitted("NLinear", frame).set_params(compile=True)
    monkeypatch.setattr(torch, "compile", None)
    assert model.predict().shape == (6, 2)
