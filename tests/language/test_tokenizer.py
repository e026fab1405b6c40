"""Tokenizers, against the codec of Python and the library that found the pieces."""

import sys

import numpy as np
import pytest

from tsar.exceptions import MissingExtraError, ParameterError
from tsar.language.tokenizer import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    fingerprint,
    fitted_tokenizer,
    tokenizer_from_record,
)

TEXTS = ["the cat sat on the mat, and the dog sat on the log. " * 5, "äöü € 漢字 😀 \x00\t\n"]


class Words:
    """A tokenizer of a user's own that joins what it decodes by spaces."""

    n_tokens = 3

    def encode(self, text):
        return [["a", "long", "way"].index(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(["a", "long", "way"][place] for place in ids)


@pytest.fixture(scope="module")
def pieces():
    pytest.importorskip("tokenizers", reason="pieces of words need the extra language")
    return BPETokenizer.of(TEXTS, 300)


def _bytes_with_many_heads(draw):
    """Bytes among which those that begin and continue characters are often met."""
    heads = [0x41, 0x80, 0xBF, 0xC3, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0xED, 0xA0, 0xFF]
    return draw.choice(heads, size=draw.integers(0, 30)).tolist()


def test_bytes_that_come_one_by_one_are_what_python_makes_of_them_together():
    draw, tokenizer = np.random.default_rng(0), ByteTokenizer()
    for _ in range(500):
        ids = _bytes_with_many_heads(draw)
        expected = bytes(ids).decode("utf-8", errors="replace")
        assert tokenizer.decode(ids) == expected
        assert "".join(tokenizer.decode_each(ids)) == expected


def test_a_character_is_given_with_its_last_byte():
    given = list(ByteTokenizer().decode_each("é漢😀a".encode()))
    assert [piece for piece in given if piece] == ["é", "漢", "😀", "a"]


def test_pieces_are_decoded_as_the_library_does(pieces):
    import tokenizers

    inner = tokenizers.Tokenizer.from_str(pieces.record())
    draw = np.random.default_rng(0)
    for _ in range(200):
        ids = draw.integers(pieces.n_tokens, size=20).tolist()
        expected = inner.decode(ids)
        assert pieces.decode(ids) == expected == "".join(pieces.decode_each(ids))


@pytest.mark.parametrize("text", [*TEXTS, "", " ", "never seen: ñ ☃ <|end|>"])
def test_any_text_comes_back_from_bytes_and_pieces(pieces, text):
    for tokenizer in (ByteTokenizer(), pieces):
        ids = tokenizer.encode(text)
        assert all(0 <= place < tokenizer.n_tokens for place in ids)
        assert tokenizer.decode(ids) == text
    assert len(pieces.encode(TEXTS[0])) < len(TEXTS[0]) / 2


def test_characters_are_those_of_the_texts():
    tokenizer = CharTokenizer.of(["cab", "bad"])
    assert (tokenizer.characters, tokenizer.n_tokens) == ("abcd", 4)
    assert tokenizer.encode("dab") == [3, 0, 1]
    assert list(tokenizer.decode_each([3, 0, 1])) == ["d", "a", "b"]
    with pytest.raises(ParameterError, match="'e' is none of the 4 characters"):
        tokenizer.encode("be")


def test_what_a_tokenizer_of_ones_own_puts_between_tokens_is_streamed():
    tokenizer = fitted_tokenizer(Words(), [])
    assert "".join(tokenizer.decode_each([0, 1, 1, 2])) == "a long long way"


def test_records_hold_all_that_was_fitted(pieces):
    for tokenizer in (ByteTokenizer(), CharTokenizer.of(TEXTS), pieces):
        record = {"kind": tokenizer.kind, "content": tokenizer.record()}
        twin = tokenizer_from_record(record, None)
        assert twin.encode("the cat") == tokenizer.encode("the cat")
        assert fingerprint(twin) == fingerprint(tokenizer)
    assert len({fingerprint(CharTokenizer(letters)) for letters in ("ab", "ba", "abc")}) == 3


def test_numbers_of_numpy_are_sizes_of_vocabularies(pieces):
    assert fitted_tokenizer(np.int64(300), TEXTS).record() == pieces.record()


def test_ids_outside_of_the_vocabulary_are_refused():
    own = Words()
    own.encode = lambda text: [0, 3]
    with pytest.raises(ParameterError, match="encode gave the id 3, which is not below n_tokens=3"):
        fitted_tokenizer(own, []).encode("a")


def test_a_record_of_no_kind_and_a_broken_one(pieces):
    with pytest.raises(ParameterError, match="must be byte, char, bpe or own, got 'word'"):
        tokenizer_from_record({"kind": "word", "content": ""}, None)
    with pytest.raises(ParameterError, match="this is no tokenizer"):
        BPETokenizer("{}")


def test_pieces_need_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"tsar\[language\]"):
        BPETokenizer.of(TEXTS, 300)
