"""Processes that share a training end where one process does."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import tsar
from tsar.exceptions import ParameterError
from tsar.training.processes import Processes

SCRIPT = """
import json, sys
import tsar

sea = tsar.load_dataset("elnino")
said = {}
with tsar.training.distributed() as processes:
    for name in ("NLinear", "iTransformer", "LSTNet"):
        options = json.loads(sys.argv[1])[name]
        model = getattr(tsar, name)(**options).fit(sea)
        said[name] = [model.predict()["sea_temperature"].tolist(), model.history_["train_loss"]]
    said["seed"] = tsar.NLinear(context_length=24, horizon=6, max_epochs=1).fit(sea).seed_
    try:
        tsar.AutoForecaster(horizon=6).fit(sea)
    except tsar.exceptions.ParameterError as error:
        said["auto"] = str(error)
    few = tsar.NLinear(context_length=24, horizon=6, max_epochs=1, batch_size=1)
    try:
        few.fit(sea)
    except tsar.exceptions.ParameterError as error:
        said["few"] = str(error)
with open(f"{sys.argv[2]}/{processes.rank}.json", "w") as file:
    json.dump(said, file)
"""
# Without dropout, nothing differs but the order of sums.
OPTIONS = {
    "NLinear": {"context_length": 24, "horizon": 6, "max_epochs": 3, "random_state": 0},
    "iTransformer": {
        **{"context_length": 24, "horizon": 6, "max_epochs": 2, "random_state": 0},
        **{"d_model": 8, "d_ff": 8, "n_heads": 2, "n_layers": 1, "dropout": 0.0},
    },
    "LSTNet": {
        **{"context_length": 48, "horizon": 6, "max_epochs": 2, "random_state": 0},
        **{"dropout": 0.0, "batch_size": 33},
    },
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchrun")
    script = folder / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    run = subprocess.run(
        [*command, "--nproc-per-node", "2", str(script), json.dumps(OPTIONS), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return {rank: json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)}


@pytest.mark.parametrize("name", OPTIONS)
def test_two_processes_learn_what_one_does(said, name):
    alone = getattr(tsar, name)(**OPTIONS[name]).fit(tsar.load_dataset("elnino"))
    forecast, losses = said[0][name]
    np.testing.assert_allclose(forecast, alone.predict()["sea_temperature"], rtol=1e-6)
    np.testing.assert_allclose(losses, alone.history_["train_loss"], rtol=1e-6)
    assert said[1][name] == said[0][name]


def test_all_have_one_seed_where_none_is_given(said):
    assert said[0]["seed"] == said[1]["seed"]


def test_what_cannot_be_shared_is_refused_by_all(said):
    for rank in (0, 1):
        assert "outside of tsar.training.distributed()" in said[rank]["auto"]
        assert "a batch of 1 cannot be divided among 2 processes" in said[rank]["few"]


def test_without_torchrun_it_is_one_error(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ParameterError, match="no RANK.*torchrun --nproc-per-node"):
        with tsar.training.distributed():
            pass


def test_shares_of_a_batch_are_all_of_it():
    index = torch.arange(11)
    parts = [Processes(rank, 4).share(index) for rank in range(4)]
    assert torch.equal(torch.cat(parts), index)
    assert {len(part) for part in parts} == {2, 3}
