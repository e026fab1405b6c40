"""Models as they come: what is measured, on which rows, and by what."""

import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.evaluation.untuned import PANELS, relative_errors, untuned
from tsar.exceptions import DataError, ParameterError


@pytest.fixture(scope="module")
def measured():
    return untuned(["Naive", "SeasonalNaive"], ["elnino"], seeds=(0, 1), windows=3)


def test_errors_are_those_of_the_last_windows(measured):
    sea = tsar.load_dataset("elnino")["sea_temperature"].to_numpy()
    # Three windows of a year, from the rows before each of them; MASE by the rows before all.
    truth = sea[-36:].reshape(3, 12)
    unit = np.abs(sea[12:-36] - sea[:-48]).mean()
    last = sea[[-37, -25, -13]][:, None]
    errors = measured.set_index("model")["mase"]
    assert errors["Naive"] == pytest.approx(np.abs(truth - last).mean() / unit)
    season = sea[-48:-12].reshape(3, 12)
    assert errors["SeasonalNaive"] == pytest.approx(np.abs(truth - season).mean() / unit)


def test_models_without_a_seed_are_fitted_once(measured):
    assert measured["model"].to_list().count("Naive") == 1
    assert (measured["seed"] == 0).all() and (measured["status"] == "ok").all()
    assert measured["scaled_quantile_loss"].notna().all()


def test_relative_errors_are_geometric_means_of_ratios():
    rows = [
        *[("a", "SeasonalNaive", 0, 2.0, 1.0), ("b", "SeasonalNaive", 0, 1.0, 4.0)],
        # The mean over the seeds first.
        *[("a", "X", 0, 0.5, 1.0), ("a", "X", 1, 1.5, 1.0), ("b", "X", 0, 2.0, 1.0)],
    ]
    names = ["panel", "model", "seed", "mase", "scaled_quantile_loss"]
    table = relative_errors(pd.DataFrame(rows, columns=names))
    assert table.loc["SeasonalNaive"].to_list() == [1.0, 1.0, 1.0, 1.0]
    # MASE: sqrt(1/2 * 2); quantile loss: sqrt(1 * 1/4).
    assert table.loc["X"].to_list() == pytest.approx([1.0, 0.5, 0.5, 2.0])


def test_panels_that_are_not_there_are_left_out_or_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TSAR_DATA", str(tmp_path))
    there = {name for name, panel in PANELS.items() if not panel.missing}
    assert there == {"elnino", "co2"}
    with pytest.raises(DataError, match="tourism is read from panels/tourism.csv below the folder"):
        untuned(["Naive"], ["tourism"])
    with pytest.raises(ParameterError, match="panels must be one of .* got 'tourist'"):
        untuned(["Naive"], ["tourist"])


def test_long_files_are_read_with_several_ids_as_one(monkeypatch, tmp_path):
    monkeypatch.setenv("TSAR_DATA", str(tmp_path))
    (tmp_path / "panels").mkdir()
    lines = ["Quarter,Region,State,Purpose,Trips"]
    lines += [f"{1998 + k // 4} Q{k % 4 + 1},Hills,SA,Visit,{k}" for k in reversed(range(40))]
    (tmp_path / "panels" / "tourism.csv").write_text("\n".join(lines))
    frame = PANELS["tourism"].read()
    assert frame["id"].unique().tolist() == ["Hills/SA/Visit"]
    assert frame["time"].iloc[[0, 1]].to_list() == [pd.Timestamp("1998"), pd.Timestamp("1998-04")]
    assert frame["value"].to_list() == list(range(40))


def test_short_hours_are_whole_pieces_from_the_end():
    panel = PANELS["short_hours"]
    if panel.missing:
        pytest.skip(f"{panel.missing[0]} is not below the folder TSAR_DATA")
    frame = panel.read()
    sizes = frame.groupby("id").size()
    # 17,420 rows of seven columns twice, 8,784 of five zones and 1,680 of four markets.
    assert (sizes == 840).all() and len(sizes) == 2 * 7 * 20 + 5 * 10 + 4 * 2
    load = PANELS["load"].read()
    last = load[load["id"] == load["id"].iloc[0]]["value"].tail(840).to_numpy()
    first_zone = f"load/{load['id'].iloc[0]}/0"
    np.testing.assert_array_equal(frame[frame["id"] == first_zone]["value"], last)
