"""What only a server does: it refuses, is away, or closes connections. What it shares with a file
is in test_study.py."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.exceptions import ParameterError, TrainingError
from tsar.tuning import OptunaSearch

DATA = pd.Series(np.sin(np.arange(120) / 3), pd.date_range("2024-01-01", periods=120), name="sales")


def search(storage, space=None):
    model = tsar.NLinear(context_length=12, horizon=4, max_epochs=2, random_state=0)
    space = space or {"learning_rate": (1e-3, 1e-1, "log")}
    return OptunaSearch(model, space, n_trials=3, storage=storage, random_state=0)


def _refused(storage, monkeypatch):
    """Return the one error that comes before anything is fitted."""
    monkeypatch.setattr(tsar.NLinear, "fit", None)
    with pytest.raises(
        ParameterError, match="storage must be a SQLite file .* or the URL"
    ) as error:
        search(storage).fit(DATA)
    assert "\n" not in str(error.value) and error.value.__suppress_context__
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"password": "wrong"}, 'password authentication failed for user "tsar"'),
        ({"user": "nobody"}, 'password authentication failed for user "nobody"'),
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
    ],
)
def test_refusal_of_the_server_is_one_error_before_any_fit(change, reason, postgresql, monkeypatch):
    url = postgresql(**{"password": "open-sesame", "database": "postgres", **change})
    message = _refused(url, monkeypatch)
    assert reason in message
    password = change.get("password", "open-sesame")
    assert url.replace(password, "***") in message and password not in message


def test_server_that_is_away_is_one_error(tmp_path, monkeypatch):
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    message = _refused(f"postgresql+psycopg://tsar:secret@/studies?host={tmp_path}", monkeypatch)
    assert f"got 'postgresql+psycopg://tsar:***@/studies?host={tmp_path}': " in message
    assert "No such file or directory" in message


def test_missing_driver_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    message = _refused("postgresql+psycopg://tsar:secret@localhost/studies", monkeypatch)
    assert "psycopg halted" in message and "pip install 'psycopg[binary]'" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://tsar:sec@ret@localhost/studies",
        "postgresql+psycopg://tsar:sec@ret:1@localhost/studies",
        "postgresql+psycopg://tsar:secret@localhost:port/studies",
        "nosuchbase://localhost/studies?user=tsar&password=secret",
        "nosuchbase://localhost/studies?PASSWORD=secret&user=tsar",
    ],
)
def test_no_piece_of_a_password_is_shown(url, monkeypatch):
    message = _refused(url, monkeypatch)
    assert "sec" not in message.partition(" got ")[2] and "ret" not in message


def test_connections_that_are_closed_are_made_again(postgresql):
    """A server closes those that are idle while a long trial runs."""
    import psycopg

    url = postgresql()

    def rate(trial):
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
        return trial.suggest_float("rate", 1e-3, 1e-1)

    frame = search(url, {"learning_rate": rate}).fit(DATA).trials_
    assert frame["state"].eq("complete").all() and len(frame) == 3


def test_storage_that_fails_later_is_one_error(postgresql):
    import psycopg

    url = postgresql()

    def rate(trial):
        other = postgresql(database="postgres").replace("+psycopg", "")
        with psycopg.connect(other, autocommit=True) as connection:
            database = url.partition("@/")[2].partition("?")[0]
            connection.execute(f"drop database {database} with (force)")
        return 0.01

    with pytest.raises(
        TrainingError, match=r"must work until the last trial, .*:\*\*\*@.* does not"
    ):
        search(url, {"learning_rate": rate}).fit(DATA)


def test_no_connection_is_held_after_the_search(postgresql):
    import psycopg

    url = postgresql()
    search(url).fit(DATA)
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        query = "select count(*) from pg_stat_activity where datname = current_database()"
        assert connection.execute(query).fetchone() == (1,)
