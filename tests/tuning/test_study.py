"""Stored studies: shared by processes, taken up after a kill, refused to another search."""

import multiprocessing
import os
import signal
import socket
import warnings

import numpy as np
import optuna
import pandas as pd
import pytest

import tsar
from tsar.data.digest import data_digest
from tsar.data.panel import Panel
from tsar.exceptions import ParameterError
from tsar.tuning import OptunaSearch
from tsar.tuning.study import quiet, release_killed

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def rate(trial):
    return trial.suggest_float("rate", 1e-3, 1e-1, log=True)


def data():
    steps = np.arange(120)
    return pd.Series(np.sin(steps / 3), pd.date_range("2024-01-01", periods=120), name="sales")


def model(**params):
    options = {"context_length": 12, "horizon": 4, "max_epochs": 2, "random_state": 0}
    return tsar.NLinear(**{**options, **params})


def killed_in(number):
    """Return the space of one rate, whose process is killed in a trial."""

    def rate(trial):
        value = trial.suggest_float("rate", 1e-3, 1e-1, log=True)
        if trial.number == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    rate.__qualname__ = "rate"
    return rate


def search(rate, storage, n_trials):
    return OptunaSearch(
        model(), {"learning_rate": rate}, n_trials=n_trials, storage=storage, random_state=0
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request, tmp_path):
    if request.param == "sqlite":
        return f"{tmp_path}/study.db"
    return request.getfixturevalue("postgresql")()


def _stored_trials(storage):
    """Return what any other program finds in a storage."""
    url = storage if "://" in storage else f"sqlite:///{storage}"
    with quiet(optuna):
        opened = optuna.storages.RDBStorage(url)
        trials = optuna.load_study(study_name="NLinear", storage=opened).trials
    opened.engine.dispose()
    return trials


def _in_another_process(rate, storage, n_trials):
    """Begin a search elsewhere; a fork has nothing to import."""
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=lambda: search(rate, storage, n_trials).fit(data()))
    with warnings.catch_warnings():
        # Python warns of forks beside threads; those of torch and of pytest hold no lock here.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


@needs_fork
def test_killed_search_is_taken_up(storage):
    """The trial that was killed is made again, and no finished one is."""
    process = _in_another_process(killed_in(2), storage, 5)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    found = search(rate, storage, 5).fit(data())
    frame = found.trials_
    assert frame["state"].tolist() == ["complete"] * 2 + ["failed"] + ["complete"] * 3
    assert frame["error"][2] == "its process ended"
    trials = _stored_trials(storage)
    assert trials[3].params == trials[2].params
    assert frame["learning_rate"].nunique() == 5
    # Once more: the budget is used up, and the best is fitted again.
    again = search(rate, storage, 5).fit(data())
    assert len(again.trials_) == 6 and again.best_params_ == found.best_params_
    assert again.predict().equals(found.predict())
    # Numbers come back from the storage as they were, to the last bit.
    best = model(**found.best_params_, random_state=found.best_seed_).fit(data())
    assert -min(best.history_["val_loss"]) == found.best_score_


@needs_fork
def test_two_processes_share_one_study(storage):
    process = _in_another_process(rate, storage, 14)
    frame = search(rate, storage, 14).fit(data()).trials_
    process.join(120)
    assert process.exitcode == 0
    trials = _stored_trials(storage)
    assert 14 <= len(trials) <= 15 and len(frame) >= 14
    makers = {trial.user_attrs["process"] for trial in trials}
    assert len(makers) == 2
    # Both draw from the same seed, and none draws what the other drew.
    assert all(trial.params for trial in trials), [(t.state, t.user_attrs) for t in trials]
    assert len({trial.params["rate"] for trial in trials}) == len(trials)


def test_parameters_of_a_killed_trial_are_queued_once(monkeypatch):
    """Two processes find it at the same time; the second one comes too late."""
    dead = multiprocessing.get_context("spawn").Process(target=print)
    dead.start()
    dead.join()
    with quiet(optuna):
        study = optuna.create_study()
        trial = study.ask({"rate": optuna.distributions.FloatDistribution(0, 1)})
        trial.set_user_attr("process", f"{socket.gethostname()}:{dead.pid}")
        running = study.get_trials()
        release_killed(optuna, study)
        with monkeypatch.context() as patched:
            patched.setattr(study, "get_trials", lambda **_: running)
            release_killed(optuna, study)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING"]


SPACE = {"learning_rate": (1e-3, 1e-1, "log")}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return the options of a search that was made."""
    options = {"storage": tmp_path_factory.mktemp("study") / "study.db", "n_trials": 1}
    OptunaSearch(model(), SPACE, **options).fit(data())
    return options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": {"learning_rate": (1e-3, 1e-2)}}, r"its space of learning_rate is \(0.001, 0.1"),
        ({"space": {"batch_size": [8]}}, "its space of learning_rate"),
        ({"estimator": model(context_length=8)}, "its parameters of context_length is 12, here it"),
        ({"estimator": tsar.DLinear(horizon=4), "study_name": "NLinear"}, "its model is NLinear"),
    ],
)
def test_study_of_another_search_is_refused(change, message, study):
    other = OptunaSearch(**{"estimator": model(), "space": SPACE, **study, **change})
    with pytest.raises(ParameterError, match=message + ".*choose another study_name"):
        other.fit(data())


def test_study_of_other_data_is_refused(study):
    with pytest.raises(ParameterError, match="its data is"):
        OptunaSearch(model(), SPACE, **study).fit(data() + 1)


def test_what_changes_no_trial_may_change(study):
    assert len(OptunaSearch(model(device="cpu"), SPACE, **study).fit(data()).trials_) == 1


def test_study_of_something_else_is_refused(tmp_path):
    path = tmp_path / "study.db"
    with quiet(optuna):
        study = optuna.create_study(
            study_name="NLinear", storage=f"sqlite:///{path}", direction="maximize"
        )
    study.ask()
    with pytest.raises(ParameterError, match="its model is None, here it is NLinear"):
        search(rate, path, 2).fit(data())


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("{tmp}/nowhere/study.db", "there is no folder"),
        ("{tmp}/text.db", "file is not a database"),
        ("{tmp}", "unable to open database file"),
        ("nosuchbase://host/study", "Can't load plugin"),
    ],
)
def test_storage_that_cannot_be_opened_is_one_error(storage, message, tmp_path):
    (tmp_path / "text.db").write_text("no database" * 1000)
    named = storage.format(tmp=tmp_path)
    with pytest.raises(ParameterError, match=f"storage must be a SQLite file.*{message}"):
        search(rate, named, 2).fit(data())


def test_digest_tells_data_apart():
    frame = data().to_frame()
    digests = {
        data_digest(Panel.from_frame(changed))
        for changed in (
            frame,
            frame.iloc[:-1],
            frame + 1e-12,
            frame.rename(columns={"sales": "x"}),
            frame.set_axis(frame.index + pd.Timedelta(days=1)),
        )
    }
    assert len(digests) == 5
    assert data_digest(Panel.from_frame(frame[::-1])) == data_digest(Panel.from_frame(frame))


INSTANTS = ("enqueue_trial", "ask", "suggest", "epoch", "before tell", "after tell", "fit")


def _killed_at(instant, number):
    """Kill this process at an instant of the trial of a number, or of the fit of the best."""
    studies, trials = optuna.study.Study, optuna.trial.Trial
    enqueue, asked, told, suggest = (
        studies.enqueue_trial,
        studies.ask,
        studies.tell,
        trials.suggest_float,
    )

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    def killing(name, function, after):
        def called(study, *args, **kwargs):
            n_trials = len([t for t in study.get_trials(deepcopy=False) if t.state.is_finished()])
            if instant == name and not after and n_trials == number:
                kill()
            result = function(study, *args, **kwargs)
            if instant == name and after and n_trials == number:
                kill()
            return result

        return called

    studies.enqueue_trial = killing("enqueue_trial", enqueue, True)
    studies.ask = killing("ask", asked, True)
    studies.tell = killing("before tell", killing("after tell", told, True), False)

    def suggested(trial, name, *args, **kwargs):
        value = suggest(trial, name, *args, **kwargs)
        if instant == "suggest" and trial.number == number:
            kill()
        return value

    trials.suggest_float = suggested
    if instant == "epoch":
        report = trials.report

        def reported(trial, value, step):
            report(trial, value, step)
            if trial.number == number and step == 2:
                kill()

        trials.report = reported
    if instant == "fit":
        OptunaSearch._remember = lambda *_: kill()


def _two_parameters(storage):
    space = {"learning_rate": (1e-3, 1e-1, "log"), "dropout": (0.0, 0.5)}
    net = tsar.PatchTST(
        **{"context_length": 12, "horizon": 4, "max_epochs": 2, "patch_length": 4, "stride": 4},
        **{"d_model": 4, "n_heads": 1, "d_ff": 4, "n_layers": 1, "device": "cpu"},
    )
    return OptunaSearch(net, space, n_trials=4, storage=storage, random_state=5)


@pytest.fixture(scope="module")
def uninterrupted():
    return _two_parameters(None).fit(data())


@needs_fork
@pytest.mark.parametrize("instant", INSTANTS)
def test_a_search_killed_at_any_instant_ends_as_if_it_had_not_been(
    instant, uninterrupted, tmp_path
):
    """As many trials, with the same parameters, seeds and scores, in the same order."""
    storage = str(tmp_path / "study.db")

    def killed():
        _killed_at(instant, 2)
        _two_parameters(storage).fit(data())

    process = multiprocessing.get_context("fork").Process(target=killed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    found = _two_parameters(storage).fit(data())
    columns = ["state", "score", "n_epochs", "learning_rate", "dropout"]
    made = found.trials_[found.trials_["error"] != "its process ended"]
    pd.testing.assert_frame_equal(
        made[columns].reset_index(drop=True), uninterrupted.trials_[columns], check_exact=True
    )
    assert found.best_params_ == uninterrupted.best_params_
    assert found.best_seed_ == uninterrupted.best_seed_
    assert found.predict().equals(uninterrupted.predict())
    assert os.listdir(tmp_path) == ["study.db"]


def test_a_trial_that_another_process_finished_is_left_to_it(storage, monkeypatch):
    """As two processes that take one waiting trial do, where the storage locks no row."""
    taken = []
    ask = tsar.tuning.search.ask

    def slower(study, *, queued):
        trial = ask(study, queued=queued)
        if trial.number == 1:
            taken.append(trial.number)
            study.tell(trial.number, 0.25)
        return trial

    monkeypatch.setattr("tsar.tuning.search.ask", slower)
    frame = search(rate, storage, 3).fit(data()).trials_
    assert taken == [1] and len(frame) == 3
    assert _stored_trials(storage)[1].value == 0.25
