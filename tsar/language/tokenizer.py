"""Texts to integers and back: by bytes, by characters, or by pairs that are often met."""

import codecs
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, Protocol, runtime_checkable

from tsar.exceptions import MissingExtraError, ParameterError

__all__ = [
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "Tokenizer",
    "UserTokenizer",
    "fingerprint",
    "fitted_tokenizer",
    "tokenizer_from_record",
]


@runtime_checkable
class UserTokenizer(Protocol):
    """A tokenizer of one's own: any object with these three."""

    n_tokens: int

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, each below ``n_tokens``."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""


class Tokenizer(ABC):
    """Ids of texts, from 0 to ``n_tokens - 1``.

    Attributes
    ----------
    kind : str
        What it is called in a saved model.
    n_tokens : int
        How many ids there are.
    """

    kind: str
    n_tokens: int

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""

    def decode_each(self, ids: Iterable[int]) -> Iterator[str]:
        """Decode ids as they come: each piece is certain, together they are the text of all ids.

        A character of several ids is given when the last of them is there. What cannot be decoded
        is replaced as soon as no more bytes can repair it, at the end at the latest.
        """
        read: list[int] = []
        text, yielded = "", ""
        for place in ids:
            read.append(place)
            text = self.decode(read)
            certain = text.rstrip("\ufffd")
            if len(certain) > len(yielded):
                yield certain[len(yielded) :]
                yielded = certain
        yield text[len(yielded) :]

    @abstractmethod
    def record(self) -> str:
        """Return all that it was fitted to, as text."""


class _ByteLevelTokenizer(Tokenizer):
    """A tokenizer whose tokens are bytes of UTF-8."""

    @abstractmethod
    def _bytes(self, place: int) -> bytes:
        """Return the bytes of an id."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self._bytes, ids)).decode("utf-8", errors="replace")

    def decode_each(self, ids: Iterable[int]) -> Iterator[str]:
        """Decode ids as they come, by a decoder that waits for what is missing."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for place in ids:
            if text := decoder.decode(self._bytes(place)):
                yield text
        yield decoder.decode(b"", final=True)


class ByteTokenizer(_ByteLevelTokenizer):
    """Every byte of the UTF-8 form is a token: any text in 256 ids, nothing to fit."""

    kind = "byte"
    n_tokens = 256

    def encode(self, text: str) -> list[int]:
        """Return the bytes of a text."""
        return list(text.encode("utf-8"))

    def _bytes(self, place: int) -> bytes:
        return bytes((place,))

    def record(self) -> str:
        """Return nothing: there is nothing fitted."""
        return ""


class CharTokenizer(Tokenizer):
    """Every character of the texts it was made from is a token.

    Parameters
    ----------
    characters : str
        Each of them once, in the order of their ids.
    """

    kind = "char"

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.n_tokens = len(characters)
        self._ids = {character: place for place, character in enumerate(characters)}

    @classmethod
    def of(cls, texts: Sequence[str]) -> "CharTokenizer":
        """Make one of the characters of texts."""
        return cls("".join(sorted(set().union(*texts))))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text.

        Raises
        ------
        ParameterError
            It has a character that the fitted texts had not.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise ParameterError(
                f"CharTokenizer: {error.args[0]!r} is none of the {self.n_tokens} characters of "
                f"the fitted texts; fit with tokenizer='byte', which takes any text"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        return "".join(self.characters[place] for place in ids)

    def decode_each(self, ids: Iterable[int]) -> Iterator[str]:
        """Decode ids as they come: each is a character."""
        return map(self.characters.__getitem__, ids)

    def record(self) -> str:
        """Return the characters."""
        return self.characters


class BPETokenizer(_ByteLevelTokenizer):
    """Pieces of words that are often met, found by joining bytes; needs the extra ``language``.

    Parameters
    ----------
    content : str
        The JSON of the library ``tokenizers``.

    References
    ----------
    Sennrich et al., "Neural machine translation of rare words with subword units", ACL 2016.
    """

    kind = "bpe"

    def __init__(self, content: str) -> None:
        library = _tokenizers()
        try:
            self._inner = library.Tokenizer.from_str(content)
        except Exception as error:  # the library raises bare exceptions
            raise ParameterError(f"BPETokenizer: this is no tokenizer: {error}") from None
        self.content = content
        self.n_tokens = self._inner.get_vocab_size()
        byte_of = _bytes_by_letter()
        pieces = (self._inner.id_to_token(place) for place in range(self.n_tokens))
        self._pieces = [bytes(byte_of[letter] for letter in piece) for piece in pieces]

    @classmethod
    def of(cls, texts: Sequence[str], n_tokens: int) -> "BPETokenizer":
        """Fit one of at most ``n_tokens`` pieces to texts."""
        library = _tokenizers()
        inner = library.Tokenizer(library.models.BPE())
        inner.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = library.decoders.ByteLevel()
        alphabet = library.pre_tokenizers.ByteLevel.alphabet()
        trainer = library.trainers.BpeTrainer(
            vocab_size=n_tokens, initial_alphabet=alphabet, show_progress=False
        )
        inner.train_from_iterator(texts, trainer)
        return cls(inner.to_str())

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return list(self._inner.encode(text).ids)

    def _bytes(self, place: int) -> bytes:
        return self._pieces[place]

    def record(self) -> str:
        """Return the JSON of the library."""
        return self.content


class _Wrapped(Tokenizer):
    """A tokenizer of one's own, which is passed again when a model is loaded."""

    kind = "own"

    def __init__(self, inner: UserTokenizer) -> None:
        self.inner, self.n_tokens = inner, int(inner.n_tokens)

    def encode(self, text: str) -> list[int]:
        ids = list(self.inner.encode(text))
        wrong = next((place for place in ids if not 0 <= place < self.n_tokens), None)
        if wrong is not None:
            raise ParameterError(
                f"{type(self.inner).__name__}: encode gave the id {wrong}, which is not below "
                f"n_tokens={self.n_tokens}"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode(ids)

    def record(self) -> str:
        return ""


def _bytes_by_letter() -> dict[str, int]:
    """Return the byte that each letter of a byte-level vocabulary stands for.

    Bytes that print stand for themselves, the others for letters from 256 on.

    References
    ----------
    Radford et al., "Language models are unsupervised multitask learners", 2019, section 2.2.
    """
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printing]
    letters = [*printing, *range(256, 256 + len(others))]
    return {chr(letter): byte for letter, byte in zip(letters, [*printing, *others], strict=True)}


def _tokenizers() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise MissingExtraError(
            "tokenizer=<number> needs tokenizers: pip install 'tsar[language]'"
        ) from None
    return tokenizers


def fitted_tokenizer(how: Any, texts: Sequence[str]) -> Tokenizer:
    """Return the tokenizer of a model, fitted to its texts where it has to be.

    Parameters
    ----------
    how : {"byte", "char"}, int or object
        A number is the size of a vocabulary of pieces; an object has ``n_tokens``, ``encode`` and
        ``decode``.
    texts : sequence of str
    """
    if how == "byte":
        return ByteTokenizer()
    if how == "char":
        return CharTokenizer.of(texts)
    if isinstance(how, Integral):
        return BPETokenizer.of(texts, int(how))
    return _Wrapped(how)


def tokenizer_from_record(record: Mapping[str, str], own: Any) -> Tokenizer:
    """Undo :meth:`Tokenizer.record`.

    Parameters
    ----------
    record : mapping
        ``kind`` and ``content``.
    own : object
        The parameter ``tokenizer``, where it is an object.

    Raises
    ------
    ParameterError
        There is no such kind.
    """
    kind, content = record["kind"], record["content"]
    if kind == "byte":
        return ByteTokenizer()
    if kind == "char":
        return CharTokenizer(content)
    if kind == "bpe":
        return BPETokenizer(content)
    if kind == "own":
        return _Wrapped(own)
    raise ParameterError(f"tokenizer: kind must be byte, char, bpe or own, got {kind!r}")


def fingerprint(tokenizer: Tokenizer) -> str:
    """Return a digest of what the ids mean, to compare two models by."""
    own = "" if not isinstance(tokenizer, _Wrapped) else type(tokenizer.inner).__qualname__
    held = json.dumps([tokenizer.kind, tokenizer.n_tokens, tokenizer.record(), own])
    return hashlib.sha256(held.encode()).hexdigest()[:16]
