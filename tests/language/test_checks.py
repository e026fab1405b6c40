"""Every language model passes every check, with every kind of mixer and tokenizer."""

import pytest

from tsar.checks import check_id, checks_for
from tsar.checks.language import small_language_model
from tsar.language.registry import LANGUAGE_MODELS


@pytest.mark.parametrize(
    "estimator, check",
    [case for cls in LANGUAGE_MODELS.values() for case in checks_for(small_language_model(cls))],
    ids=check_id,
)
def test_language_model_passes(estimator, check):
    check(estimator)
