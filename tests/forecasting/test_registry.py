import pytest

from tsar import forecasting
from tsar.exceptions import ParameterError
from tsar.forecasting.registry import forecaster_class, forecaster_names
from tsar.params.text import parse_parameters
from tsar.training import AdamW, Cosine


def test_names_follow_from_the_package():
    assert forecaster_names() == sorted(forecasting.__all__)
    assert {"DLinear", "NLinear", "Naive", "PatchTST", "SeasonalNaive"} <= set(forecaster_names())
    for name in forecaster_names():
        assert forecaster_class(name).__name__ == name


def test_unknown_model_gets_a_suggestion():
    with pytest.raises(ParameterError, match="did you mean 'PatchTST'"):
        forecaster_class("PatchTSM")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("context_length=168", 168),
        ("learning_rate=1e-4", 1e-4),
        ("learning_rate=1", 1.0),
        ("early_stopping=False", False),
        ("early_stopping=true", True),
        ("max_steps=none", None),
        ("max_steps=7", 7),
        ("loss=quantile", "quantile"),
        ("quantiles=0.1,0.5,0.9", (0.1, 0.5, 0.9)),
        ("quantiles=[0.25, 0.75]", (0.25, 0.75)),
        ("quantiles=none", None),
        ("early_stopping=48", 48),
        ("early_stopping=0.25", 0.25),
        ("freq=h", "h"),
        ("device = cpu", "cpu"),
        ("scaler=none", None),
        ("target=a=b", "a=b"),
        ("target=a,b", ("a", "b")),
    ],
)
def test_settings_are_read_with_the_types_of_the_parameters(setting, value):
    (found,) = parse_parameters(forecaster_class("NLinear"), [setting]).values()
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("name", sorted(set(forecaster_names()) - {"Ensemble"}))
def test_no_forecaster_has_more_parameters_than_can_be_read(name):
    assert len(forecaster_class(name)().get_params()) < 40


def test_objects_are_read_from_a_call_with_plain_values():
    cls = forecaster_class("NLinear")
    texts = ["optimizer=AdamW(weight_decay=.1, betas=(.9, .95))"]
    texts += ["learning_rate_schedule=Cosine(lowest=0.1, warmup_steps=10)"]
    read = parse_parameters(cls, texts)
    optimizer, schedule = read["optimizer"], read["learning_rate_schedule"]
    assert type(optimizer) is AdamW and optimizer.weight_decay == 0.1
    assert optimizer.betas == (0.9, 0.95)
    assert type(schedule) is Cosine and (schedule.lowest, schedule.warmup_steps) == (0.1, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AdamW(wd=1)", "cannot be read: .*'wd'"),
        ("AdamW(weight_decay=-1)", "AdamW: weight_decay must be"),
        ("AdamW(weight_decay=x)", "cannot be read"),
        ("Admw(weight_decay=1)", None),
        ("__import__('os').system('true')", None),
        ("AdamW(", None),
        ("AdamW(0.1)", None),
    ],
)
def test_text_that_makes_no_object_is_an_error_or_stays_text(text, message):
    cls = forecaster_class("NLinear")
    if message is None:
        assert parse_parameters(cls, [f"optimizer={text}"]) == {"optimizer": text}
        with pytest.raises(ParameterError, match="optimizer must be one of"):
            cls(optimizer=text).check()
        return
    with pytest.raises(ParameterError, match=message):
        parse_parameters(cls, [f"optimizer={text}"])


def test_text_that_fits_no_type_is_left_to_fit(wide):
    cls = forecaster_class("NLinear")
    params = parse_parameters(cls, ["context_length=many"])
    with pytest.raises(ParameterError, match=r"context_length must be an integer in \[1, inf\)"):
        cls(**params).fit(wide)


@pytest.mark.parametrize(
    ("setting", "message"),
    [("context_length", "must be name=value"), ("context_lenght=3", "mean 'context_length'")],
)
def test_settings_that_name_nothing_are_refused(setting, message):
    with pytest.raises(ParameterError, match=message):
        parse_parameters(forecaster_class("NLinear"), [setting])


@pytest.mark.parametrize("name", forecaster_names())
def test_defaults_survive_the_round_trip_through_text(name):
    """Every default, written out, is read back as it was."""
    cls = forecaster_class(name)
    for key, value in cls().get_params(deep=False).items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert parse_parameters(cls, [f"{key}={text}"]) == {key: value}
