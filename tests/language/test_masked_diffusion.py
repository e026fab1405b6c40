"""Masked diffusion, against enumeration over all orders of drawing a few tokens."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

import tsar
from tsar.checks.language import small_language_model
from tsar.core.mixers import RoutingAttention, ordered_mixers
from tsar.core.sampling import Sampler
from tsar.core.unmasking import unmask
from tsar.exceptions import DataError, NotFittedError, ParameterError
from tsar.language import MaskedDiffusionLM

TEXT = "the cat sat on the mat, and the dog sat on the log. " * 12
LETTERS = "abcacbbac" * 20
BOUNDARY, MASK = 3, 4
ORDERS = list(itertools.permutations(range(4)))


def _fitted(texts=TEXT, **parameters):
    return small_language_model(MaskedDiffusionLM, **parameters).fit(texts)


@pytest.fixture(scope="module")
def letters():
    """A model of three letters and four places that is far from even."""
    return _fitted(
        LETTERS, tokenizer="char", context_length=4, max_steps=100, learning_rate=0.02,
        learning_rate_schedule="constant", batch_size=16, likelihood_draws=500,
    )  # fmt: skip


@pytest.fixture(scope="module")
def log_shares(letters):
    """Log-probabilities (5, 5, 5, 5, 4, 4) of each token in each place, in every state."""
    states = torch.tensor(list(itertools.product(range(5), repeat=4)))
    ids = torch.nn.functional.pad(states, (1, 0), value=BOUNDARY)
    with torch.inference_mode():
        logits = letters.module_(ids)[:, 1:, :4]
    return logits.double().log_softmax(dim=-1).reshape(5, 5, 5, 5, 4, 4).numpy()


def _nats_by_order(log_shares, tokens):
    """Return the log-probability of tokens in each of the 24 orders."""
    nats = []
    for order in ORDERS:
        state, total = [MASK] * 4, 0.0
        for place in order:
            total += log_shares[(*state, place, tokens[place])]
            state[place] = tokens[place]
        nats.append(total)
    return np.array(nats)


# ------------------------------------------------------------------ likelihood


def test_the_bound_is_the_mean_over_all_orders(letters, log_shares):
    draws, gaps = letters.likelihood_draws, []
    for tokens in [(0, 1, 2, 0), (2, 1, 1, 0), (0, 0, 0, 0), (1, 0, 2, 2)]:
        nats = _nats_by_order(log_shares, tokens)
        # What one draw of a mask says, for each of the sets that may be masked.
        said, weight = [], []
        for size in range(1, 5):
            for places in itertools.combinations(range(4), size):
                state = tuple(MASK if p in places else tokens[p] for p in range(4))
                said.append(4 / size * sum(log_shares[(*state, p, tokens[p])] for p in places))
                weight.append(1 / 4 / math.comb(4, size))
        mean = np.average(said, weights=weight)
        assert mean == pytest.approx(nats.mean(), rel=1e-9)
        error = math.sqrt(np.average((np.array(said) - mean) ** 2, weights=weight) / draws)
        text = "".join("abc"[token] for token in tokens)
        assert letters.log_likelihood(text)[0] == pytest.approx(mean, abs=4 * error)
        truth = np.log(np.exp(nats).mean())
        assert letters.log_likelihood(text)[0] <= truth + 4 * error
        gaps.append(truth - nats.mean())
    # The orders do not agree, or the bound would be no bound.
    assert max(gaps) > 0.01


def test_probabilities_of_all_rows_sum_to_one(log_shares):
    rows = itertools.product(range(4), repeat=4)
    total = sum(np.exp(_nats_by_order(log_shares, row)).mean() for row in rows)
    assert total == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("stride", [None, 16, 5, 1])
@pytest.mark.parametrize("length", [1, 16, 17, 40])
def test_every_token_is_scored_once(length, stride):
    """Of a network that knows nothing all tokens have one loss, whatever is masked."""
    model = _fitted()
    with torch.no_grad():
        model.module_.embedding.weight.zero_()
    nats = model.log_likelihood((TEXT * 2)[:length], stride=stride)[0]
    assert nats == pytest.approx(-length * math.log(257), rel=1e-6)


def test_what_is_behind_a_window_does_not_count_and_what_is_before_does():
    model = _fitted(max_steps=40, learning_rate=0.01, likelihood_draws=4)
    seen = []
    model.module_.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    text = TEXT[:24]
    model.log_likelihood(text, stride=8)
    first, second = seen
    row = torch.tensor([256, *text.encode()])
    mask = model.module_.mask_token
    for ids, window, n_given in ((first, row[:17], 1), (second, row[8:], 9)):
        assert (ids[:, :n_given] == window[:n_given]).all()
        assert ((ids == window) | (ids == mask)).all()
        assert (ids == mask).sum(dim=1).min() >= 1 and ids.shape == (4, 17)


def test_training_lowers_the_bound(letters):
    """What the letters are without regard to each other takes ln 3 of each."""
    assert math.log(letters.perplexity(LETTERS)) < 0.8 * math.log(3)


# ------------------------------------------------------------------ generation


def test_drawn_rows_are_as_frequent_as_their_mean_over_orders(letters, log_shares):
    n = 20_000
    ids = torch.full((n, 5), MASK)
    ids[:, 0] = BOUNDARY
    generator = torch.Generator().manual_seed(0)
    *_, drawn = unmask(
        letters.module_, ids, mask_token=MASK, sampler=Sampler(), generator=generator
    )
    assert (drawn[:, 0] == BOUNDARY).all() and (drawn != MASK).all()
    counts = np.bincount((drawn[:, 1:] @ torch.tensor([64, 16, 4, 1])).numpy(), minlength=256)
    rows = itertools.product(range(4), repeat=4)
    expected = n * np.array([np.exp(_nats_by_order(log_shares, row)).mean() for row in rows])
    # Rows that are hardly ever drawn are counted together.
    rare = expected < 5
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert rare.any() and stats.chisquare(observed, expected).pvalue > 1e-3


def test_generated_texts_are_as_frequent_as_they_are_likely(letters):
    """Two tokens, of which the first drawn may be either one."""
    n = 300
    texts = letters.generate([""] * n, 2, random_state=0)
    with torch.inference_mode():
        both = (
            letters.module_(torch.tensor([[BOUNDARY, MASK, MASK]]))[0, :, :4].double().softmax(-1)
        )
        for a, b in itertools.product(range(3), repeat=2):
            ids = torch.tensor([[BOUNDARY, a, MASK], [BOUNDARY, MASK, b]])
            second = letters.module_(ids)[..., :4].double().softmax(-1)
            share = float(both[1, a] * second[0, 2, b] + both[2, b] * second[1, 1, a]) / 2
            count = texts.count("abc"[a] + "abc"[b])
            assert abs(count - n * share) < 4 * math.sqrt(n * share * (1 - share) + 1)


def test_the_mask_is_never_drawn():
    logits = _fitted().module_(torch.tensor([[256, 257, 257, 5]]))
    assert logits.shape[-1] == 258
    assert (logits[..., 257] == -torch.inf).all() and logits[..., :257].isfinite().all()


def test_passes_are_as_many_as_are_asked_for():
    model = _fitted(max_steps=40, learning_rate=0.01, context_length=32)
    for order in ("random", "confidence"):
        model.generate("the", 20, n_passes=5, order=order, random_state=0)
        assert model.decoding_["passes"] == 5
    model.generate("the", 20, random_state=0)
    assert model.decoding_["passes"] == 20
    # More than a context: 29 fit behind the prompt, then 16 more at a time.
    model.generate("the", 60, n_passes=3, random_state=0)
    assert model.decoding_["passes"] <= 9


def test_guidance_adds_what_the_prompt_changes():
    model = _fitted(max_steps=40, learning_rate=0.01)
    text = model.generate("the", 1, guidance=2.0, temperature=0)
    ids = torch.tensor([[256, *b"the", 257], [256, 257, 257, 257, 257]])
    with torch.inference_mode():
        with_prompt, without = model.module_(ids)[:, -1, :257]
    best = int((without + 3.0 * (with_prompt - without)).argmax())
    assert text == model.tokenizer_.decode([best])


# --------------------------------------------------------------- the estimator


class OneCluster(RoutingAttention):
    def __init__(self, d_model, n_heads, *, rotary=False):
        super().__init__(d_model, n_heads, n_clusters=1, rotary=rotary)


@pytest.mark.parametrize(
    "mixer",
    [
        *sorted(ordered_mixers()),
        ["mamba2", "attention"],
    ],
    ids=str,
)  # fmt: skip
def test_every_mixer_sees_both_ways_and_knows_the_order(mixer):
    # Of several clusters, a token sees its own.
    model = _fitted(mixer=OneCluster if mixer == "routing" else mixer)
    ids = torch.tensor([[256, 5, 6, 257, 7, 8]])
    with torch.inference_mode():
        here = model.module_(ids)[0, 3, :257]
        for other in ([256, 9, 6, 257, 7, 8], [256, 5, 6, 257, 7, 9], [256, 6, 5, 257, 7, 8]):
            assert not torch.allclose(here, model.module_(torch.tensor([other]))[0, 3, :257])


def test_it_is_saved(tmp_path):
    model = _fitted(early_stopping=0.2, max_steps=None, max_epochs=2)
    assert len(model.history_["val_loss"]) == 2
    model.save(tmp_path / "model")
    twin = tsar.load(tmp_path / "model")
    np.testing.assert_array_equal(twin.log_likelihood(TEXT), model.log_likelihood(TEXT))
    assert twin.generate("the", 20, random_state=0) == model.generate("the", 20, random_state=0)


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"mixer": "residual_attention"}, "mixer must be"),
        ({"mixer": []}, "at least one mixer"),
        ({"n_heads": 3}, "multiple of n_heads"),
        ({"likelihood_draws": 0}, "likelihood_draws"),
    ],
)
def test_parameters_are_checked_before_training(parameters, words):
    with pytest.raises(ParameterError, match=words):
        _fitted(**parameters)


def test_what_cannot_be_asked():
    model = _fitted(tokenizer="char")
    for how, words in (
        ({"n_passes": 0}, "n_passes must be an integer in .1, inf[)] or None, got 0"),
        ({"order": "left"}, "order must be"),
        ({"max_tokens": 0}, "max_tokens must be an integer in .1, inf[)], got 0"),
        ({"temperature": -1.0}, "temperature"),
    ):
        with pytest.raises(ParameterError, match=words):
            model.generate("the", **how)
    with pytest.raises(DataError, match="prompt must be a str, got bytes"):
        model.generate([b"the"])
    with pytest.raises(NotFittedError):
        MaskedDiffusionLM().generate("the")
