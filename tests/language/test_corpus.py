"""Texts as rows of tokens and windows, against slices."""

import numpy as np
import pandas as pd
import pytest
import torch

from tsar.exceptions import DataError
from tsar.language.corpus import DrawnWindows, OrderedWindows, as_prompts, as_texts, token_row
from tsar.language.tokenizer import ByteTokenizer


def test_texts_are_listed_whatever_holds_them():
    for texts in (["a", "b"], ("a", "b"), pd.Series(["a", "b"]), np.array(["a", "b"]), iter("ab")):
        assert as_texts("Model", texts) == ["a", "b"]
    assert as_texts("Model", "ab") == ["ab"]
    assert as_prompts("Model", []) == [] and as_prompts("Model", "") == [""]


@pytest.mark.parametrize(
    "texts, words",
    [
        ([], "there is no text to read"),
        (["", ""], "there is no text to read"),
        (b"text", "every text must be a str, got bytes; decode it first"),
        (7, "must be a str or a sequence of str, got int"),
        (None, "got NoneType"),
        ({"a text": 1}, "got dict"),
        ({"a", "b"}, "got set"),
        (pd.DataFrame({"text": ["a"]}), "got DataFrame; pass a list, or a column of a frame"),
        (np.array([["a"]]), "got ndarray"),
        (["a", None], "got NoneType at place 1"),
        (["a", "b\ud800"], "the text at place 1 has half a character .* at 1"),
    ],
)
def test_what_is_no_text_is_refused(texts, words):
    with pytest.raises(DataError, match=f"^Model: .*{words}"):
        as_texts("Model", texts)


def test_a_boundary_stands_before_each_text():
    row = token_row(ByteTokenizer(), ["ab", "", "c"], 256)
    assert row.tolist() == [256, 97, 98, 256, 256, 99] and row.dtype == torch.int64


def test_windows_are_drawn_from_every_place_and_no_other():
    source = DrawnWindows(torch.arange(10), 3)
    assert source.epoch_size == 3
    windows = source.draw(500, torch.Generator().manual_seed(0))
    assert windows.shape == (500, 4)
    assert (windows.diff(dim=1) == 1).all()
    assert set(windows[:, 0].tolist()) == set(range(7))


def test_ordered_windows_predict_each_token_once():
    windows = OrderedWindows(torch.arange(12), 3)
    assert len(windows) == 3
    assert windows.batch(torch.tensor([0, 2])).tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
