"""What is said of parameters that an estimator does not have."""

import copy
import pickle

import pytest
from sklearn.base import clone

import tsar
from tsar.exceptions import ParameterError, UnknownParameterError
from tsar.params.parameter_names import OTHER_NAMES, PARTS
from tsar.training import Adam, AdamW, Cosine

CASES = [
    ({"context_lenght": 9}, "'context_lenght': did you mean 'context_length'"),
    (
        {"input_size": 96, "h": 24},
        "'input_size', 'h': 'input_size' is called 'context_length' here; 'h' ",
    ),
    ({"weight_decay": 0.1}, r"write optimizer=AdamW\(weight_decay=0.1\)"),
    ({"n_epochs": 3}, "'n_epochs' is called 'max_epochs' here"),
    ({"qqq": 1}, "'qqq': the parameters are batch_size, calendar_features, "),
]


@pytest.mark.parametrize(("params", "words"), CASES)
def test_the_error_says_what_to_write(params, words):
    for refused in (tsar.PatchTST, tsar.PatchTST().set_params):
        with pytest.raises(UnknownParameterError, match=f"PatchTST has no parameters? .*{words}"):
            refused(**params)
    # Python raises a TypeError here, scikit-learn's set_params a ValueError.
    assert issubclass(UnknownParameterError, TypeError | ParameterError | ValueError)


def test_nothing_is_advised_that_the_estimator_does_not_have_either():
    with pytest.raises(UnknownParameterError, match="the parameters are freq, ") as raised:
        tsar.SeasonalNaive(weight_decay=0.1)
    assert "optimizer" not in str(raised.value)


@pytest.mark.parametrize("name", PARTS)
def test_what_is_advised_can_be_written(name):
    value = (0.9, 0.95) if "betas" in name else "float32" if name == "precision" else 0.1
    value = 10 if name in ("warmup_steps", "head_epochs") else value
    words = {"Adam": Adam, "AdamW": AdamW, "Cosine": Cosine}
    model = eval(f"tsar.PatchTST({PARTS[name](value)})", {"tsar": tsar, **words})
    model.check()


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_every_name_that_is_meant_is_a_parameter(name):
    models = [tsar.PatchTST, tsar.SeasonalNaive]
    assert any(name in model.__dataclass_fields__ for model in models)


def test_copies_are_made_as_before():
    model = tsar.PatchTST(horizon=3)
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), clone(model)):
        assert copied.get_params() == model.get_params()
