"""Tell data from others."""

import hashlib

import numpy as np
import pandas as pd

from tsar.data.panel import Panel

__all__ = ["data_digest"]


def data_digest(panel: Panel) -> str:
    """Return a short digest of all that a panel holds.

    Parameters
    ----------
    panel : Panel
        Its covariates not yet coded.
    """
    digest = hashlib.sha256()
    columns = [*panel.past.values(), *panel.future.values(), *panel.static.values()]
    for array in (panel.values, panel.offsets, panel.first, panel.last, *columns):
        numeric = array.dtype.kind in "iufb"
        text = array if numeric else pd.util.hash_array(array.astype(str).astype(object))
        digest.update(np.ascontiguousarray(text).tobytes())
    for index in (panel.ids, panel.variates):
        digest.update("\0".join(map(str, index)).encode())
    return digest.hexdigest()[:16]
