"""Sequential Attention against orthogonal matching pursuit, closed forms and planted series."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, OrthogonalMatchingPursuit

import tsar
from tsar.exceptions import DataError, DataWarning, ParameterError
from tsar.tuning import InputSelector, sequential_attention


def pursuit(x, y, count):
    """Return the order in which scikit-learn's pursuit takes inputs."""
    order = []
    for size in range(1, count + 1):
        model = OrthogonalMatchingPursuit(n_nonzero_coefs=size, fit_intercept=False).fit(x, y)
        order += [place for place in np.flatnonzero(model.coef_) if place not in order]
    return order


def standard(x):
    return (x - x.mean(axis=0)) / x.std(axis=0)


def planted_frame(n_rows=400, seed=0):
    """Return a target that hangs on its lags 1 and 5, and on price two steps before."""
    draw = np.random.default_rng(seed)
    price, wind, noise = draw.normal(size=(3, n_rows))
    sold = np.zeros(n_rows)
    for t in range(5, n_rows):
        sold[t] = 0.5 * sold[t - 1] - 0.4 * sold[t - 5] + price[t - 2] + 0.3 * noise[t]
    days = pd.date_range("2024-01-01", periods=n_rows)
    return pd.DataFrame({"sold": 20 + 3 * sold, "price": price, "wind": wind}, index=days)


SELECTOR = InputSelector(
    n_selected=3, context_length=7, target="sold", past_covariates=["price", "wind"], n_steps=30
)


@pytest.mark.parametrize("correlated", [0.0, 0.25])
@pytest.mark.parametrize("seed", range(4))
def test_choices_are_those_of_orthogonal_matching_pursuit(seed, correlated):
    draw = np.random.default_rng(seed)
    n_rows, n_inputs, count = 150, 17, 5
    mixing = np.eye(n_inputs) + correlated * draw.normal(size=(n_inputs, n_inputs))
    x = standard(draw.normal(size=(n_rows, n_inputs)) @ mixing)
    weights = np.zeros(n_inputs)
    weights[draw.choice(n_inputs, count, replace=False)] = draw.normal(size=count)
    y = standard(x @ weights + 0.5 * draw.normal(size=n_rows))
    picks = sequential_attention(
        torch.from_numpy(x.T @ x / n_rows), torch.from_numpy(x.T @ y / n_rows), count, n_steps=30
    )
    order = pursuit(x, y, count)
    assert [pick.place for pick in picks] == order
    explained = [
        LinearRegression().fit(x[:, order[:size]], y).score(x[:, order[:size]], y)
        for size in range(1, count + 1)
    ]
    np.testing.assert_allclose([pick.r2 for pick in picks], explained, rtol=1e-9)


def test_every_phase_chooses_by_what_it_trained():
    """Were the first choice made by untrained logits, seeds would differ in it."""
    answers = torch.tensor([0.1, 0.2, 0.9], dtype=torch.float64)
    for seed in range(5):
        picks = sequential_attention(torch.eye(3, dtype=torch.float64), answers, 3, seed=seed)
        assert [pick.place for pick in picks] == [2, 1, 0]


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_attention_minimises_the_penalised_error(alpha):
    products, answers = np.array([[1.0, 0.3], [0.3, 1.0]]), np.array([0.5, 0.45])

    def lowest(share):
        """Return the error at the best weights w: ``|y - x s w|^2 + alpha |w|^2``, halved."""
        spread = np.diag([share, 1 - share])
        hessian = alpha * np.eye(2) + spread @ products @ spread
        return -0.5 * answers @ spread @ np.linalg.solve(hessian, spread @ answers)

    shares = np.linspace(0, 1, 2001)
    best = shares[np.argmin([lowest(share) for share in shares])]
    pick, *_ = sequential_attention(
        torch.from_numpy(products), torch.from_numpy(answers), 1, alpha=alpha, n_steps=200
    )
    assert 0.5 < best < 0.6
    assert pick.score == pytest.approx(best, abs=1e-3)


def test_planted_lags_and_covariate_come_first():
    df = planted_frame()
    selector = clone(SELECTOR).fit(df)
    ranking = selector.ranking_
    assert list(ranking.columns) == ["rank", "role", "input", "lag", "score", "r2"]
    chosen = set(ranking[["role", "input", "lag"]].itertuples(index=False, name=None))
    assert chosen == {("past", "price", 2), ("history", "sold", 1), ("history", "sold", 5)}
    assert selector.selected_ == {
        "lags": (1, 5),
        "past_covariates": ("price",),
        "future_covariates": (),
    }
    # Against a regression on lags that a loop cuts out.
    values = df.to_numpy()
    rows = range(7, len(df))
    x = standard(
        np.array([[*(values[t - k, c] for c in range(3) for k in range(1, 8))] for t in rows])
    )
    y = standard(values[7:, 0])
    places = {"sold": 0, "price": 7, "wind": 14}
    order = [places[name] + lag - 1 for name, lag in ranking[["input", "lag"]].to_numpy()]
    assert order == pursuit(x, y, 3)
    r2 = LinearRegression().fit(x[:, order], y).score(x[:, order], y)
    assert ranking["r2"].iloc[-1] == pytest.approx(r2, rel=1e-9)
    assert (selector.n_inputs_, selector.n_rows_) == (21, 393)


def test_future_covariates_have_the_lag_zero():
    df = planted_frame()
    df["known"] = df["price"].shift(2).fillna(0.0)
    selector = clone(SELECTOR).set_params(
        past_covariates=None, future_covariates="known", n_selected=1
    )
    selector.fit(df)
    assert selector.ranking_[["role", "input", "lag"]].to_numpy().tolist() == [
        ["future", "known", 0]
    ]
    assert selector.n_inputs_ == 7 + 8
    forecast = tsar.AutoReg(
        target="sold", lags=(1, 5), future_covariates=selector.selected_["future_covariates"]
    )
    assert forecast.fit(df).horizon_ == 24


def test_series_of_a_long_frame_share_one_ranking():
    parts = [planted_frame(seed=seed).assign(unique_id=str(seed)) for seed in range(3)]
    # Each in units of its own; one too short, and one that never moves.
    parts[1]["sold"] *= 1000
    parts += [parts[0][:5].assign(unique_id="short"), parts[0].assign(unique_id="still", sold=4.0)]
    df = pd.concat(parts).rename_axis("ds").reset_index()
    selector = clone(SELECTOR).fit(df)
    assert selector.selected_["lags"] == (1, 5)
    assert selector.n_rows_ == 3 * 393


def test_history_of_several_variates_has_no_name():
    df = pd.concat([planted_frame(seed=seed)[["sold"]] for seed in (0, 1)], axis=1)
    df.columns = ["a", "b"]
    ranking = InputSelector(n_selected=2, context_length=6).fit(df).ranking_
    assert ranking["input"].isna().all()
    assert set(ranking["lag"]) == {1, 5}


def test_rows_with_missing_values_are_left_out():
    df = planted_frame()
    df.iloc[100, 0] = np.nan
    df.iloc[200, 1] = np.nan
    selector = clone(SELECTOR).fit(df)
    # Row 100 is a target once and a lag seven times; row 200 a lag only.
    assert selector.n_rows_ == 393 - 8 - 7
    assert selector.selected_["lags"] == (1, 5)


def test_ranking_ends_where_nothing_adds():
    draw = np.random.default_rng(0)
    noise = draw.normal(size=60)
    df = pd.DataFrame({"y": np.r_[0.0, 2 * noise[:-1]], "x": noise, "twin": -noise})
    df.index = pd.date_range("2024-01-01", periods=60)
    selector = InputSelector(
        n_selected=4,
        context_length=1,
        target="y",
        past_covariates=["x"],
        future_covariates=["twin"],
    )
    with pytest.warns(DataWarning, match="after 1 inputs no other adds anything"):
        selector.fit(df)
    assert selector.ranking_["r2"].tolist() == pytest.approx([1.0])
    assert selector.ranking_["lag"].tolist() == [1]


@pytest.mark.parametrize(
    ("params", "change", "error", "words"),
    [
        ({"n_selected": 22}, {}, ParameterError, "at most the number of inputs, 21 with"),
        ({"n_selected": 0}, {}, ParameterError, "n_selected must be"),
        ({"context_length": 400}, {}, DataError, "complete rows, each after 400 rows .* got 0"),
        ({}, {"wind": 1.5}, DataError, "'wind' never moves in the 393 rows"),
        ({}, {"sold": 1.5}, DataError, "each after 7 rows of its series, got 0"),
        ({}, {"wind": np.nan}, DataError, "got 0; pass longer series"),
        ({}, {"wind": "strong"}, DataError, "'wind' holds categories"),
    ],
)
def test_bad_input_is_one_error(params, change, error, words):
    with pytest.raises(error, match=words):
        clone(SELECTOR).set_params(**params).fit(planted_frame().assign(**change))
