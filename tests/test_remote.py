"""Models and files at addresses, compared with those on this machine."""

import sys

import fsspec
import numpy as np
import pandas as pd
import pytest

import tsar
from tsar.batch import forecast
from tsar.cli.main import main
from tsar.exceptions import DataError, MissingExtraError, ParameterError, PersistenceError
from tsar.remote import Storage, address_in

FILES = ["arrays.safetensors", "manifest.json", "model.json"]


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def sold(memory):
    days = pd.date_range("2024-01-01", periods=30).astype(str)
    values = np.random.default_rng(1).normal(10, 1, (2, 30)).round(2)
    frame = pd.DataFrame(
        {"unique_id": np.repeat(["a", "b"], 30), "ds": np.tile(days, 2), "y": values.reshape(-1)}
    )
    memory.pipe_file("/shop/sold.csv", frame.to_csv(index=False).encode())
    return frame


def _fitted(horizon: int = 5) -> tsar.SeasonalNaive:
    index = pd.date_range("2024-01-01", periods=30)
    frame = pd.DataFrame({"a": np.arange(30.0) % 7}, index=index)
    return tsar.SeasonalNaive(horizon=horizon).fit(frame)


@pytest.mark.parametrize(
    "path, address",
    [
        ("s3://bucket/name", "s3://bucket/name"),
        ("simplecache::s3://bucket/name", "simplecache::s3://bucket/name"),
        ("s3:/bucket/name", None),
        ("C:/models/name", None),
        ("models/name", None),
        ("/models/a:/b", None),
        (None, None),
        (3, None),
    ],
)
def test_what_is_an_address(path, address):
    assert address_in(path) == address


def test_a_path_object_of_an_address_is_one(tmp_path):
    assert address_in(type(tmp_path)("s3://bucket/name")) == "s3://bucket/name"
    assert address_in(tmp_path) is None


# --------------------------------------------------------------------- models


def test_a_saved_model_forecasts_as_before(memory):
    model = _fitted()
    model.save("memory://models/sea")
    assert sorted(one.rpartition("/")[2] for one in memory.ls("/models/sea", detail=False)) == FILES
    pd.testing.assert_frame_equal(tsar.load("memory://models/sea").predict(), model.predict())
    other = _fitted(horizon=9)
    other.save("memory://models/sea")
    pd.testing.assert_frame_equal(tsar.load("memory://models/sea/").predict(), other.predict())


def test_files_are_those_of_a_folder_here(memory, tmp_path):
    model = _fitted()
    model.save("memory://models/sea")
    model.save(tmp_path / "model")
    for name in FILES:
        assert memory.cat_file(f"/models/sea/{name}") == (tmp_path / "model" / name).read_bytes()


def test_a_model_that_is_half_written_is_refused(memory):
    _fitted().save("memory://models/sea")
    before = memory.cat_file("/models/sea/arrays.safetensors")
    put, sent = memory.put_file, []

    def ends_early(lpath, rpath, **options):
        if sent:
            raise OSError("the connection ended")
        sent.append(rpath)
        put(lpath, rpath, **options)

    memory.put_file = ends_early
    try:
        with pytest.raises(PersistenceError, match="memory://models/sea .*the connection ended"):
            _fitted(horizon=9).save("memory://models/sea")
    finally:
        del memory.put_file
    assert before == memory.cat_file("/models/sea/arrays.safetensors")
    with pytest.raises(PersistenceError, match="manifest.json is missing"):
        tsar.load("memory://models/sea")
    # Saving again mends it.
    _fitted(horizon=9).save("memory://models/sea")
    assert len(tsar.load("memory://models/sea").predict()) == 9


def test_damage_and_absence_name_the_address(memory):
    with pytest.raises(PersistenceError, match="'memory://models/none' is no saved model"):
        tsar.load("memory://models/none")
    _fitted().save("memory://models/sea")
    memory.pipe_file("/models/sea/arrays.safetensors", b"short")
    with pytest.raises(PersistenceError, match="'memory://models/sea' has 5 bytes"):
        tsar.load("memory://models/sea")


def test_a_folder_of_something_else_is_left_alone(memory):
    memory.pipe_file("/shop/sold.csv", b"y\n1\n")
    with pytest.raises(PersistenceError, match="holds more than a saved model"):
        _fitted().save("memory://shop")
    assert memory.ls("/shop", detail=False) == ["/shop/sold.csv"]
    with pytest.raises(PersistenceError, match="holds more than a saved model"):
        _fitted().save("memory://shop/sold.csv")
    assert memory.cat_file("/shop/sold.csv") == b"y\n1\n"


def test_other_places_are_one_error(monkeypatch):
    for call in (_fitted().save, tsar.load):
        with pytest.raises(PersistenceError, match="'nowhere://a/b' cannot be reached.*s3://"):
            call("nowhere://a/b")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    for call in (_fitted().save, tsar.load):
        with pytest.raises(MissingExtraError, match=r"pip install 'tsar\[remote\]'"):
            call("memory://models/sea")


def test_a_file_system_without_its_package_names_it(monkeypatch):
    def lacking(*args, **options):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacking)
    with pytest.raises(MissingExtraError, match="Install s3fs"):
        Storage("load", "s3://bucket/name")


# ---------------------------------------------------------------------- batch


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_batch_writes_what_it_writes_here(memory, sold, tmp_path, ending):
    sold.to_csv(tmp_path / "sold.csv", index=False)
    options = {"model": "SeasonalNaive", "horizon": 4}
    here = forecast(tmp_path / "sold.csv", out=tmp_path / f"out.{ending}", **options)
    there = forecast(
        "memory://shop/sold.csv",
        out=f"memory://results/out.{ending}",
        report="memory://results/report.json",
        **options,
    )
    expected = (tmp_path / f"out.{ending}").read_bytes()
    assert memory.cat_file(f"/results/out.{ending}") == expected
    names = sorted(one.rpartition("/")[2] for one in memory.ls("/results", detail=False))
    assert names == [f"out.{ending}", "report.json"]
    assert there.n_series == here.n_series == 2
    assert "memory://shop/sold.csv: " in there.reading
    assert b"tsar-" not in memory.cat_file("/results/report.json")


def test_a_batch_takes_a_model_and_a_path_object(memory, sold, tmp_path):
    model = tsar.SeasonalNaive(horizon=4).fit(sold)
    model.save("memory://models/shop")
    source = type(tmp_path)("memory://shop/sold.csv")
    done = forecast(source, model="memory://models/shop")
    expected = model.predict(df=sold)
    assert done.forecast["y"].tolist() == expected["y"].tolist()


def test_the_command_line_takes_addresses(memory, sold):
    model = tsar.SeasonalNaive(horizon=4).fit(sold)
    model.save("memory://models/shop")
    arguments = ["forecast", "memory://shop/sold.csv", "--model", "memory://models/shop"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--horizon", "4", "--out", "memory://results/out.csv"])
    assert not ended.value.code
    with memory.open("/results/out.csv") as file:
        assert pd.read_csv(file)["y"].tolist() == model.predict()["y"].tolist()


def test_a_failed_batch_leaves_nothing(memory, sold):
    memory.pipe_file("/shop/bad.csv", b"unique_id,ds,y\na,2024-01-01,x\n")
    with pytest.raises(DataError):
        forecast("memory://shop/bad.csv", model="Naive", horizon=2, out="memory://results/out.csv")
    assert not memory.exists("/results/out.csv")
    assert not memory.isdir("/results") or memory.ls("/results", detail=False) == []


def test_a_batch_of_no_file_names_the_address(memory):
    with pytest.raises(DataError, match="there is no file memory://shop/none.csv"):
        forecast("memory://shop/none.csv", model="Naive", horizon=2)


def test_a_place_that_cannot_be_written_is_told_before_the_work(memory, sold, monkeypatch):
    def refused(*args, **options):
        raise PermissionError("access denied")

    monkeypatch.setattr(type(memory), "pipe_file", refused)
    monkeypatch.setattr(tsar.SeasonalNaive, "fit", lambda *args: pytest.fail("work began"))
    with pytest.raises(
        DataError, match="memory://results/out.csv cannot be written: access denied"
    ):
        forecast("memory://shop/sold.csv", model="SeasonalNaive", out="memory://results/out.csv")


def test_resume_is_for_this_machine(memory, sold):
    with pytest.raises(ParameterError, match="resume .*paths on this machine"):
        forecast(
            "memory://shop/sold.csv",
            model="SeasonalNaive",
            out="memory://results/out.csv",
            resume=True,
        )
