import dataclasses
import functools

import pytest

from tsar.data.datasets import load_card
from tsar.evaluation import load_recipe, recipe_names, run_recipe
from tsar.evaluation.recipes import Cell, Result
from tsar.exceptions import DataError, ParameterError
from tsar.forecasting.registry import forecaster_class
from tsar.training import Adam
from tsar.training.schedules import Decaying

# What a release promises: the band of both errors, or of MSE and MAE, and whether it is one-sided.
GATES = {
    "itransformer_etth1_96": (0.0115, False),
    "itransformer_exchange_96": (0.0025, False),
    "nlinear_etth1_96": (0.004, False),
    "patchtst_etth1_96": (0.003, True),
    "patchtst_etth1_192": (0.006, True),
    "patchtst_etth1_336": (0.012, True),
    "patchtst_etth1_720": (0.013, True),
    "patchtst_etth2_96": (0.006, True),
    "patchtst_etth2_192": (0.01, True),
    "patchtst_etth2_336": (0.009, True),
    "patchtst_etth2_720": (0.011, True),
    "informer_etth1_24": ((0.1442, 0.1372), True),
    "autoformer_exchange_96": ((0.039, 0.0646), True),
    "etsformer_illness_24": ((0.379, 0.153), True),
    "autoformer_illness_60": ((0.554, 0.225), True),
}

# Single runs of the authors' code differ by as much from each other.
WIDEST = {"AutoformerForecaster": 0.2, "ETSformer": 0.15, "Informer": 0.25}


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_is_complete(name):
    recipe = load_recipe(name)
    model = forecaster_class(recipe.model)()
    parameters = set(model.get_params()) - {"horizon", "device", "verbose"}
    assert set(recipe.params) <= parameters
    assert set(recipe.pretrain or {}) <= parameters | {"mask_ratio"}
    assert recipe.cells and recipe.title
    for cell in recipe.cells:
        if cell.baseline:
            assert forecaster_class(cell.published.model)
            assert load_card(cell.dataset).borders is not None
            assert (set(cell.band.values()), cell.one_sided) == ({0.0}, True)
            continue
        assert cell.published in load_card(cell.dataset).published
        widest = WIDEST.get(recipe.model, 0.08)
        assert 0 < cell.band["mse"] <= widest * cell.published.mse
        # One number for both is in proportion to the larger error.
        assert 0 < cell.band["mae"] <= widest * max(cell.published.mse, cell.published.mae)


@pytest.mark.parametrize(("name", "bounds"), GATES.items())
def test_bands_are_the_promised_ones(name, bounds):
    (cell,) = load_recipe(name).cells
    band, one_sided = bounds
    mse, mae = band if isinstance(band, tuple) else (band, band)
    assert (cell.band, cell.one_sided) == ({"mse": mse, "mae": mae}, one_sided)


def test_bands_of_the_pretrained_model_are_five_percent():
    cells = load_recipe("patchtst_pretrained_etth1").cells
    assert [(cell.published.horizon, cell.published.mse, cell.band["mse"]) for cell in cells] == [
        (24, 0.322, 0.016),
        (48, 0.354, 0.017),
    ]


@pytest.mark.parametrize(
    ("one_sided", "obtained", "within"),
    [(False, 1.29, True), (False, 1.28, False), (True, 1.28, True), (True, 1.31, False)],
)
def test_band(one_sided, obtained, within):
    published = load_card("ETTh1").published[0]
    band = {"mse": 0.01, "mae": 9.0}
    result = Result(Cell("ETTh1", published, band, one_sided), "mse", obtained, 7, 0.1)
    assert result.published == 1.295
    assert result.difference == pytest.approx(obtained - 1.295)
    assert result.within is within


def test_unknown_recipe_gets_a_suggestion():
    with pytest.raises(ParameterError, match="did you mean 'naive'"):
        load_recipe("naives")


def test_cell_that_is_not_on_the_card_is_refused(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        'title = "x"\nmodel = "Naive"\n[[cells]]\ndataset = "ETTh1"\nhorizons = [95]\n'
        'published = "Repeat"\ndrop_last = true\nband = 0.1\n'
    )
    with pytest.raises(DataError, match="no cell Repeat, horizon 95, drop_last true"):
        load_recipe(path)


def test_repeating_the_last_value_gives_every_published_cell(published_data):
    """Files, splits, scale, windows and measure, to the third decimal."""
    pairs = list(run_recipe(load_recipe("naive")))
    assert len(pairs) == 32
    missed = [result for pair in pairs for result in pair if not result.within]
    assert not missed


def test_baselines_are_measured_beside_the_model(published_data, tmp_path, monkeypatch):
    """The model is fitted once for all of them, and has to be below each."""
    path = tmp_path / "own.toml"
    path.write_text(
        'title = "x"\nmodel = "NLinear"\n[params]\nmax_steps = 1\n[[cells]]\ndataset = "ETTh1"\n'
        'horizons = [96]\nbaselines = ["SeasonalNaive", "Naive"]\ndrop_last = false\n'
    )
    recipe = load_recipe(path)
    assert [cell.published.model for cell in recipe.cells] == ["SeasonalNaive", "Naive"]
    cls = forecaster_class("NLinear")
    fits, fit = [], cls.fit
    monkeypatch.setattr(cls, "fit", lambda self, df: fits.append(len(df)) or fit(self, df))
    seasonal, repeat = run_recipe(recipe)
    assert fits == [11520]
    # Repeating the last value has a published error; one day repeated is far better.
    assert [result.published for result in repeat] == pytest.approx([1.2944, 0.7132], abs=5e-5)
    assert all(a.published < b.published for a, b in zip(seasonal, repeat, strict=True))
    for result in (*seasonal, *repeat):
        assert result.within is (result.obtained <= result.published)
        assert result.bound == "at most +0" and result.n_windows == 2785
    assert seasonal[0].obtained == repeat[0].obtained


def test_fit_sees_the_validation_rows_and_nothing_after(published_data, monkeypatch):
    recipe = load_recipe("nlinear_etth1_96")
    cls = forecaster_class("NLinear")
    seen = {}
    fit = cls.fit

    def spy(self, df, y=None):
        seen["rows"], seen["validation"] = len(df), self.early_stopping
        return fit(self, df, y)

    monkeypatch.setattr(cls, "fit", spy)
    next(run_recipe(dataclasses.replace(recipe), {"max_steps": 1}))
    assert seen == {"rows": 11520, "validation": 2880}


def test_objects_of_a_recipe_are_read(published_data, monkeypatch):
    recipe, seen = load_recipe("etsformer_illness_24"), []
    cls = forecaster_class("ETSformer")
    monkeypatch.setattr(cls, "fit", lambda self, df: seen.append(self))
    monkeypatch.setattr(
        "tsar.evaluation.recipes.evaluate", lambda *_, **__: {"mse": 1, "mae": 1, "n_windows": 2}
    )
    assert len(list(run_recipe(recipe))) == 1
    assert seen[0].optimizer == Adam(clip=1.0, rates={"*.logit": 100.0})
    assert seen[0].learning_rate_schedule == Decaying(full_epochs=5, warmup_steps=76)


def test_pretraining_has_parameters_of_its_own_and_the_same_rows(published_data, monkeypatch):
    """It is done once for all horizons, and every fit starts from it."""
    recipe = load_recipe("patchtst_pretrained_etth1")
    cls, seen = forecaster_class("PatchTST"), []
    for name in ("pretrain", "fit"):
        # With the signature of what it stands for, by which arguments are told from parameters.
        @functools.wraps(getattr(cls, name))
        def spy(self, df, y=None, name=name, **asked):
            seen.append((name, self, len(df), self.get_params() | asked))
            return self

        monkeypatch.setattr(cls, name, spy)
    monkeypatch.setattr(
        "tsar.evaluation.recipes.evaluate", lambda *_, **__: {"mse": 1, "mae": 1, "n_windows": 2}
    )
    assert recipe.pretrain and len(list(run_recipe(recipe, {"device": "cpu"}))) == 2
    names, models, lengths, parameters = zip(*seen, strict=True)
    assert names == ("pretrain", "fit", "fit") and set(lengths) == {11520}
    assert models[0] is models[1] is models[2]
    expected = [recipe.params | recipe.pretrain, recipe.params, recipe.params]
    for own, given, horizon in zip(parameters, expected, (24, 24, 48), strict=True):
        # True has become the validation rows of the split.
        wanted = given | {"horizon": horizon, "device": "cpu", "early_stopping": 2880}
        assert wanted.items() <= own.items()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nlinear_etth1_96", "dlinear_etth1_96"])
def test_linear_models_reproduce_their_table(name, published_data):
    (pair,) = run_recipe(load_recipe(name))
    assert all(result.within for result in pair)


GOOD = """
title = "x"
model = "Naive"

[[cells]]
dataset = "ETTh1"
horizons = [96]
published = "Repeat"
drop_last = true
band = 1
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title", "titel"), r"key must be one of .* got 'titel' \(did you mean 'title'\?\)"),
        (("band", "bend"), r"key must be one of .* got 'bend' \(did you mean 'band'\?\)"),
        (('title = "x"', ""), "recipe own: 'title' is missing"),
        (
            ("horizons = [96]", "horizons = 96"),
            "recipe own: horizons must be a list .* each an integer in .* got 96",
        ),
        (('"x"', '"x'), "recipe own cannot be read: Illegal character"),
        (("[[cells]]", "[cells]"), "recipe own: cells must be a list or tuple, each a table, got"),
        (("band = 1", "band = { mse = 1 }"), "band must be a number, or a table .* got {'mse': 1}"),
        (("band = 1", "band = -1"), "band must be a number, or a table .* got -1"),
    ],
)
def test_what_is_no_recipe_says_why(tmp_path, change, message):
    path = tmp_path / "own.toml"
    path.write_text(GOOD)
    assert len(load_recipe(path).cells) == 1
    path.write_text(GOOD.replace(*change))
    with pytest.raises((DataError, ParameterError), match=message):
        load_recipe(path)
    with pytest.raises(DataError, match="there is no recipe"):
        load_recipe(tmp_path / "other.toml")
