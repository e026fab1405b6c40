"""Records of epochs, handed to functions and to loggers."""

import pytest

import tsar
from tsar.exceptions import ParameterError
from tsar.training import log_to, on_epoch


class Board:
    """As TensorBoard's SummaryWriter."""

    def __init__(self):
        self.written = []

    def add_scalar(self, tag, scalar_value, global_step=None):
        self.written.append((tag, scalar_value, global_step))


class Run:
    """As a run of wandb."""

    def __init__(self):
        self.written = []

    def log(self, data, step=None):
        self.written.append((data, step))


def _model(**options):
    return tsar.NLinear(
        context_length=8, horizon=2, max_epochs=3, random_state=0, device="cpu", **options
    )


def test_every_epoch_reaches_both_kinds_of_loggers(wide):
    board, run = Board(), Run()
    with log_to(board, "a/"), log_to(run):
        model = _model().fit(wide)
    history = model.history_
    assert set(history) == {"train_loss", "val_loss", "val_mae", "learning_rate", "seconds"}
    n_epochs = len(history["train_loss"])
    expected = {
        (f"a/{name}", values[epoch], epoch + 1)
        for name, values in history.items()
        for epoch in range(n_epochs)
    }
    assert set(board.written) == expected and len(board.written) == len(expected)
    rows = [({name: values[e] for name, values in history.items()}, e + 1) for e in range(n_epochs)]
    assert run.written == rows


def test_nothing_is_written_after_the_block_and_steps_count_on(wide):
    board = Board()
    with log_to(board):
        _model(early_stopping=False).fit(wide)
        _model(early_stopping=False).fit(wide)
    _model().fit(wide)
    steps = [step for tag, _, step in board.written if tag == "train_loss"]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_an_error_of_the_logger_ends_the_training(wide):
    class Full:
        def log(self, data, step=None):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), log_to(Full()):
        _model().fit(wide)
    records = []
    with on_epoch(records.append):
        _model().fit(wide)
    assert records


@pytest.mark.parametrize("writer", [None, 3, "log", object()])
def test_what_is_no_logger_is_refused(writer):
    with pytest.raises(ParameterError, match=r"add_scalar\(tag, value, step\)"), log_to(writer):
        pass
