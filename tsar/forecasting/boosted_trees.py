"""The trees of a fitted gradient boosting, as arrays that can be saved and checked.

Dimension letters: T trees, N rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tsar.data.codec import check_array
from tsar.exceptions import PersistenceError

__all__ = ["BoostedTrees"]

# What a forecast reads of a node, as it is stored.
COLUMNS = {
    **{"value": "float64", "num_threshold": "float64", "feature_idx": "int64"},
    **{"left": "int64", "right": "int64", "missing_go_to_left": "uint8", "is_leaf": "uint8"},
}


@dataclass(frozen=True)
class BoostedTrees:
    """Regression trees whose leaves add up.

    Parameters
    ----------
    first : float
        What the trees add to.
    trees : tuple of structured array
        The nodes of each, as scikit-learn has them.
    n_features : int
    """

    first: float
    trees: tuple[np.ndarray, ...]
    n_features: int

    @classmethod
    def of(cls, fitted: Any) -> "BoostedTrees":
        """Return the trees of a ``HistGradientBoostingRegressor`` without categories."""
        # scikit-learn has no public name for either.
        first, stages = fitted._baseline_prediction, fitted._predictors  # noqa: SLF001
        trees = tuple(tree.nodes for stage in stages for tree in stage)
        return cls(float(np.ravel(first)[0]), trees, int(fitted.n_features_in_))

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the sum of the leaves for each row.

        Parameters
        ----------
        x : float64 array of shape (N, n_features)
            NaN where missing.

        Returns
        -------
        float64 array of shape (N,)
        """
        from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

        x = np.ascontiguousarray(x, dtype=np.float64)
        assert x.shape[1] == self.n_features, "the columns are those of the fit"
        no_categories, no_places = np.zeros((0, 8), np.uint32), np.zeros(0, np.uint32)
        total = np.full(len(x), self.first)
        for nodes in self.trees:
            tree = TreePredictor(nodes, no_categories, no_categories)
            total += tree.predict(x, no_categories, no_places, torch.get_num_threads())
        return total

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the trees as arrays by name."""
        joined = np.concatenate(self.trees)
        arrays = {name: joined[name].astype(dtype) for name, dtype in COLUMNS.items()}
        arrays["sizes"] = np.array([len(tree) for tree in self.trees], dtype=np.int64)
        arrays["first"] = np.array([self.first])
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], n_features: int) -> "BoostedTrees":
        """Undo :meth:`to_arrays`.

        Raises
        ------
        PersistenceError
            They are no trees of so many features: every way has to end in a leaf.
        """
        from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

        sizes = check_array(arrays, "sizes", "int64", (None,))
        first = check_array(arrays, "first", "float64", (1,))
        n_nodes = int(sizes.sum()) if (sizes > 0).all() else -1
        columns = {
            name: check_array(arrays, name, dtype, (n_nodes,)) for name, dtype in COLUMNS.items()
        }
        own = np.arange(n_nodes) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        size = np.repeat(sizes, sizes)
        leaf, feature = columns["is_leaf"] != 0, columns["feature_idx"]
        children = np.stack([columns["left"], columns["right"]])
        # A child comes after its parent, so that no way goes round in a circle.
        sound = leaf | (
            ((children > own) & (children < size)).all(axis=0)
            & (feature >= 0)
            & (feature < n_features)
        )
        if not (sound.all() and np.isfinite(columns["value"]).all() and np.isfinite(first).all()):
            raise PersistenceError(f"load: the arrays hold no trees of {n_features} features")
        nodes = np.zeros(n_nodes, dtype=PREDICTOR_RECORD_DTYPE)
        for name, column in columns.items():
            nodes[name] = np.where(leaf, 0, column) if name in ("left", "right") else column
        return cls(float(first[0]), tuple(np.split(nodes, np.cumsum(sizes)[:-1])), n_features)
