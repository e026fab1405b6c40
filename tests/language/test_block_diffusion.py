"""Block diffusion: against autoregression, enumeration of orders, and passes over prefixes."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

import tsar
from tsar.checks.language import small_language_model
from tsar.core.masking import random_block_masks
from tsar.exceptions import NotFittedError, ParameterError
from tsar.language import BlockDiffusionLM, LanguageModel
from tsar.language.corpus import token_row
from tsar.training import Cosine

TEXT = "the cat sat on the mat, and the dog sat on the log. " * 12


def _fitted(texts=TEXT, initial=None, **parameters):
    return small_language_model(BlockDiffusionLM, **parameters).fit(texts, initial=initial)


class Three:
    n_tokens = 3

    def encode(self, text):
        return ["abc".index(letter) for letter in text]

    def decode(self, ids):
        return "".join("abc"[place] for place in ids)


def _small(block_size, **parameters):
    model = _fitted(
        "abcacb" * 20, tokenizer=Three(), block_size=block_size, context_length=8, **parameters
    )
    model.module_.double()
    return model


def _after(network, ids, block_size):
    """Logits of the last block of (1, T) tokens with masks, from all there is before it."""
    n_before = (ids.shape[1] - 1) // block_size * block_size
    state = network.init_state(1)
    for begin in range(0, n_before, block_size):
        _, states = network.extend_each(ids[:, begin : begin + block_size], state)
        state = states[-1]
    return network.extend_each(ids[:, n_before:], state)[0]


@torch.no_grad()
def _chance(network, letters, block_size):
    """Of a text: the mean over the orders inside of each block, block by block."""
    ids, total = torch.tensor([[3, *letters]]), 1.0
    for begin in range(0, ids.shape[1], block_size):
        block = [k for k in range(begin, min(begin + block_size, ids.shape[1])) if k > 0]
        orders = list(itertools.permutations(block))
        mean = 0.0
        for order in orders:
            chance, seen = 1.0, ids[:, : begin + block_size].clone()
            seen[:, block] = network.mask_token
            for place in order:
                shares = _after(network, seen, block_size)[0, place - begin].softmax(dim=-1)
                chance *= float(shares[ids[0, place]])
                seen[:, place] = ids[0, place]
            mean += chance / len(orders)
        total *= mean
    return total


# ------------------------------------------------------------------------ masks


@pytest.mark.parametrize("block_size", [1, 2, 4, 9])
def test_every_set_of_masked_tokens_of_a_block_is_as_likely_as_another(block_size):
    generator = torch.Generator().manual_seed(0)
    maskable = torch.tensor([False, True, True, False, True, True, True, True])
    chosen, weights = random_block_masks(maskable, block_size, 20_000, generator)
    assert chosen.shape == weights.shape == (20_000, 8) and not chosen[:, ~maskable].any()
    for begin in range(0, 8, block_size):
        inside = slice(begin, begin + block_size)
        free = maskable[inside].nonzero()[:, 0]
        if len(free) == 0:
            continue
        part = chosen[:, inside][:, free]
        counts = part.sum(dim=1)
        assert int(counts.min()) == 1 and int(counts.max()) == len(free)
        torch.testing.assert_close(weights[:, begin], len(free) / counts.double())
        seen = np.bincount(counts.numpy(), minlength=len(free) + 1)[1:]
        assert len(seen) == 1 or chisquare(seen).pvalue > 1e-4
        # On average each token counts once.
        means = (part * weights[:, inside][:, free]).mean(dim=0)
        np.testing.assert_allclose(means, 1.0, atol=0.06)


# ---------------------------------------------------------------------- network


@torch.no_grad()
@pytest.mark.parametrize("block_size", [1, 2, 3, 5])
def test_one_pass_over_both_halves_is_a_pass_for_each_block(block_size):
    network = _fitted(block_size=block_size).module_.double()
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(256, (2, 11), generator=generator)
    noisy = clean.masked_fill(torch.rand(2, 11, generator=generator) < 0.5, network.mask_token)
    together = network(noisy, clean)
    state = network.init_state(2)
    for begin in range(0, 11, block_size):
        block = slice(begin, begin + block_size)
        logits, _ = network.extend_each(noisy[:, block], state)
        torch.testing.assert_close(together[:, block], logits)
        _, states = network.extend_each(clean[:, block], state)
        state = states[-1]
    # Several whole blocks in one pass, and the block behind them from the state they leave.
    n_whole = 10 // block_size * block_size
    _, states = network.extend_each(clean[:, :n_whole], network.init_state(2))
    behind, _ = network.extend_each(noisy[:, n_whole : n_whole + block_size], states[-1])
    torch.testing.assert_close(behind, together[:, n_whole : n_whole + block_size])


@torch.no_grad()
def test_a_block_knows_nothing_of_its_clean_tokens_and_later_ones():
    network = _fitted(block_size=3).module_.double()
    clean = torch.randint(256, (1, 12), generator=torch.Generator().manual_seed(0))
    noisy = clean.masked_fill(torch.arange(12) % 3 == 1, network.mask_token)
    before = network(noisy, clean)
    for changed in range(12):
        other = clean.clone()
        other[0, changed] = (clean[0, changed] + 1) % 256
        moved = (network(noisy, other) != before).any(dim=-1)[0]
        assert moved.tolist() == [k // 3 > changed // 3 for k in range(12)]


# ------------------------------------------------------------------- likelihood


def test_blocks_of_one_are_exact_autoregression():
    model = _small(1, likelihood_draws=1)
    texts = ["".join(letters) for letters in itertools.product("abc", repeat=3)]
    nats = model.log_likelihood(texts)
    for text, result in zip(texts, nats, strict=True):
        expected = _chance(model.module_, Three().encode(text), 1)
        assert result == pytest.approx(math.log(expected), abs=1e-9)
    model.set_params(likelihood_draws=7)
    model.remember_parameters()
    np.testing.assert_allclose(model.log_likelihood(texts), nats)
    # What ends before is the rest of the sum.
    ended, network = 0.0, model.module_
    with torch.no_grad():
        for n in range(3):
            for prefix in itertools.product(range(3), repeat=n):
                ids = torch.tensor([[3, *prefix, network.mask_token]])
                end = float(_after(network, ids, 1)[0, -1].softmax(dim=-1)[3])
                ended += _chance(network, prefix, 1) * end
    assert np.exp(nats).sum() + ended == pytest.approx(1.0)


@pytest.mark.parametrize("block_size", [2, 3])
def test_larger_blocks_are_bounded(block_size):
    # Briefly trained: the farther its orders disagree, the farther the bound is below.
    schedule = Cosine(lowest=0.05, warmup_steps=100)
    model = _small(
        block_size,
        likelihood_draws=600,
        max_steps=60,
        learning_rate=0.02,
        learning_rate_schedule=schedule,
    )
    for text in ("abca", "ccbb"):
        truth = math.log(_chance(model.module_, Three().encode(text), block_size))
        bound = float(model.log_likelihood(text)[0])
        assert bound < truth + 0.05 and bound > truth - 0.5


# --------------------------------------------------------------------- drawing


@pytest.mark.parametrize("block_size", [1, 2, 4])
def test_texts_are_as_frequent_as_their_chances(block_size):
    model = _small(block_size, max_steps=60, learning_rate=0.02)
    n_texts = 800
    written = model.generate(["a"] * n_texts, 2, threshold=None, random_state=0)
    network = model.module_
    chances = {}
    # Of what follows the prompt: inside of its block, the prompt is given.
    with torch.no_grad():
        for two in itertools.product(range(4), repeat=2):
            ids, total = torch.tensor([[3, 0, *two]]), 1.0
            for begin in range(0, 4, block_size):
                block = [k for k in range(begin, begin + block_size) if 2 <= k]
                mean, orders = 0.0, list(itertools.permutations(block))
                for order in orders:
                    chance, seen = 1.0, ids[:, : begin + block_size].clone()
                    seen[:, block] = network.mask_token
                    for place in order:
                        logits = _after(network, seen, block_size)[0, place - begin]
                        chance *= float(logits.softmax(dim=-1)[ids[0, place]])
                        seen[:, place] = ids[0, place]
                    mean += chance / len(orders)
                total *= mean
            text = "".join("abc|"[k] for k in two).split("|")[0]
            chances[text] = chances.get(text, 0.0) + total
    assert sum(chances.values()) == pytest.approx(1.0)
    observed = np.array([written.count(text) for text in chances])
    expected = n_texts * np.array(list(chances.values()))
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    kept = expected > 0
    assert observed.sum() == n_texts
    assert chisquare(observed[kept], expected[kept]).pvalue > 1e-4


def test_sure_tokens_come_together():
    text = "one two three four five six seven eight nine ten. "
    settings = {
        **{"context_length": 32, "d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64},
        **{"batch_size": 16, "random_state": 0, "device": "cpu", "learning_rate": 5e-3},
    }
    trained = LanguageModel(**settings, max_steps=300).fit(text * 40)
    before = trained.log_likelihood(text)
    model = BlockDiffusionLM(**settings, max_steps=400).fit(text * 40, initial=trained)
    np.testing.assert_array_equal(trained.log_likelihood(text), before)  # it was copied
    written = model.generate("one two", 150, temperature=0)
    assert (text * 4).startswith("one two" + written)
    assert model.decoding_["passes"] < 0.6 * model.decoding_["tokens"]
    model.generate("one two", 20, threshold=1.0, temperature=0)
    assert model.decoding_["passes"] >= 20


def test_it_begins_with_the_weights_of_a_language_model(tmp_path):
    trained = small_language_model(LanguageModel).fit(TEXT)
    model = _fitted(initial=trained, max_steps=1, learning_rate=1e-12)
    ours, theirs = model.module_.state_dict(), trained.module_.state_dict()
    assert ours.keys() - {name.removeprefix("decoder.") for name in theirs} == {
        "before.weight",
        "here.weight",
    }
    for name, weights in theirs.items():
        part = ours[name.removeprefix("decoder.")][: len(weights)]
        torch.testing.assert_close(part, weights, rtol=1e-4, atol=1e-6)
    for table in ("embedding.weight", "before.weight"):
        torch.testing.assert_close(ours[table][:-1], theirs["embedding.weight"], atol=1e-6, rtol=0)
        assert len(ours[table]) == len(theirs["embedding.weight"]) + 1
    assert ours["here.weight"].abs().max() < 1e-6
    model.save(tmp_path / "model")
    twin = tsar.load(tmp_path / "model")
    np.testing.assert_array_equal(twin.log_likelihood(TEXT), model.log_likelihood(TEXT))
    assert twin.generate("the", 20, random_state=0) == model.generate("the", 20, random_state=0)


@torch.no_grad()
def test_what_it_begins_with_gives_what_the_language_model_gives():
    """A place that reads the token before it, and no later one, is a place of that model."""
    trained = small_language_model(LanguageModel, max_steps=60, learning_rate=0.02).fit(TEXT)
    network = _fitted(initial=trained, max_steps=1, learning_rate=1e-12).module_.double()
    network.block_size = 1
    ids = torch.tensor([[256, *TEXT[:20].encode()]])
    masked = torch.full_like(ids, network.mask_token)
    seen = network.encoder.forward
    # The place of the first token has none in the other model.
    network.encoder.forward = lambda x, *, mask, positions: seen(
        x, mask=mask & (positions > 0) | torch.eye(42, dtype=torch.bool), positions=positions
    )
    ours = network(masked, ids)[:, 1:, :-1]
    theirs = trained.module_.double()(ids[:, :-1])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_models_that_did_not_read_the_token_before_are_restored():
    model = _fitted()
    record, tensors = model.learned_state()
    network = model.module_
    with torch.no_grad():
        network.before.weight.zero_()
        network.here.weight.copy_(torch.eye(len(network.here.weight)))
    fewer = {name: t for name, t in tensors.items() if ".before." not in name}
    fewer = {name: t for name, t in fewer.items() if ".here." not in name and "/" not in name}
    assert len(fewer) < len(tensors)
    twin = BlockDiffusionLM(**model.get_params())
    twin.restore_learned_state(record, fewer, {})
    np.testing.assert_array_equal(twin.log_likelihood(TEXT), model.log_likelihood(TEXT))
    twin.partial_fit(TEXT)


@pytest.mark.parametrize("block_size", [1, 4, 16])
def test_texts_go_on_past_the_context(block_size):
    model = _fitted(block_size=block_size)
    for prompt in ("", "the", TEXT[:40]):
        assert len(token_row(model.tokenizer_, [prompt], 256)) == len(prompt) + 1
        model.generate(prompt, 50, random_state=0)
        assert model.decoding_["tokens"] <= 50


def test_what_cannot_be_asked():
    with pytest.raises(ParameterError, match="mixer must be one of 'attention'"):
        _fitted(mixer="mamba2")
    trained = small_language_model(LanguageModel, d_model=16).fit(TEXT)
    with pytest.raises(ParameterError, match="initial, a LanguageModel, has other weights"):
        _fitted(initial=trained)
    recurrent = small_language_model(LanguageModel, mixer="mamba2").fit(TEXT)
    with pytest.raises(ParameterError, match="give both the same mixer, d_model"):
        _fitted(initial=recurrent)
    with pytest.raises(NotFittedError):
        _fitted(initial=LanguageModel())
    with pytest.raises(ParameterError, match="initial must be a fitted LanguageModel, got 3"):
        _fitted(initial=3)
    with pytest.raises(ParameterError, match="initial has tokenizer='char'"):
        _fitted(initial=small_language_model(LanguageModel, tokenizer="char").fit(TEXT))
    model = _fitted(warm_start=True)
    with pytest.raises(ParameterError, match="warm_start=True goes on with the weights of the fit"):
        model.fit(TEXT, initial=small_language_model(LanguageModel).fit(TEXT))
    with pytest.raises(ParameterError, match="threshold"):
        _fitted().generate("the", threshold=1.5)
    with pytest.raises(ParameterError, match="block_size"):
        _fitted(block_size=0)
