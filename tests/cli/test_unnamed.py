"""A forecast for which no model is named."""

import json

import pandas as pd


def test_without_a_model_it_says_what_it_chose(csv, tmp_path, run):
    out, report = tmp_path / "out.csv", tmp_path / "report.json"
    call = ["forecast", csv, "--horizon", 4, "--level", 80, "--out", out, "--report", report]
    code, printed, errors = run(*call, "--set", "time_limit=1e-6")
    assert (code, printed) == (0, "")
    assert errors == "Forecast by AutoForecaster: 1.00 SeasonalNaive\n"
    assert json.loads(report.read_text())["model"] == "AutoForecaster: 1.00 SeasonalNaive"
    naive = tmp_path / "naive.csv"
    run("forecast", csv, "--horizon", 4, "--model", "SeasonalNaive", "--out", naive)
    columns = pd.read_csv(naive).columns
    pd.testing.assert_frame_equal(pd.read_csv(out)[columns], pd.read_csv(naive))
