import hashlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tsar.data import datasets
from tsar.data.datasets import (
    Borders,
    dataset_names,
    fetch_dataset,
    load_card,
    load_dataset,
)
from tsar.exceptions import DataError, MissingExtraError, ParameterError

FILES = ["ETTh1", "ETTh2", "exchange_rate", "national_illness"]
BUNDLED = ["co2", "elnino", "macrodata"]


def test_every_set_of_the_first_release_has_a_card():
    assert set(dataset_names()) >= {*FILES, *BUNDLED}


@pytest.mark.parametrize("name", dataset_names())
def test_card_is_complete(name):
    card = load_card(name)
    assert card.name == name
    for text in (card.title, card.description, card.licence, card.homepage, card.citation):
        assert text.strip() == text != ""
    assert card.homepage.startswith("https://")
    assert len(set(card.columns)) == len(card.columns) > 0
    assert card.bundled == (card.file is None)
    if card.file is not None:
        assert card.file.url.startswith("https://")
        assert len(bytes.fromhex(card.file.sha256)) == 32
    for cell in card.published:
        assert 0 < cell.mse and 0 < cell.mae and cell.source and cell.batch_size > 0


@pytest.mark.parametrize("name", FILES)
def test_borders_follow_the_published_rule(name):
    card = load_card(name)
    if name.startswith("ETT"):
        expected = Borders(*np.cumsum([12, 4, 4]) * 30 * 24)
    else:
        train, test = int(card.rows * 0.7), int(card.rows * 0.2)
        expected = Borders(train, card.rows - test, card.rows)
    assert card.borders == expected


@pytest.mark.parametrize(("train", "val", "test"), [(0, 1, 2), (5, 4, 9), (5, 9, 9)])
def test_borders_in_the_wrong_order_are_refused(train, val, test):
    with pytest.raises(DataError, match="train_end <= val_end < test_end"):
        Borders(train, val, test)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_set_needs_nothing(name, monkeypatch):
    monkeypatch.delenv("TSAR_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    card, frame = load_card(name), load_dataset(name)
    assert frame.shape == (card.rows, len(card.columns))
    assert frame.index.freq == pd.tseries.frequencies.to_offset(card.frequency)
    assert (frame.dtypes == "float64").all()
    assert fetch_dataset(name) is None


def test_elnino_rows_are_years_and_columns_months():
    from statsmodels.datasets import elnino

    source = elnino.load_pandas().data.set_index("YEAR")
    frame = load_dataset("elnino")["sea_temperature"]
    assert frame["1983-06-01"] == source.loc[1983, "JUN"]
    assert frame["2010-12-01"] == source.loc[2010, "DEC"]


def test_co2_keeps_its_missing_weeks():
    frame = load_dataset("co2")
    assert frame["co2"].isna().sum() == 59
    assert frame.loc["1958-03-29", "co2"] == 316.1


def test_macrodata_is_stamped_with_the_first_day_of_the_quarter():
    frame = load_dataset("macrodata")
    assert frame.loc["2009-07-01", "realgdp"] == 12990.341
    assert frame.index[1] == pd.Timestamp("1959-04-01")


@pytest.mark.parametrize("name", FILES)
def test_file_is_read_as_the_card_says(name, published_data):
    card, frame = load_card(name), load_dataset(name)
    assert frame.shape == (card.rows, len(card.columns))
    assert list(frame.columns) == list(card.columns)
    assert frame.index.freqstr == card.frequency
    path = published_data / card.file.path
    raw = pd.read_csv(path, dtype=str)
    assert float(raw.iloc[-1, -1]) == frame.iloc[-1, -1]
    assert fetch_dataset(name) == path


def _copy(card, source: Path, folder: Path) -> Path:
    path = folder / card.file.path
    path.parent.mkdir(parents=True)
    shutil.copyfile(source / card.file.path, path)
    return path


def test_changed_file_is_one_clear_error(published_data, tmp_path, monkeypatch):
    card = load_card("national_illness")
    path = _copy(card, published_data, tmp_path)
    path.chmod(0o644)
    path.write_text(path.read_text().replace("582", "583", 1))
    monkeypatch.setenv("TSAR_DATA", str(tmp_path))
    with pytest.raises(DataError, match="is not the published file") as error:
        load_dataset("national_illness")
    assert str(path) in str(error.value) and len(str(error.value).splitlines()) == 1


def test_cached_file_is_used_without_a_network(published_data, tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch")
    card = load_card("national_illness")
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copyfile(published_data / card.file.path, cache / "national_illness.csv")
    monkeypatch.setenv("TSAR_DATA", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(pooch, "os_cache", lambda project: cache)
    monkeypatch.setattr(pooch, "HTTPDownloader", _no_network)
    assert load_dataset("national_illness").shape == (966, 7)


def _no_network(*args, **kwargs):
    raise OSError("no network in tests")


def test_fetched_file_is_verified_and_cached(tmp_path, monkeypatch, capfd):
    pooch = pytest.importorskip("pooch")
    content = b"date,a,b\n2024-01-01 00:00:00,1.5,2\n2024-01-02 00:00:00,2.5,3\n"
    file = datasets._File(
        "small/small.csv",
        "https://example.org/small.csv",
        hashlib.sha256(content).hexdigest(),
        "date",
        "%Y-%m-%d %H:%M:%S",
    )
    asked = []

    def download(url, output, *args, **kwargs):
        asked.append(url)
        Path(output).write_bytes(content)

    monkeypatch.delenv("TSAR_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path)
    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *args, **kwargs: download)
    card = load_card("ETTh1")
    path = datasets._locate(card, file)
    assert path.read_bytes() == content
    assert datasets._locate(card, file) == path
    assert asked == ["https://example.org/small.csv"]
    assert capfd.readouterr() == ("", "")

    wrong = datasets._File(file.path, file.url, "0" * 64, file.time_column, file.time_format)
    with pytest.raises(DataError, match="could not be fetched"):
        datasets._locate(card, wrong)


def test_missing_network_names_the_command(tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch")
    monkeypatch.delenv("TSAR_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path)
    monkeypatch.setattr(pooch.core, "choose_downloader", _no_network)
    with pytest.raises(DataError, match="tsar fetch ETTh2") as error:
        load_dataset("ETTh2")
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_missing_pooch_names_the_extra(monkeypatch):
    monkeypatch.delenv("TSAR_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tsar\[cli,datasets\]'"):
        load_dataset("ETTh1")


def test_unknown_name_gets_a_suggestion():
    with pytest.raises(ParameterError, match="did you mean 'exchange_rate'"):
        load_dataset("exchange_rates")
