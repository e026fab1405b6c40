import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from tsar.core.ridge import RidgePath


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n_rows", "n_features"), [(40, 5), (7, 11)])
def test_it_is_that_of_sklearn(weighted, n_rows, n_features):
    rng = np.random.default_rng(n_rows)
    x, y = rng.normal(size=(n_rows, n_features)) + 3, rng.normal(size=(n_rows, 2)) - 1
    weight = rng.uniform(size=n_rows) if weighted else None
    path = RidgePath(n_features, 2)
    for part in np.array_split(np.arange(n_rows), 3):
        rows = None if weight is None else torch.from_numpy(weight[part])
        path.add(torch.from_numpy(x[part]), torch.from_numpy(y[part]), rows)
    alphas = [0.1, 5.0]
    for alpha, (weights, bias) in zip(alphas, path.solutions(alphas), strict=True):
        expected = Ridge(alpha).fit(x, y, sample_weight=weight)
        np.testing.assert_allclose(weights, expected.coef_, atol=1e-10)
        np.testing.assert_allclose(bias, expected.intercept_, atol=1e-10)
