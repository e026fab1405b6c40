"""Covariates in networks, and what they do to forecasts."""

import contextlib
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from torch import nn

import tsar
from tsar.checks import small_forecaster
from tsar.data.windows import Batch, CovariateTensors, Inputs, SeriesTensors
from tsar.exceptions import DataError, DataWarning, ParameterError
from tsar.forecasting.layers.covariates import CovariateEncoder, CovariatePathway, CovariateSpec
from tsar.forecasting.outputs.losses import make_loss
from tsar.forecasting.outputs.objective import compare

SPEC = CovariateSpec(past=(0, 4), future=(0, 3, 0), static=(5,), n_calendar=2)


class LastValue(nn.Module):
    """Repeats the last value, and three quantiles around it where asked to."""

    def __init__(self, horizon: int, n_outputs: int = 0) -> None:
        super().__init__()
        self.horizon, self.n_outputs = horizon, n_outputs

    def forward(self, inputs: Inputs) -> torch.Tensor:
        last = inputs.target[:, -1:].expand(-1, self.horizon, -1)
        return last[..., None] + torch.arange(self.n_outputs) if self.n_outputs else last


def _inputs(batch=5, context=6, horizon=3, n_variates=2) -> Inputs:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    steps = context + horizon
    codes = torch.randint(0, 3, (batch, steps, 1), generator=generator).float()
    return Inputs(
        target=normal(batch, context, n_variates),
        past=torch.cat([normal(batch, context, 1), codes[:, :context]], dim=-1),
        future=torch.cat([normal(batch, steps, 1), codes, normal(batch, steps, 1)], dim=-1),
        static=codes[:, 0],
        calendar=normal(batch, steps, 2),
    )


def test_encoder_keeps_numbers_and_embeds_codes():
    encoder, inputs = CovariateEncoder(SPEC), _inputs()
    past, known, static = encoder(inputs)
    assert past.shape == (5, 6, encoder.n_past) and encoder.n_past == 1 + 2
    assert known.shape == (5, 9, encoder.n_known) and encoder.n_known == 2 + 2 + 2
    assert static.shape == (5, encoder.n_static) and encoder.n_static == 3
    torch.testing.assert_close(known[..., :2], inputs.future[..., [0, 2]])
    torch.testing.assert_close(known[..., -2:], inputs.calendar)
    unknown = inputs.future[..., 1] == 0
    assert unknown.any() and (known[unknown][:, 2:4] == 0).all()
    assert (known[~unknown][:, 2:4] != 0).all()


def test_encoder_of_nothing_has_no_features():
    encoder = CovariateEncoder(CovariateSpec(n_calendar=2))
    past, known, static = encoder(Inputs(_inputs().target, calendar=_inputs().calendar))
    assert past.shape == (5, 6, 0) and known.shape == (5, 9, 2) and static.shape == (5, 0)
    assert not CovariateSpec() and CovariateSpec(past=(0,))


def _pathway(spec: CovariateSpec, n_outputs: int = 0) -> CovariatePathway:
    network = LastValue(3, n_outputs)
    return CovariatePathway(network, spec, context_length=6, horizon=3, n_variates=2)


@pytest.mark.parametrize("n_outputs", [0, 3])
def test_pathway_begins_as_the_network_alone(n_outputs):
    inputs, pathway = _inputs(), _pathway(SPEC, n_outputs)
    torch.testing.assert_close(pathway(inputs), pathway.network(inputs))


@pytest.mark.parametrize("n_outputs", [0, 3])
def test_effects_leave_the_history_and_enter_the_forecast(n_outputs):
    pathway, inputs = _pathway(CovariateSpec(future=(0,)), n_outputs), _inputs()
    x = inputs.future[..., :1]
    weight = torch.tensor([[2.0], [-3.0]])
    with torch.no_grad():
        pathway.effect.weight.copy_(weight)
    forecast = pathway(Inputs(inputs.target, future=x))
    expected = inputs.target[:, -1:] + (x[:, 6:] - x[:, 5:6]) * weight[:, 0]
    if n_outputs:
        expected = expected[..., None] + torch.arange(3)
    torch.testing.assert_close(forecast, expected)
    unobserved = torch.zeros_like(inputs.target, dtype=torch.bool)
    forecast = pathway(Inputs(torch.zeros_like(inputs.target), unobserved, future=x))
    expected = x[:, 6:] * weight[:, 0]
    torch.testing.assert_close(forecast, expected if not n_outputs else pathway_q(expected))


def pathway_q(point: torch.Tensor) -> torch.Tensor:
    return point[..., None] + torch.arange(3)


def test_past_and_static_covariates_correct_the_whole_horizon():
    pathway, inputs = _pathway(CovariateSpec(past=(0,), static=(0,))), _inputs()
    given = Inputs(inputs.target, past=inputs.past[..., :1], static=inputs.static)
    with torch.no_grad():
        pathway.correction[-1].weight.normal_(generator=torch.Generator().manual_seed(1))
    whole = torch.cat([given.past[..., 0], given.static], dim=1)
    expected = pathway.network(given) + pathway.correction(whole).view(5, 3, 2)
    torch.testing.assert_close(pathway(given), expected)


class Teacher(LastValue):
    """Learns from the last step of the history as well."""

    def compare(self, batch):
        inputs = batch.inputs
        both = torch.cat([inputs.target[:, -2:-1], self(inputs)], dim=1)
        return both, torch.cat([inputs.target[:, -1:], batch.target], dim=1), None


@pytest.mark.parametrize("network", [LastValue(3, 0), Teacher(3, 0)])
def test_what_is_compared_is_left_over_by_the_effects(network):
    """Errors are those of the forecast; what a network learns besides is without effects."""
    inputs, future = _inputs(), torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(9))
    pathway = CovariatePathway(
        network, CovariateSpec(future=(0,)), context_length=6, horizon=3, n_variates=2
    )
    with torch.no_grad():
        pathway.effect.weight.copy_(torch.tensor([[2.0], [-3.0]]))
    given = Inputs(inputs.target, future=inputs.future[..., :1], calendar=inputs.calendar)
    forecast, target, observed, *_ = compare(pathway, Batch(given, future, None, None))
    assert observed is None
    errors = pathway(given) - future
    torch.testing.assert_close((forecast - target)[:, -3:], errors)
    if isinstance(network, Teacher):
        rest = inputs.target - pathway.effect(given.future[:, :6])
        torch.testing.assert_close((forecast - target)[:, 0], rest[:, -2] - rest[:, -1])


def test_a_calendar_that_is_no_covariate_is_left_to_the_network():
    seen = []

    class Spy(LastValue):
        def forward(self, inputs):
            seen.append(inputs.calendar)
            return super().forward(inputs)

    inputs = _inputs()
    for n_calendar, left in ((0, True), (2, False)):
        spec = CovariateSpec(future=(0, 3, 0), n_calendar=n_calendar)
        pathway = CovariatePathway(Spy(3, 0), spec, context_length=6, horizon=3, n_variates=2)
        pathway(Inputs(inputs.target, future=inputs.future, calendar=inputs.calendar))
        assert (seen.pop() is inputs.calendar) is left


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "quantile"])
def test_training_compares_what_is_left_with_the_same_error(loss):
    loss = make_loss(loss, [0.1, 0.5, 0.9] if loss == "quantile" else None)
    pathway, inputs = _pathway(SPEC, 3 if loss.make_output().n_outputs > 1 else 0), _inputs()
    for parameter in pathway.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    truth = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(2))
    observed = truth > -1
    compared = pathway.compare(Batch(inputs, truth, observed, None))
    torch.testing.assert_close(loss(*compared[:3]), loss(pathway(inputs), truth, observed))


def test_a_network_that_compares_something_else_is_asked_for_it():
    class FirstVariate(LastValue):
        def compare(self, batch):
            return self(batch.inputs)[..., :1], batch.target[..., :1], None

    spec, inputs = CovariateSpec(future=(0,)), _inputs()
    pathway = CovariatePathway(FirstVariate(3), spec, context_length=6, horizon=3, n_variates=2)
    with torch.no_grad():
        pathway.effect.weight.fill_(2.0)
    inputs = Inputs(inputs.target, future=inputs.future[..., :1])
    truth = torch.ones(5, 3, 2)
    forecast, target, observed, *_ = pathway.compare(Batch(inputs, truth, None, None))
    assert forecast.shape == target.shape == (5, 3, 1) and observed is None
    torch.testing.assert_close(target, truth[..., :1] - 2 * inputs.future[:, 6:])


def test_the_pathway_takes_its_own_covariates_and_hands_all_of_them_on():
    class Reader(LastValue):
        def forward(self, inputs):
            return super().forward(inputs) + inputs.calendar[:, 6:, :1] + inputs.static[:, None]

    inputs = _inputs()
    pathway = CovariatePathway(
        Reader(3), CovariateSpec(future=(0, 3, 0)), context_length=6, horizon=3, n_variates=2
    )
    assert pathway.encoder.n_known == 4 and pathway.correction is None
    torch.testing.assert_close(pathway(inputs), Reader(3)(inputs))


@pytest.mark.parametrize("masked", [False, True])
def test_first_effects_are_those_of_least_squares(masked):
    rng = np.random.default_rng(0)
    offsets, stop = np.array([0, 40, 90]), np.array([35, 90])
    x = rng.normal(size=(90, 2)).cumsum(axis=0)
    y = x @ [[0.5, -1.0], [2.0, 0.0]] + rng.normal(size=(90, 2))
    seen = rng.random((90, 2)) > 0.2 if masked else np.ones((90, 2), dtype=bool)
    covariates = CovariateTensors(
        torch.zeros(90, 0), torch.tensor(x).float(), torch.tensor(offsets), torch.zeros(2, 0), 2
    )
    series = SeriesTensors(
        torch.tensor(y).float(),
        torch.tensor(seen) if masked else None,
        torch.tensor(offsets),
        covariates=covariates,
    )
    pathway = _pathway(CovariateSpec(future=(0, 0)))
    pathway.estimate_effects(series, torch.tensor(stop))
    rows = np.r_[1:35, 41:90]
    for variate in range(2):
        use = rows[seen[rows, variate] & seen[rows - 1, variate]]
        expected = np.linalg.lstsq(x[use] - x[use - 1], y[use, variate] - y[use - 1, variate])[0]
        found = pathway.effect.weight[variate].detach()
        np.testing.assert_allclose(found, expected, atol=5e-3)


# -------------------------------------------------------------- from frame to forecast


def _long(rows: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    parts = []
    for series, name in enumerate(["x", "y", "z"]):
        part = pd.DataFrame({"unique_id": name, "ds": pd.date_range("2024", periods=rows)})
        part["price"] = rng.normal(size=rows)
        part["event"] = rng.choice(["none", "fair", "sale"], size=rows)
        part["visits"] = rng.poisson(5, size=rows)
        part["region"] = "north" if series else "south"
        part["y"] = part["price"] + 2 * (part["event"] == "sale") + 0.1 * rng.normal(size=rows)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _model(**parameters) -> tsar.NLinear:
    settings = dict(
        context_length=14,
        horizon=5,
        past_covariates="visits",
        future_covariates=["price", "event"],
        static_covariates=["region"],
        calendar_features=True,
        max_epochs=3,
        random_state=0,
    )
    return tsar.NLinear(**{**settings, **parameters})


def _future(model, horizon, df=None):
    frame = model.make_future_frame(horizon, df)
    rng = np.random.default_rng(5)
    return frame.assign(price=rng.normal(size=len(frame)), event="sale")


def test_every_kind_of_covariate_together(tmp_path):
    frame = _long()
    model = _model().fit(frame)
    future = _future(model, 12)
    assert list(future.columns) == ["unique_id", "ds", "price", "event"] and len(future) == 36
    forecast = model.predict(12, future=future)
    assert list(forecast.columns) == ["unique_id", "ds", "y", "extrapolated"]
    # A shorter horizon is the beginning, as long as the same is known of what comes later.
    shorter = model.predict(3, future=future)
    steps = forecast.groupby("unique_id").head(3)
    np.testing.assert_array_equal(shorter["y"], steps["y"])
    model.save(tmp_path / "model")
    again = tsar.load(tmp_path / "model").predict(12, future=future)
    pd.testing.assert_frame_equal(again, forecast)
    pd.testing.assert_frame_equal(
        model.predict(12, df=frame, future=future), forecast, check_exact=False, rtol=1e-5
    )


def test_new_series_bring_their_own_covariates():
    frame = _long()
    model = _model().fit(frame[frame["unique_id"] != "z"])
    new = frame[frame["unique_id"] == "z"]
    forecast = model.predict(df=new, future=_future(model, 5, new))
    assert forecast["unique_id"].unique().tolist() == ["z"] and forecast["y"].notna().all()
    with pytest.raises(DataError, match="future_covariates: the frame has no column 'price'"):
        model.predict(df=new.drop(columns="price"))


def test_windows_see_nothing_after_their_horizon_but_what_is_known():
    frame = _long()
    one = frame[frame["unique_id"] == "x"].drop(columns="unique_id")
    model = _model(static_covariates=None).fit(one)
    before = model.forecast_windows(one, [30])
    changed = one.copy()
    changed.loc[changed.index[30:], ["y", "visits"]] += 7
    changed.loc[changed.index[35:], "price"] += 7
    np.testing.assert_array_equal(model.forecast_windows(changed, [30]), before)
    changed.loc[changed.index[34:], "price"] += 7
    after = model.forecast_windows(changed, [30])
    np.testing.assert_array_equal(after[:, :4], before[:, :4])
    assert (after[:, 4] != before[:, 4]).all()


def test_training_continues_with_the_same_covariates_only():
    frame = _long()
    model = _model(early_stopping=False, max_epochs=2).fit(frame).partial_fit(frame)
    whole = _model(early_stopping=False, max_epochs=4).fit(frame)
    future = _future(model, 5)
    pd.testing.assert_frame_equal(model.predict(future=future), whole.predict(future=future))
    with pytest.raises(ParameterError, match="the covariates changed since the last fit"):
        model.set_params(future_covariates=["price"]).partial_fit(frame)


def test_scores_and_searches_work_with_covariates():
    frame = _long()[:60].drop(columns=["unique_id", "region"]).set_index("ds")
    model = _model(static_covariates=None, max_epochs=20, learning_rate=1e-2)
    helped = model.fit(frame[:40]).score(frame[40:])
    alone = model.set_params(future_covariates=None).fit(frame[["y", "visits"]][:40])
    assert helped > alone.score(frame[["y", "visits"]][40:])
    search = GridSearchCV(
        _model(static_covariates=None, early_stopping=False),
        {"learning_rate": [1e-2, 1e-3]},
        cv=TimeSeriesSplit(2),
    )
    assert np.isfinite(search.fit(frame).best_score_)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"future_covariates": ["visits"]}, "future_covariates must have names of their own"),
        ({"past_covariates": ["absent"]}, "past_covariates: the frame has no column 'absent'"),
        ({"static_covariates": ["y2"]}, "static covariate 'y2' changes within id 'x'"),
        ({"target": ["y", "price"]}, "is the target and has another role"),
    ],
)
def test_unusable_roles_are_refused(parameters, words):
    with pytest.raises((ParameterError, DataError), match=f"NLinear: .*{words}"):
        _model(**parameters).fit(_long().assign(y2=np.arange(180)))


@pytest.mark.parametrize(
    "cls",
    [
        *(tsar.AutoformerForecaster, tsar.iTransformer, tsar.SMamba, tsar.PatchTST, tsar.ARNet),
        *(tsar.AutoCon, tsar.AutoTCL, tsar.CARD, tsar.PITS, tsar.TSM2),
        *(tsar.SpaceTime, tsar.ETSformer, tsar.Chimera, tsar.DGM2, tsar.TSDiff, tsar.TimeMoE),
        *(tsar.Informer, tsar.LSTNet, tsar.PVRNN),
    ],
)
def test_a_shorter_horizon_is_a_prefix_where_the_frame_goes_on(cls):
    frame = _long()
    model = small_forecaster(
        cls,
        context_length=18,
        future_covariates=["price", "event"],
        max_epochs=1,
    ).fit(frame)
    future = _future(model, 9)
    full = model.predict(6, future=future)
    for steps in (1, 4):
        expected = full.groupby("unique_id").head(steps).reset_index(drop=True)
        shorter = model.predict(steps, future=future)
        pd.testing.assert_frame_equal(shorter, expected, check_exact=True)
    # Rolled on, the last pass reads as far as the frame goes.
    longer = model.predict(12, future=_future(model, 12)).groupby("unique_id").head(9)
    again = model.predict(9, future=_future(model, 12))
    pd.testing.assert_frame_equal(again, longer.reset_index(drop=True), check_exact=True)
    with pytest.raises(DataError, match="(?s)is missing for id .*needed are all 8 steps"):
        model.predict(8, future=future.groupby("unique_id").head(7))


def test_errors_of_columns_name_the_estimator():
    frame = _long()
    for changed in (frame.assign(price=np.inf), frame.assign(price=pd.Timestamp("2024"))):
        with pytest.raises(DataError, match="^NLinear: covariate 'price' holds"):
            _model().fit(changed)
    model = _model().fit(frame)
    future = _future(model, 5)
    for changed in (frame.assign(price="dear"), frame.assign(price=np.inf)):
        with pytest.raises(DataError, match="^NLinear: covariate 'price'"):
            model.predict(df=changed, future=future)
    with pytest.raises(DataError, match="^NLinear: covariate 'price' was fitted as numbers"):
        model.predict(future=future.assign(price="dear"))
    with pytest.raises(DataError, match="future_covariates: a Series has no column 'price'"):
        tsar.NLinear(context_length=14, horizon=5, future_covariates="price").fit(
            pd.Series(np.arange(60.0), index=pd.date_range("2024", periods=60))
        )


def test_a_covariate_that_never_moved_in_training_moves_no_forecast():
    frame = pd.DataFrame(
        {"y": np.sin(np.arange(60.0)), "price": 0.3}, index=pd.date_range("2024", periods=60)
    )
    model = tsar.NLinear(
        context_length=14, horizon=5, future_covariates="price", max_epochs=2, random_state=0
    ).fit(frame)
    future = model.make_future_frame()
    same, other = (model.predict(future=future.assign(price=price)) for price in (0.3, 0.5))
    pd.testing.assert_frame_equal(same, other, check_exact=True)


def test_future_rows_are_needed_and_only_where_declared():
    frame = _long()
    model = _model().fit(frame)
    with pytest.raises(DataError, match="NLinear: the future covariate 'price' is missing"):
        model.predict()
    plain = tsar.NLinear(context_length=14, horizon=5, max_epochs=1).fit(frame)
    with pytest.raises(ParameterError, match="future must be None for a model without"):
        plain.predict(future=_future(model, 5))


@pytest.mark.parametrize("name", ["NLinear", "iTransformer", "ARNet", "AutoformerForecaster"])
@pytest.mark.parametrize("role", ["static_covariates", "future_covariates"])
def test_unknown_and_missing_categories_are_told_apart(name, role):
    rows, steps = 30, np.arange(30)
    level = {"a": 0.0, "b": 10.0, None: 20.0}
    rng = np.random.default_rng(0)
    parts = []
    for number in range(6):
        kind = [list(level)[number % 3]] * rows
        if role == "future_covariates":
            kind = list(rng.choice(np.array(list(level), dtype=object), size=rows))
        values = np.array([level[one] for one in kind]) + np.sin(steps / 3)
        days = pd.date_range("2024-01-01", periods=rows)
        parts.append(
            pd.DataFrame({"unique_id": f"s{number}", "ds": days, "y": values, "kind": kind})
        )
    data = pd.concat(parts, ignore_index=True)
    model = small_forecaster(
        getattr(tsar, name), context_length=6, horizon=2, max_epochs=1, target="y", scaler=None
    )
    model.set_params(**{role: "kind"}).fit(data)
    coding = (model.learned_.coding.static or model.learned_.coding.future)[0]
    assert coding.missing and coding.n_categories == 4
    one = data[data["unique_id"] == "s0"]
    found = {}
    for kind in ("a", "b", None, "new"):
        history = one.assign(kind=pd.Series([kind] * rows, index=one.index, dtype=object))
        ahead = {}
        if role == "future_covariates":
            future = model.make_future_frame(df=one).assign(kind="a")
            ahead = {"future": future}
        expected = pytest.warns(DataWarning) if kind == "new" else contextlib.nullcontext()
        with expected:
            found[kind] = model.predict(df=history, **ahead)["y"].to_numpy()
    for kind, other in itertools.combinations(found, 2):
        assert not np.array_equal(found[kind], found[other]), (kind, other)
