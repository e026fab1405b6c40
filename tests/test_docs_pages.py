"""What the documentation generates: API pages, pages of classes, the table of models, figures."""

import ast
import importlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import tsar
from tsar.forecasting.registry import forecaster_class, forecaster_names

EXTENSIONS = Path(__file__).resolve().parents[1] / "docs" / "_ext"


@pytest.fixture
def extension(monkeypatch):
    """Import a module of the documentation by its name."""
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    return importlib.import_module


def test_every_public_name_stands_in_one_section(extension, monkeypatch):
    api_pages = extension("api_pages")
    listed = [path for paths in api_pages.by_section().values() for path in paths]
    assert sorted(listed) == sorted(api_pages.public_names())
    assert all(api_pages.by_section().values())
    assert set(tsar.__all__) <= set(listed)
    monkeypatch.setattr(api_pages, "SECTIONS", api_pages.SECTIONS[:-1])
    with pytest.raises(LookupError, match="belongs to no section of the API pages"):
        api_pages.by_section()


def test_names_stand_where_they_are_looked_for(extension, tmp_path):
    api_pages = extension("api_pages")
    place = {path: one.slug for one, paths in api_pages.by_section().items() for path in paths}
    assert place["NLinear"] == "forecasters" and place["Forecaster"] == "writing"
    assert place["evaluation.backtest"] == "backtests" and place["plot.backtest"] == "figures"
    assert place["evaluation.mase"] == "metrics" and place["core.mixers.MIXERS"] == "writing"
    api_pages.write_api_pages(tmp_path)
    assert "   evaluation.mase\n" in (tmp_path / "metrics.rst").read_text(encoding="utf-8")
    assert ":py:obj:`~tsar.plot.forecasts`" in (tmp_path / "index.rst").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", forecaster_names())
def test_a_page_has_every_parameter_once_and_what_users_call_first(extension, name):
    class_pages = extension("class_pages")
    cls = forecaster_class(name)
    lines = class_pages.page_of(f"tsar.{name}", cls)
    rows = [line.split("``")[1] for line in lines if line.strip().startswith("* - ``")]
    given = cls().get_params()
    shown = [row.split(" = ")[0] for row in rows if " = " in row]
    assert sorted(shown) == sorted(given)
    assert all(f"{key} = {value!r}" in rows for key, value in given.items())
    methods = [line.rpartition(".")[2] for line in lines if line.startswith(f"   ~tsar.{name}.")]
    assert methods[:3] == ["fit", "predict", "calibrate"]
    assert len(methods) == len(set(methods))
    assert not [line for line in lines if line.endswith("_request")]
    # What users call is described at length, what authors call is listed.
    described = [line for line in lines if line.startswith(".. automethod::")]
    assert f".. automethod:: tsar.{name}.make_future_frame" in described
    assert not [line for line in described if "learned_state" in line]


def test_parameters_are_grouped_by_what_they_are_about(extension):
    lines = extension("class_pages").page_of("tsar.PatchTST", forecaster_class("PatchTST"))
    heads = [n for n, line in enumerate(lines) if line.startswith(".. rubric:: Parameters: ")]
    assert [lines[n].rpartition(" ")[2] for n in heads] == ["model", "training", "data"]
    groups = [("horizon", "patch_length", "mixer"), ("loss", "device"), ("freq", "output_range")]
    for names, begin, end in zip(groups, heads, [*heads[1:], len(lines)], strict=True):
        part = "\n".join(lines[begin:end])
        assert all(f"``{name} = " in part for name in names)


def test_signatures_are_python_without_constraints(extension):
    class_pages = extension("class_pages")
    written, _ = class_pages.write_signature(
        None, "class", "tsar.PatchTST", tsar.PatchTST, None, "", None
    )
    (function,) = ast.parse(f"def fit{written}: ...").body
    assert sorted(one.arg for one in function.args.kwonlyargs) == sorted(
        tsar.PatchTST().get_params()
    )
    assert "Annotated" not in written and "Interval" not in written
    assert written.startswith("(*, horizon=24, context_length=")
    assert class_pages.write_signature(None, "class", "x", tsar.Panel, None, "(a)", None) is None


def test_a_section_of_a_docstring_is_dropped_whole(extension):
    class_pages = extension("class_pages")
    text = "Summary.\n\nParameters\n----------\na : int\n    One.\n\nNotes\n-----\nNote."
    lines = text.split("\n")
    class_pages.drop_section(lines, "Parameters")
    assert lines == ["Summary.", "", "Notes", "-----", "Note."]
    class_pages.drop_section(lines, "Examples")
    class_pages.drop_section(lines, "Notes")
    assert lines == ["Summary.", ""]


def test_the_table_of_models_says_what_they_can_do(extension):
    model_table = extension("model_table")
    can = {
        name: {key for key, mark in model_table.entries(forecaster_class(name)).items() if mark}
        for name in ("SeasonalNaive", "ARIMA", "NLinear", "iTransformer", "PatchTST")
    }
    everyone = {"learns", "missing", "new series"}
    network = everyone | {"distribution", "past", "future", "static"}
    assert can["SeasonalNaive"] == everyone
    assert can["ARIMA"] == everyone | {"future"}
    assert can["NLinear"] == network
    assert can["iTransformer"] == network | {"joint", "mixer"}
    assert can["PatchTST"] == network | {"pretrain", "mixer"}
    rows = model_table.model_table(["Naive"]).split("\n")
    assert rows[0].count("|") == rows[1].count("|") == rows[2].count("|")
    assert "nothing" in rows[2]


def test_figures_of_an_example_are_found_by_their_names(extension):
    gallery_figures = extension("gallery_figures")
    one, two = Figure(), Figure()
    ax, axes = one.add_subplot(), two.subplots(2, 2)
    names = {"ax": ax, "figure": one, "axes": axes, "count": 3, "empty": np.array([])}
    assert gallery_figures.figures_in(names) == [one, two]
