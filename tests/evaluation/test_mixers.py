"""What mixers cost: states counted by hand, rows for all that is asked for, and what is learned."""

import math

import numpy as np
import pandas as pd
import pytest

from tsar.cli.main import main
from tsar.core.mixers import MIXERS, causal_mixers
from tsar.evaluation.mixers import copying, mixer_costs
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
    assert copied["nats"] < 0.5 * math.log(8)
    nothing = copying([["retention", "attention"]], max_steps=1).iloc[0]
    assert nothing["mixer"] == "retention+attention" and nothing["nats"] > 0.9 * math.log(8)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: mixer_costs(["mamba3"]), "did you mean"),
        (lambda: mixer_costs(lengths=(0,)), "lengths"),
        (lambda: copying(["attention"], max_steps=0), "max_steps"),
    ],
)
def test_what_cannot_be_measured(call, words):
    with pytest.raises(ParameterError, match=words):
        call()


def test_the_command_writes_the_table(tmp_path, capsys):
    out = tmp_path / "costs.csv"
    arguments = ["--mixer", "mamba2", "--mixer", "autocorrelation", "--length", "8"]
    with pytest.raises(SystemExit) as ended:
        main(["bench", "mixers", *arguments, "--copy-steps", "2", "--out", str(out)])
    assert ended.value.code == 0
    table = pd.read_csv(out)
    assert list(table["mixer"]) == ["mamba2", "autocorrelation"]
    printed = capsys.readouterr().out
    assert "pass_ms@8" in printed and "state@8" in printed and "nats" in printed
