"""Every image model passes the checks of all estimators and those of its family."""

import pytest

from tsar.checks import check_id, checks_for
from tsar.image.registry import IMAGE_MODELS

CASES = [case for cls in IMAGE_MODELS.values() if not cls.needs_labels for case in checks_for(cls)]


@pytest.mark.parametrize(("estimator", "check"), CASES, ids=check_id)
def test_image_models_pass(estimator, check):
    check(estimator)
