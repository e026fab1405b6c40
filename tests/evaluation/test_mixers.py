"""What mixers cost: states counted by hand, rows for all that is asked for, and what is learned."""

import math

import numpy as np
import pandas as pd
import pytest

from tsar.cli.main import main
from tsar.core.mixers import MIXERS, causal_mixers
from tsar.evaluation.mixers import (
    copying,
    cost_exponents,
    forecast_errors,
    mixer_costs,
    text_losses,
)
from tsar.exceptions import ParameterError


def test_states_are_as_large_as_formulas_say():
    costs = mixer_costs(["attention", "linear_attention", "mamba", "autocorrelation"], (8, 32))
    state = costs.set_index(["mixer", "length"])["state"]
    # Keys and values of every token; per head a sum of 16 by 16 + 1; channels times 16, and the
    # three inputs of a convolution.
    for length in (8, 32):
        assert state["attention", length] == 2 * 64 * length
        assert state["linear_attention", length] == 4 * 16 * 17
        assert state["mamba", length] == 128 * 16 + 128 * 3
        assert np.isnan(state["autocorrelation", length])
    assert (costs["pass_ms"] > 0).all()


def test_every_mixer_is_measured():
    costs = mixer_costs(lengths=(4,))
    assert list(costs["mixer"]) == list(MIXERS)
    stepping = costs[costs["causal"]]
    assert set(stepping["mixer"]) == set(causal_mixers()) and stepping["step_ms"].notna().all()


def test_attention_learns_to_copy_and_who_learned_nothing_guesses():
    copied = copying(["attention"], max_steps=250).iloc[0]
    assert copied["nats"] < 0.5 * math.log(8) and copied["right"] > 0.5
    nothing = copying([["retention", "attention"]], max_steps=1).iloc[0]
    assert nothing["mixer"] == "retention+attention" and nothing["nats"] > 0.9 * math.log(8)


def test_copying_may_be_selective():
    made = copying([["retention", "attention"]], selective=True, max_steps=2).iloc[0]
    assert made["nats"] > 0.9 * math.log(8) and made["right"] < 0.5


def test_models_of_a_text_are_as_large_and_learn_as_much_as_pairs_tell():
    text = "".join("ab"[k] for k in np.random.default_rng(0).integers(2, size=4000))
    learned = text_losses(["attention", "fourier"], text, max_steps=150).set_index("mixer")
    assert learned["weights"].max() < 1.02 * learned["weights"].min()
    # Letters drawn by a coin: nothing can be learned beyond that there are two.
    assert (learned["nats"] > 0.99 * math.log(2)).all()
    assert learned.loc["attention", "nats"] < 1.0


def test_forecasts_of_a_frame_of_ones_own():
    hours = np.arange(1000)
    frame = pd.DataFrame(
        {"y": np.sin(hours / 4)}, index=pd.date_range("2024", periods=1000, freq="h")
    )
    errors = forecast_errors(["attention", "latents"], frame, (600, 750, 1000), max_epochs=2)
    assert list(errors["mixer"]) == ["attention", "latents"]
    assert (errors["mse"] < 1.5).all() and (errors["mae"] > 0).all()


def test_exponents_are_slopes():
    lengths = np.array([10, 20, 40])
    costs = pd.concat(
        pd.DataFrame({"mixer": name, "length": lengths, "pass_ms": 3.0 * lengths**power})
        for name, power in (("one", 1.0), ("two", 2.0))
    )
    exponents = cost_exponents(costs)
    assert exponents["one"] == pytest.approx(1.0) and exponents["two"] == pytest.approx(2.0)


def test_every_mixer_says_what_it_is():
    assert all(cls.formula and cls.cost for cls in MIXERS.values())
    assert len({cls.formula for cls in MIXERS.values()}) == len(MIXERS)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: mixer_costs(["mamba3"]), "did you mean"),
        (lambda: mixer_costs(lengths=(0,)), "lengths"),
        (lambda: copying(["attention"], max_steps=0), "max_steps"),
        (lambda: text_losses(["attention"], max_steps=0), "max_steps"),
        (lambda: forecast_errors(["attention"], max_epochs=0), "max_epochs"),
        (lambda: forecast_errors(["atention"]), "did you mean 'attention'"),
        (lambda: forecast_errors(["attention"], pd.DataFrame()), "frame and borders go together"),
        (lambda: copying(["attention", "latents"]), "mixer must be one of"),
    ],
)
def test_what_cannot_be_measured(call, words):
    with pytest.raises(ParameterError, match=words):
        call()


def test_the_command_writes_the_table(tmp_path, capsys):
    out = tmp_path / "costs.csv"
    more = ["--text-steps", "1", "--forecast-epochs", "0"]
    more += ["--figure", str(tmp_path / "costs.png")]
    arguments = ["--mixer", "mamba2", "--mixer", "autocorrelation", "--length", "8"]
    with pytest.raises(SystemExit) as ended:
        main(["bench", "mixers", *arguments, "--copy-steps", "2", *more, "--out", str(out)])
    assert ended.value.code == 0
    table = pd.read_csv(out)
    assert list(table["mixer"]) == ["mamba2", "autocorrelation"]
    printed = capsys.readouterr().out
    assert "pass_ms@8" in printed and "state@8" in printed
    assert MIXERS["mamba2"].formula in printed and "text_nats" in printed
    assert (tmp_path / "costs.png").stat().st_size > 1000
    learned = pd.read_csv(tmp_path / "costs_learned.csv")
    assert list(learned["mixer"]) == ["mamba2"] and learned["copy_nats"].notna().all()
    with pytest.raises(SystemExit) as refused:
        main(["bench", "mixers", "--figure", str(tmp_path / "costs.txt")])
    assert refused.value.code == 1
    assert "must be a .png, .svg or .pdf" in capsys.readouterr().err
