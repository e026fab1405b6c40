import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, PowerTransformer

import tsar
from tsar.evaluation import backtest
from tsar.exceptions import DataError, DataWarning, ParameterError, PersistenceError

FUNCTIONS = {
    "log": (np.log, np.exp),
    "log1p": (np.log1p, np.expm1),
    "sqrt": (np.sqrt, np.square),
    "asinh": (np.arcsinh, np.sinh),
}
NETWORK = {"context_length": 12, "max_epochs": 1, "random_state": 0, "device": "cpu"}


@pytest.fixture
def sales():
    """Positive values that grow, three series of unequal length, long."""
    draw = np.random.default_rng(3)
    frames = []
    for name, n in (("a", 80), ("b", 95), ("c", 110)):
        y = np.exp(0.01 * np.arange(n) + 0.3 * np.sin(np.arange(n) * 2 * np.pi / 7))
        days = pd.date_range("2024-01-01", periods=n)
        frames.append(
            pd.DataFrame({"unique_id": name, "ds": days, "y": 20 * y * draw.gamma(50, 0.02, n)})
        )
    return pd.concat(frames, ignore_index=True)


def _by_hand(model, frame, forward, backward, **asked):
    changed = frame.assign(y=forward(frame["y"]))
    found = model.fit(changed).predict(**asked)
    columns = [name for name in found if name not in ("unique_id", "ds", "sample")]
    return found.assign(**{name: backward(found[name]) for name in columns})


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("model", [tsar.AutoReg(), tsar.NLinear(**NETWORK, loss="gaussian")])
def test_it_is_the_model_on_transformed_values(sales, name, model):
    wrapped = tsar.TransformedTarget(model=model, transform=name, horizon=5).fit(sales)
    alone = model.set_params(horizon=5)
    expected = _by_hand(alone, sales, *FUNCTIONS[name])
    pd.testing.assert_frame_equal(wrapped.predict(), expected, rtol=1e-9)
    if isinstance(model, tsar.NLinear):
        for asked in ({"quantiles": [0.1, 0.9]}, {"level": 80}, {"samples": 3}):
            expected = _by_hand(alone, sales, *FUNCTIONS[name], **asked)
            pd.testing.assert_frame_equal(wrapped.predict(**asked), expected, rtol=1e-6)


def test_a_transformer_is_fitted_on_the_rows(sales):
    named = tsar.TransformedTarget(model=tsar.Theta(), transform="log1p", horizon=5).fit(sales)
    given = tsar.TransformedTarget(
        model=tsar.Theta(), transform=FunctionTransformer(np.log1p, np.expm1), horizon=5
    ).fit(sales)
    pd.testing.assert_frame_equal(given.predict(), named.predict(), rtol=1e-9)
    power = tsar.TransformedTarget(transform=PowerTransformer(), horizon=5).fit(sales)
    reference = PowerTransformer().fit(sales[["y"]])
    assert power.transformer_.lambdas_ == pytest.approx(reference.lambdas_)


def test_backtests_intervals_and_a_range_are_in_original_units(sales):
    seen = sales.groupby("unique_id").head(70)
    model = tsar.TransformedTarget(
        model=tsar.AutoReg(), transform="log", horizon=5, output_range=(0, 40)
    ).fit(seen)
    logs = sales.assign(y=np.log(sales["y"]))
    alone = tsar.AutoReg(horizon=5).fit(logs.groupby("unique_id").head(70))
    tested = backtest({"forecast": model}, sales, windows=2)["forecast"]
    expected = np.exp(backtest({"forecast": alone}, logs, windows=2)["forecast"])
    assert expected.max() > 40
    np.testing.assert_allclose(tested, expected.clip(upper=40), rtol=1e-9)
    intervals = model.calibrate(sales).predict(level=80)
    assert (intervals["y_lo80"] <= intervals["y"]).all() and (intervals["y_hi80"] <= 40).all()


def test_covariates_stay_as_they_are(sales):
    sales = sales.assign(promotion=(np.arange(len(sales)) % 5 == 0).astype(float))
    model = tsar.AutoReg(future_covariates="promotion")
    wrapped = tsar.TransformedTarget(model=model, transform="log", horizon=5).fit(sales)
    future = wrapped.make_future_frame().assign(promotion=1.0)
    alone = model.set_params(horizon=5).fit(sales.assign(y=np.log(sales["y"])))
    expected = np.exp(alone.predict(future=future)["y"])
    np.testing.assert_allclose(wrapped.predict(future=future)["y"], expected, rtol=1e-9)


def test_it_is_saved_with_its_model(sales, tmp_path):
    named = tsar.TransformedTarget(model=tsar.NLinear(**NETWORK), transform="sqrt", horizon=5)
    named.fit(sales).save(tmp_path / "named")
    loaded = tsar.load(tmp_path / "named")
    pd.testing.assert_frame_equal(loaded.predict(df=sales), named.predict(df=sales))
    given = tsar.TransformedTarget(transform=PowerTransformer(), horizon=5).fit(sales)
    given.save(tmp_path / "given")
    loaded = tsar.load(tmp_path / "given", transform=given.transformer_)
    pd.testing.assert_frame_equal(loaded.predict(), given.predict())


@pytest.mark.parametrize(
    ("transform", "low", "message"),
    [
        ("log", 0.0, r"transform='log' needs values above 0, got 0 in 'y' of series 'b' \(1 such"),
        ("log1p", -1.0, "needs values above -1, got -1"),
        ("sqrt", -0.5, "needs values at least 0, got -0.5"),
    ],
)
def test_values_outside_of_a_function_are_named(sales, transform, low, message):
    model = tsar.TransformedTarget(transform=transform, horizon=5).fit(sales)
    wrong = sales.copy()
    wrong.loc[100, "y"] = low
    with pytest.raises(DataError, match=message):
        tsar.TransformedTarget(transform=transform, horizon=5).fit(wrong)
    with pytest.raises(DataError, match=message):
        model.predict(df=wrong)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"transform": "lg"}, "transform must be one of 'log', 'log1p'"),
        ({"transform": np.log}, "must have the methods fit, transform, inverse_transform"),
        ({"model": "AutoReg"}, "model must be"),
    ],
)
def test_wrong_parameters_are_one_error(sales, parameters, message):
    with pytest.raises(ParameterError, match=message):
        tsar.TransformedTarget(**parameters).fit(sales)


@pytest.mark.parametrize(
    ("transform", "error", "message"),
    [
        (PowerTransformer, ParameterError, "pass an object such as PowerTransformer"),
        (PowerTransformer("box-cox"), DataError, "cannot be fitted: The Box-Cox"),
        (FunctionTransformer(np.log), DataError, "must undo it, and does not in 'y'"),
        (FunctionTransformer(np.negative, np.negative), DataError, "must increase"),
        (
            FunctionTransformer(np.sqrt, np.square, check_inverse=False),
            DataError,
            "must make numbers of numbers",
        ),
        (OneHotEncoder(sparse_output=False), DataError, "must give a column for each variate"),
    ],
)
def test_a_transformer_that_gives_wrong_numbers_is_refused(sales, transform, error, message):
    shifted = sales.assign(y=sales["y"] - 30)
    frame = shifted if "Box" in message or "numbers" in message else sales
    with np.errstate(invalid="ignore"), pytest.raises(error, match=message):
        tsar.TransformedTarget(transform=transform, horizon=5).fit(frame)


def test_a_transformer_may_move_the_values_at_the_ends(sales):
    clipped = FunctionTransformer(lambda y: np.minimum(y, 50), lambda y: y, check_inverse=False)
    model = tsar.TransformedTarget(transform=clipped, horizon=7).fit(sales)
    expected = tsar.SeasonalNaive(horizon=7).fit(sales).predict()["y"].clip(upper=50)
    np.testing.assert_allclose(model.predict()["y"], expected)


@pytest.mark.parametrize("other", [PowerTransformer(), "log", FunctionTransformer()])
def test_another_transform_than_that_of_the_fit_is_not_loaded(sales, tmp_path, other):
    model = tsar.TransformedTarget(transform=PowerTransformer(), horizon=5).fit(sales)
    model.save(tmp_path / "model")
    with pytest.raises(PersistenceError, match=r"not the one .* transform=model.transformer_"):
        tsar.load(tmp_path / "model", transform=other)


@pytest.mark.parametrize(
    "around",
    [
        lambda model: model,
        lambda model: tsar.Ensemble(models=[tsar.Theta(), model]),
        lambda model: tsar.Ensemble(models={"one": tsar.TransformedTarget(model=model)}),
    ],
)
def test_a_range_of_transformed_values_is_refused(sales, around):
    model = around(tsar.SeasonalNaive(output_range=(0, None)))
    with pytest.raises(ParameterError, match="give it to TransformedTarget, in the units"):
        tsar.TransformedTarget(model=model, transform="log").fit(sales)


def test_what_stands_in_for_a_model_that_failed_is_named(sales):
    short = sales.groupby("unique_id").head(6)
    with pytest.warns(DataWarning, match="SeasonalNaive forecasts in their place"):
        alone = tsar.ARIMA(horizon=3).fit(short)
    with pytest.warns(DataWarning, match="SeasonalNaive forecasts in their place"):
        wrapped = tsar.TransformedTarget(model=tsar.ARIMA(), horizon=3).fit(short)
    found = wrapped.predict().attrs["fallback"]
    assert list(found) == ["a", "b", "c"]
    assert found == alone.predict().attrs["fallback"]


@pytest.mark.parametrize("wrong", [tsar.Ensemble(models=5), tsar.TransformedTarget(model="x")])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: tsar.TransformedTarget(model=inner),
        lambda inner: tsar.Ensemble(models={"one": inner}),
        lambda inner: tsar.Ensemble(models=[tsar.TransformedTarget(model=inner)]),
    ],
)
def test_wrong_parameters_inside_of_models_are_one_error(sales, wrong, wrap):
    with pytest.raises(ParameterError, match="models? must be"):
        wrap(wrong).fit(sales)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("method", ["split", "aci"])
def test_calibrated_intervals_are_those_of_transformed_values(sales, name, method):
    forward, backward = FUNCTIONS[name]
    seen = sales.groupby("unique_id").head(70)
    wrapped = tsar.TransformedTarget(model=tsar.AutoReg(), transform=name, horizon=2).fit(seen)
    alone = tsar.AutoReg(horizon=2).fit(seen.assign(y=forward(seen["y"])))
    wrapped.calibrate(sales, method=method, level=80)
    alone.calibrate(sales.assign(y=forward(sales["y"])), method=method, level=80)
    asked = [{"level": 80}, {"samples": 4}]
    if method == "split":
        asked.append({"quantiles": [0.2, 0.9]})
    new = sales.assign(unique_id=sales["unique_id"].replace("c", "new"))
    for frame in (None, sales, new):
        its = None if frame is None else frame.assign(y=forward(frame["y"]))
        for how in asked:
            found, expected = wrapped.predict(df=frame, **how), alone.predict(df=its, **how)
            values = [column for column in found if column not in ("unique_id", "ds", "sample")]
            np.testing.assert_allclose(
                found[values], backward(expected[values].to_numpy()), rtol=1e-6
            )


def test_intervals_of_transformed_values_are_saved_with_them(sales, tmp_path):
    model = tsar.TransformedTarget(transform="log", horizon=2).fit(sales).calibrate(sales)
    expected = model.predict(level=80)
    model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(tsar.load(tmp_path / "model").predict(level=80), expected)
    # An earlier version had the errors of the values themselves.
    record, arrays = model.calibration_.to_state()
    del record["on_error_scale"]
    earlier = type(model.calibration_).from_state(record, arrays, model.end_)
    plain = tsar.SeasonalNaive(horizon=2).fit(sales)
    model.calibration_ = plain.calibration_ = earlier
    pd.testing.assert_frame_equal(model.predict(level=80), plain.predict(level=80))


def test_rows_that_its_model_held_out_are_there_to_calibrate_on(sales):
    network = tsar.NLinear(**NETWORK | {"early_stopping": True})
    model = tsar.TransformedTarget(model=network, transform="log", horizon=2).fit(sales)
    held_out = model.model_.learned_.held_out
    assert held_out.min() > 2 and np.array_equal(model.learned_.held_out, held_out)
    counts = model.calibrate(sales, level=50).calibration_.counts[:, 0]
    np.testing.assert_array_equal(counts, [held_out.sum(), (held_out - 1).sum()])
