"""Models saved by earlier versions load, and forecast what they forecast then."""

import json
from pathlib import Path

import pandas as pd
import pytest

import tsar
from tsar.estimator.saving import FORMAT_VERSION

GOLDEN = Path(__file__).parent / "golden"
SAVED = sorted(path.parent for path in GOLDEN.glob("*/*/request.json"))


def test_every_format_has_its_models():
    formats = {int(folder.parent.name) for folder in SAVED}
    assert formats == set(range(1, FORMAT_VERSION + 1))


@pytest.mark.parametrize("folder", SAVED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_saved_model_forecasts_what_it_did(folder):
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    history = pd.read_csv(folder / "history.csv")
    stamps = pd.to_datetime(history["ds"], utc=True).dt.tz_convert(request["zone"])
    history = history.assign(ds=stamps)
    if request["index"]:
        history = history.set_index(request["index"])
    model = tsar.load(folder / "model")
    asked = {name: request.get(name) for name in ("horizon", "quantiles", "level")}
    for file, forecast in (
        ("forecast.csv", model.predict(**asked)),
        ("new.csv", model.predict(df=history, **asked)),
    ):
        found = forecast.reset_index() if request["index"] else forecast
        found = found.assign(ds=[stamp.isoformat() for stamp in found["ds"]])
        expected = pd.read_csv(folder / file)
        pd.testing.assert_frame_equal(
            found, expected, check_dtype=False, rtol=1e-6, atol=1e-6, check_column_type=False
        )
