"""Recipes about a file of one's own: the protocol of the published tables, by hand."""

import datetime

import numpy as np
import pandas as pd
import pytest

from tsar.data.datasets import Borders, load_card, load_dataset
from tsar.evaluation import load_recipe, run_recipe
from tsar.exceptions import DataError, ParameterError

RECIPE = """
title = "My meters"
model = "{model}"

[data]
file = "meters.csv"
borders = {borders}
{more}

[[cells]]
horizons = [6, 12]
{cells}
"""
ROWS = "{ train_end = 120, val_end = 150, test_end = 195 }"


def _frame(n_rows: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    stamps = pd.date_range("2024-01-01", periods=n_rows, freq="h")
    values = {"load": rng.normal(50, 9, n_rows).cumsum(), "heat": rng.normal(2, 1, n_rows)}
    return pd.DataFrame(values, index=stamps)


def _write(folder, frame=None, model="Naive", borders=ROWS, cells="", more=""):
    (_frame() if frame is None else frame).rename_axis("date").to_csv(folder / "meters.csv")
    path = folder / "own.toml"
    path.write_text(RECIPE.format(model=model, borders=borders, cells=cells, more=more))
    return path


def _by_hand(frame: pd.DataFrame, horizon: int, rows=(120, 150, 195)) -> tuple[float, float, int]:
    """Repeat the last value in every test window, in deviations of the training rows."""
    train_end, val_end, test_end = rows
    values = frame.to_numpy()
    deviation = values[:train_end].std(axis=0)
    errors = [
        (values[cutoff - 1] - values[cutoff : cutoff + horizon]) / deviation
        for cutoff in range(val_end, test_end - horizon + 1)
    ]
    return np.square(errors).mean(), np.abs(errors).mean(), len(errors)


def test_errors_are_those_of_the_protocol(tmp_path):
    path = _write(tmp_path, cells='mse = [1.0, 2]\nmae = [1.0, 1.5]\nband = 9\npublished = "me"')
    recipe = load_recipe(path)
    assert [cell.dataset for cell in recipe.cells] == ["meters"] * 2
    pairs = list(run_recipe(recipe))
    for (mse, mae), horizon, published in zip(pairs, (6, 12), ((1, 1), (2, 1.5)), strict=True):
        expected = _by_hand(_frame(), horizon)
        assert (mse.obtained, mae.obtained, mse.n_windows) == pytest.approx(expected, rel=1e-6)
        assert (mse.published, mae.published) == published
        assert mse.cell.published.source == "me" and mse.within
    path = _write(tmp_path, cells="mse = [1.0, 2]\nmae = [1.0, 1.5]\nband = 0.001")
    assert not any(result.within for pair in run_recipe(load_recipe(path)) for result in pair)


@pytest.mark.parametrize(
    "borders",
    [
        '{ train_end = "2024-01-06", val_end = 150, test_end = "2024-01-09 03:00" }',
        "{ train_end = 2024-01-06, val_end = 2024-01-07T06:00:00, test_end = 195 }",
    ],
)
def test_borders_may_be_times(tmp_path, borders):
    data = load_recipe(_write(tmp_path, borders=borders)).data
    frame, split = data.load()
    assert split == Borders(120, 150, 195)
    np.testing.assert_allclose(frame, _frame())


def test_the_test_part_ends_with_the_file(tmp_path):
    path = _write(tmp_path, borders="{ train_end = 120, val_end = 120 }")
    assert load_recipe(path).data.load()[1] == Borders(120, 120, 200)
    (mse, _), _ = run_recipe(load_recipe(path))
    assert mse.obtained == pytest.approx(_by_hand(_frame(), 6, (120, 120, 200))[0])
    # Without rows to validate on, a network is not stopped early.
    more = "[params]\nmax_steps = 1\ncontext_length = 12\n"
    path = _write(tmp_path, model="NLinear", borders="{ train_end = 120, val_end = 120 }")
    path.write_text(path.read_text().replace("[data]", f"{more}\n[data]"))
    assert all(result.within for pair in run_recipe(load_recipe(path)) for result in pair)


def test_nothing_published_is_measured_and_baselines_are_compared_with(tmp_path):
    measured = list(run_recipe(load_recipe(_write(tmp_path))))
    assert len(measured) == 2
    for result in measured[0]:
        assert result.within and result.bound == "none" and not result.cell.band
    cells = 'baselines = ["SeasonalNaive"]\nmse = [1, 2]\nmae = [1, 2]\nband = 99'
    (mse, _), (against, _), *_ = run_recipe(load_recipe(_write(tmp_path, cells=cells)))
    assert mse.obtained == against.obtained
    assert against.cell.baseline and against.published != mse.published


def test_columns_and_times_of_its_own(tmp_path):
    frame = _frame()
    written = frame.assign(note=1.0)
    written.index = written.index.strftime("%d.%m.%Y %H:%M")
    more = 'time = "date"\ntime_format = "%d.%m.%Y %H:%M"\ntarget = "load"'
    found, _ = load_recipe(_write(tmp_path, written, more=more)).data.load()
    pd.testing.assert_frame_equal(found, frame[["load"]], check_freq=False)


def test_a_published_data_set_from_its_file_gives_the_published_cell(tmp_path, published_data):
    card = load_card("ETTh1")
    cell = next(one for one in card.published if one.model == "Repeat" and one.horizon == 96)
    split = card.borders
    borders = f"{{ train_end = {split.train_end}, val_end = {split.val_end}, test_end = 14400 }}"
    cells = f"mse = {cell.mse}\nmae = {cell.mae}\nband = 0.0005\ndrop_last = {cell.drop_last}"
    path = _write(tmp_path, load_dataset("ETTh1"), borders=borders, cells=cells.lower())
    path.write_text(path.read_text().replace("[6, 12]", "[96]"))
    (pair,) = run_recipe(load_recipe(path))
    assert all(result.within for result in pair)


WRONG = {
    "a data set as well": ({"cells": 'dataset = "ETTh1"'}, ParameterError, "got 'dataset'"),
    "one error": ({"cells": "mse = [1, 2]\nband = 1"}, DataError, "mae must be the published"),
    "too few errors": (
        {"cells": "mse = 1\nmae = 1\nband = 1"},
        DataError,
        "mse must be the published error at each of the horizons",
    ),
    "no band": ({"cells": "mse = [1, 2]\nmae = [1, 2]"}, DataError, "'band' is missing"),
    "a band of nothing": ({"cells": "band = 1"}, DataError, "band is about published errors"),
    "no borders": ({"borders": "{}"}, DataError, "'train_end' is missing"),
    "unknown border": ({"borders": "{ tran_end = 1 }"}, ParameterError, "did you mean 'train_end'"),
    "zero": ({"borders": "{ train_end = 0, val_end = 3 }"}, ParameterError, "train_end must be"),
    "unknown key": ({"more": "tme = 'date'"}, ParameterError, "did you mean 'time'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_recipes_are_refused_before_anything_is_read(tmp_path, name):
    options, error, message = WRONG[name]
    path = _write(tmp_path, **options)
    (tmp_path / "meters.csv").unlink()
    with pytest.raises(error, match=f"recipe own.*{message}"):
        load_recipe(path)


def test_wrong_files_are_refused(tmp_path):
    def load(**options) -> None:
        load_recipe(_write(tmp_path, **options)).data.load()

    with pytest.raises(DataError, match="test_end must be at most 200, .* got 300"):
        load(borders="{ train_end = 120, val_end = 150, test_end = 300 }")
    with pytest.raises(DataError, match="train_end <= val_end < test_end, got 150, 120, 200"):
        load(borders="{ train_end = 150, val_end = 120 }")
    with pytest.raises(DataError, match="test_end = '2030-01-01' lies after the last row"):
        load(borders='{ train_end = 120, val_end = 150, test_end = "2030-01-01" }')
    with pytest.raises(DataError, match="train_end must be a row, or a time like"):
        load(borders='{ train_end = "soon", val_end = 150 }')
    with pytest.raises(DataError, match=r"\[data\]: meters.csv: the data have 1 fault"):
        load(frame=_frame().drop(index=_frame().index[7]))
    with pytest.raises(DataError, match="no column 'lod'"):
        load(more='target = "lod"')
    below = _frame().assign(unique_id="a")
    with pytest.raises(DataError, match="got 2 series below each other; pivot"):
        load(frame=pd.concat([below, below.assign(unique_id="b")]), more='target = "load"')
    path = _write(tmp_path)
    (tmp_path / "meters.csv").unlink()
    with pytest.raises(DataError, match="there is no file"):
        next(run_recipe(load_recipe(path)))


def test_a_date_is_a_date(tmp_path):
    data = load_recipe(_write(tmp_path, borders="{ train_end = 2024-01-06, val_end = 150 }")).data
    assert data.borders["train_end"] == datetime.date(2024, 1, 6)
