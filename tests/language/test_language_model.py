"""The language model, against enumeration, the chain rule and recomputation."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

import tsar
from tsar.checks.language import small_language_model
from tsar.core.decoding import ModelDraft, NGramDraft, Speculative
from tsar.core.mixers import causal_mixers
from tsar.exceptions import DataError, NotFittedError, ParameterError, PersistenceError
from tsar.language import LanguageModel
from tsar.language.base import texts_so_far
from tsar.language.corpus import token_row

TEXT = "the cat sat on the mat, and the dog sat on the log. " * 12


def _fitted(texts=TEXT, **parameters):
    return small_language_model(LanguageModel, **parameters).fit(texts)


class Three:
    """A tokenizer of three letters, of a user's own."""

    n_tokens = 3

    def encode(self, text):
        return ["abc".index(letter) for letter in text]

    def decode(self, ids):
        return "".join("abc"[place] for place in ids)


# ------------------------------------------------------------------ likelihood


@pytest.mark.parametrize("mixer", ["attention", "mamba", "mamba2", "linear_attention", "retention"])
def test_probabilities_of_all_texts_of_a_length_sum_to_one(mixer):
    """Of a length by the rule of the chain: no text ends before, as none may hold a boundary."""
    model = _fitted("abcacb" * 20, mixer=mixer, tokenizer=Three(), context_length=4)
    texts = ["".join(letters) for letters in itertools.product("abc", repeat=4)]
    network = model.module_
    with torch.inference_mode():
        for text in texts:
            ids = token_row(model.tokenizer_, [text], 3)[None]
            shares = network(ids[:, :-1]).double().log_softmax(dim=-1)
            nats = shares.gather(-1, ids[:, 1:, None]).sum()
            assert model.log_likelihood(text)[0] == pytest.approx(float(nats), abs=1e-5)
        # The boundary takes its part of every step: what is left of it is the rest of the sum.
        total = np.exp(model.log_likelihood(texts)).sum()
        ended = _mass_of_ended_texts(network, 4)
    assert total + ended == pytest.approx(1.0, abs=1e-6)


def _mass_of_ended_texts(network, length):
    """Return the probability that a boundary comes among the first tokens, prefix by prefix."""
    mass = 0.0
    for n in range(length):
        for prefix in itertools.product(range(3), repeat=n):
            ids = torch.tensor([[3, *prefix]])
            shares = network(ids).double().log_softmax(dim=-1)[0]
            nats = sum(float(shares[place, token]) for place, token in enumerate(prefix))
            mass += math.exp(nats + float(shares[n, 3]))
    return mass


@pytest.mark.parametrize("stride", [None, 16, 5, 1])
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 40, 67])
def test_every_token_is_scored_once_given_what_its_window_holds(length, stride):
    model, text = _fitted(), (TEXT * 2)[:length]
    tokens = token_row(model.tokenizer_, [text], 256)
    context, step = 16, stride or 8
    expected, done = 0.0, 0
    starts = [0]
    while starts[-1] + context < length:
        starts.append(min(starts[-1] + step, length - context))
    with torch.inference_mode():
        for start in starts:
            stop = min(start + context, length)
            shares = model.module_(tokens[None, start:stop]).double().log_softmax(dim=-1)[0]
            for place in range(max(done, start), stop):
                expected += float(shares[place - start, tokens[place + 1]])
            done = stop
    if length:
        assert model.log_likelihood(text, stride=stride)[0] == pytest.approx(expected, rel=1e-5)


def test_training_lowers_the_loss_to_what_can_be_known():
    """Two letters, each followed by itself nine times of ten: .325 nats."""
    draw = np.random.default_rng(0)
    letters = np.cumsum(draw.random(6000) < 0.1) % 2
    text = "".join("ab"[letter] for letter in letters)
    model = LanguageModel(
        mixer="retention", context_length=16, d_model=16, n_layers=1, d_ff=16, n_heads=2,
        max_steps=300, batch_size=16, learning_rate=0.01, random_state=0, device="cpu",
    ).fit(text[:5000])  # fmt: skip
    moves = np.diff(letters[5000:]) != 0
    entropy = -(moves.mean() * math.log(0.1) + (1 - moves.mean()) * math.log(0.9))
    assert math.log(model.perplexity(text[5000:])) == pytest.approx(entropy, abs=0.05)


# ------------------------------------------------------------------ generation


@pytest.mark.parametrize("mixer", [*sorted(causal_mixers()), ["mamba2", "attention"]], ids=str)
def test_every_causal_mixer_generates_what_reading_anew_gives(mixer):
    model = _fitted(mixer=mixer, context_length=48)
    model.module_.double()
    text = model.generate("the", max_tokens=20, temperature=0)
    ids = token_row(model.tokenizer_, ["the"], 256)[None]
    with torch.inference_mode():
        for _ in range(20):
            best = model.module_(ids)[:, -1:].argmax(dim=-1)
            if best == 256:
                break
            ids = torch.cat([ids, best], dim=1)
    assert text == model.tokenizer_.decode(ids[0, 4:].tolist())


def test_attention_goes_on_from_half_a_context_and_recurrences_from_all():
    """Greedy tokens, past the context, each from the tokens that it may see."""
    reaching_back = [(name, 16) for name in ("attention", "sparse_keys", "mega", "routing")]
    for mixer, limit in (*reaching_back, ("combiner", 16), ("mamba2", None)):
        model = _fitted(mixer=mixer)
        model.module_.double()
        text = model.generate("the cat", max_tokens=50, temperature=0)
        ids = token_row(model.tokenizer_, ["the cat"], 256)
        window = ids
        with torch.inference_mode():
            for _ in range(50):
                if limit is not None and len(window) > limit:
                    window = ids[-limit // 2 :]
                best = model.module_(window[None])[0, -1].argmax()[None]
                ids, window = torch.cat([ids, best]), torch.cat([window, best])
        assert text == model.tokenizer_.decode(ids[8:].tolist())


def test_a_text_learned_by_heart_is_continued_far_past_the_context():
    text = "one two three four five six seven eight nine ten. "
    model = LanguageModel(
        context_length=32, d_model=32, n_layers=2, n_heads=2, d_ff=64, max_steps=400,
        batch_size=16, random_state=0, device="cpu",
    ).fit(text * 40)  # fmt: skip
    assert (text * 4).startswith("one two" + model.generate("one two", 150, temperature=0))


def test_drawn_tokens_are_as_frequent_as_they_are_likely():
    model = _fitted("abcacb" * 20, tokenizer=Three(), context_length=4)
    texts = model.generate([""] * 1000, max_tokens=1, random_state=0)
    with torch.inference_mode():
        expected = model.module_(torch.tensor([[3]]))[0, -1].double().softmax(dim=-1)
    for letter, share in zip([*"abc", ""], expected.tolist(), strict=True):
        count = texts.count(letter)
        assert abs(count - 1000 * share) < 4 * math.sqrt(1000 * share * (1 - share) + 1)


def test_stop_ends_before_it_however_it_is_cut():
    model = _fitted(max_steps=40, learning_rate=0.01)
    whole = model.generate("the", 60, temperature=0)
    for stop in (whole[5:9], whole[20], [whole[30:33], whole[12:14]]):
        ends = [stop] if isinstance(stop, str) else stop
        expected = whole[: min(whole.find(end) for end in ends)]
        pieces = list(model.stream("the", 60, temperature=0, stop=stop))
        assert "".join(pieces) == expected


def test_characters_are_whole_when_they_are_streamed():
    model = _fitted("äöü€ 漢字 😀 " * 30)
    for seed in range(5):
        pieces = list(model.stream("ä", 80, random_state=seed))
        assert "".join(pieces) == model.generate("ä", 80, random_state=seed)
    for text in ("äöü€", "漢字 😀😀", "plain"):
        pieces = list(texts_so_far(model.tokenizer_, iter(model.tokenizer_.encode(text))))
        assert "".join(pieces) == text and all("\ufffd" not in piece for piece in pieces)
    # What is no UTF-8 comes out replaced, at the end at the latest.
    assert "".join(texts_so_far(model.tokenizer_, iter([0xE2, 0x82]))) == "\ufffd"


def test_prompts_of_any_lengths_are_continued_as_each_alone():
    model = _fitted(mixer=["mamba2", "attention"])
    prompts = ["the cat", "", "dog"]
    together = model.generate(prompts, 12, random_state=5)
    tokens = model.decoding_["tokens"]
    alone = [model.generate(one, 12, random_state=5 + place) for place, one in enumerate(prompts)]
    assert together == alone
    assert sum(map(len, alone)) <= tokens <= 36
    assert model.generate([]) == [] and model.decoding_["tokens"] == 0


def test_a_prompt_fits_into_the_context_of_attention():
    text = TEXT[:16]
    for mixer in ("attention", ["mamba2", "attention"]):
        model = _fitted(mixer=mixer)
        assert isinstance(model.generate(text[:15], 2, random_state=0), str)
        with pytest.raises(DataError, match="the prompt has 17 tokens .* context_length=16"):
            model.generate(text, 2)
    assert isinstance(_fitted(mixer="mamba2").generate(TEXT, 2, random_state=0), str)


def test_draws_leave_the_global_generator_alone():
    model = _fitted()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    model.generate("the", 5)
    assert torch.initial_seed() == 3 and torch.equal(torch.get_rng_state(), before)


def test_gradients_of_whoever_reads_along_are_on():
    for _ in _fitted().stream("the", 3):
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


# --------------------------------------------------------------- the estimator


@pytest.mark.parametrize("tokenizer", ["byte", "char", 270])
def test_tokenizers_are_saved(tokenizer, tmp_path):
    if tokenizer == 270:
        pytest.importorskip("tokenizers", reason="pieces of words need the extra language")
    model = _fitted(tokenizer=tokenizer)
    assert model.tokenizer_.decode(model.tokenizer_.encode("the cat")) == "the cat"
    model.save(tmp_path / "model")
    twin = tsar.load(tmp_path / "model")
    assert twin.tokenizer == tokenizer
    assert twin.generate("the", 20, random_state=0) == model.generate("the", 20, random_state=0)
    assert twin.partial_fit(TEXT).n_epochs_ > model.n_epochs_


def test_a_tokenizer_of_ones_own_is_passed_again(tmp_path):
    model = _fitted("abcacb" * 20, tokenizer=Three())
    model.save(tmp_path / "model")
    with pytest.raises(PersistenceError, match="tokenizer"):
        tsar.load(tmp_path / "model")
    twin = tsar.load(tmp_path / "model", tokenizer=Three())
    np.testing.assert_array_equal(twin.log_likelihood("abc"), model.log_likelihood("abc"))


def test_training_goes_on_where_it_ended():
    steady = {"learning_rate_schedule": "constant", "max_steps": None}
    twice = _fitted(**steady, max_epochs=1).partial_fit(TEXT)
    warm = _fitted(**steady, max_epochs=1).set_params(warm_start=True).fit(TEXT)
    assert twice.n_epochs_ == 2
    np.testing.assert_array_equal(twice.log_likelihood(TEXT), warm.log_likelihood(TEXT))
    with pytest.raises(ParameterError, match="have changed since the last fit"):
        warm.set_params(d_model=16).fit(TEXT)
    with pytest.raises(ParameterError, match="tokenizer has changed .* from 'byte' to 'char'"):
        twice.set_params(tokenizer="char").partial_fit(TEXT)


def test_the_end_is_held_out_for_early_stopping():
    model = _fitted(early_stopping=0.2, max_steps=None, max_epochs=3)
    assert len(model.history_["val_loss"]) == 3
    assert "val_loss" not in _fitted().history_


def test_embedding_is_the_last_state_of_the_last_tokens():
    model, texts = _fitted(), ["the cat", TEXT[:50]]
    embedded = model.embed(texts)
    assert embedded.shape == (2, 8) and embedded.dtype == np.float32
    with torch.inference_mode():
        for text, expected in zip(texts, embedded, strict=True):
            recent = token_row(model.tokenizer_, [text], 256)[-16:]
            hidden = model.module_.hidden(recent[None])[0, -1]
            np.testing.assert_allclose(hidden, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"mixer": "autocorrelation"}, "mixer must be"),
        ({"mixer": "mamba3"}, "mamba"),
        ({"mixer": []}, "at least one mixer"),
        ({"mixer": ["mamba", "bidirectional_mamba"]}, "mixer must be"),
        ({"n_heads": 3}, "an even multiple of n_heads=3, got 8"),
        ({"d_model": 6, "n_heads": 2}, "an even multiple of n_heads=2, got 6"),
        ({"mixer": "retention", "n_heads": 3}, "d_model must be a multiple of n_heads=3, got 8"),
        ({"tokenizer": "word"}, "tokenizer"),
        ({"tokenizer": 100}, "tokenizer"),
        ({"max_steps": None}, "max_steps and max_epochs"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_parameters_are_checked_before_training(parameters, words):
    with pytest.raises(ParameterError, match=words):
        _fitted(**parameters)


def test_what_cannot_be_asked():
    model = _fitted(tokenizer="char")
    with pytest.raises(ParameterError, match="'z' is none of the .* characters"):
        model.generate("z")
    for how, words in (
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"temperature": "1"}, "temperature must be a number in"),
        ({"top_k": 2.5}, "top_k must be an integer"),
        ({"max_tokens": 0}, "max_tokens must be an integer in .1, inf., got 0"),
        ({"random_state": "seed"}, "random_state must be an integer"),
        ({"random_state": -1}, "random_state must be an integer"),
        ({"stop": 5}, "stop must be a str or a sequence of str, got 5"),
        ({"stop": [5]}, "stop must be a str or a sequence of str"),
    ):
        with pytest.raises(ParameterError, match=words):
            model.generate("the", **how)
    with pytest.raises(DataError, match="every prompt must be a str, got bytes at place 1"):
        model.generate(["the", b"the"])
    with pytest.raises(DataError, match="prompts must be a str or a sequence of str, got None"):
        model.generate(None)
    with pytest.raises(DataError, match="prompt must be a str, got list"):
        model.stream(["the"])
    with pytest.raises(ParameterError, match="stride must be from 1 to context_length=16, got 17"):
        model.log_likelihood("the", stride=17)
    with pytest.raises(NotFittedError):
        LanguageModel().generate("the")


def test_a_trained_model_is_the_backbone_of_autotimes(tmp_path):
    model = _fitted(mixer=["mamba2", "attention"])
    hours = np.arange(300.0)
    frame = pd.DataFrame(
        {"load": np.sin(hours / 4)}, index=pd.date_range("2024", periods=300, freq="h")
    )
    forecaster = tsar.AutoTimes(
        llm=model, segment_length=12, context_length=48, horizon=12, max_epochs=1,
        random_state=0, device="cpu",
    ).fit(frame)  # fmt: skip
    forecast = forecaster.predict()
    pd.testing.assert_frame_equal(clone(forecaster).fit(frame).predict(), forecast)
    forecaster.save(tmp_path / "forecaster")
    with pytest.raises(PersistenceError, match="llm"):
        tsar.load(tmp_path / "forecaster")
    pd.testing.assert_frame_equal(tsar.load(tmp_path / "forecaster", llm=model).predict(), forecast)
    # It was frozen as a copy: the language model goes on learning, and is another one then.
    before = model.log_likelihood(TEXT)
    model.partial_fit(TEXT)
    assert (model.log_likelihood(TEXT) != before).all()
    pd.testing.assert_frame_equal(forecaster.predict(), forecast)
    with pytest.raises(PersistenceError, match="other weights"):
        tsar.load(tmp_path / "forecaster", llm=model)
    # What is fitted after that stands on what it has learned meanwhile.
    assert not clone(forecaster).fit(frame).predict().equals(forecast)
    assert not forecaster.fit(frame).predict().equals(forecast)


def test_autotimes_takes_language_models_that_are_fitted():
    with pytest.raises(ParameterError, match="FittedLanguageModel or None, got LanguageModel"):
        tsar.AutoTimes(llm=LanguageModel()).check()


@pytest.mark.parametrize("mixer", ["attention", ["mamba2", "attention"], "mamba"], ids=str)
def test_drafts_change_no_greedy_text(mixer):
    """Inside of the context: where it is full, it is renewed at another place with a draft."""
    model = _fitted(mixer=mixer, context_length=64, max_steps=20, learning_rate=0.01)
    model.module_.double()
    plain = model.generate("the cat", 50, temperature=0)
    for way in ("prompt_lookup", "ngram", Speculative(NGramDraft(4, model.encode(TEXT)), 5)):
        assert model.generate("the cat", 50, temperature=0, decoding=way) == plain
        assert model.decoding_["passes"] + model.decoding_["accepted"] >= 50
    assert model.decoding_["accepted"] > 0
    assert len(model.generate(["the", "a"], 20, decoding="ngram", random_state=0)) == 2


def test_a_draft_has_the_same_tokenizer():
    model = _fitted(tokenizer="char")
    letters = "".join(sorted(set(TEXT)))
    other = _fitted(TEXT.replace("t", "z"), tokenizer="char")
    assert other.tokenizer_.n_tokens == len(letters)
    with pytest.raises(ParameterError, match="the draft has another tokenizer"):
        model.generate("the", decoding=Speculative(ModelDraft(other)))
    with pytest.raises(ParameterError, match="draft knows 257 tokens and the model"):
        model.generate("the", decoding=Speculative(ModelDraft(_fitted())))
    with pytest.raises(ParameterError, match="did you mean 'ngram'"):
        model.generate("the", decoding="ngrams")
    same = _fitted(tokenizer="char", random_state=1)
    assert model.generate("the", 10, decoding=Speculative(ModelDraft(same)), random_state=0)
