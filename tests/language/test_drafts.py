"""Trained drafts: greedy texts are the same, guesses are right, and the model stays as it is."""

import pytest
import torch

from tsar.checks.language import small_language_model
from tsar.core.decoding import EarlyExitDraft, NGramDraft, SpecTr, Speculative
from tsar.exceptions import DataError, NotFittedError, ParameterError
from tsar.language import LanguageModel, MegaByte
from tsar.language.drafts import fit_early_exit, fit_heads

TEXT = "the cat sat on the mat, and the dog sat on the log. " * 12


@pytest.fixture(scope="module")
def model():
    return LanguageModel(
        context_length=64, d_model=16, n_layers=3, n_heads=2, d_ff=32, max_steps=200,
        learning_rate=0.01, batch_size=8, random_state=0, device="cpu",
    ).fit(TEXT)  # fmt: skip


def _in_double(model, draft):
    """Greedy texts are compared where the passes of one token and of several agree."""
    model.module_.double()
    network = getattr(draft, "network", None) or draft.heads
    network.double()


@pytest.mark.parametrize("kind", ["blockwise", "medusa", "hydra"])
def test_heads_learn_to_guess(model, kind):
    before = {name: weight.clone() for name, weight in model.module_.state_dict().items()}
    draft = fit_heads(model, TEXT, kind=kind, max_steps=150, learning_rate=0.01)
    for name, weight in model.module_.state_dict().items():
        assert torch.equal(weight, before[name]), name
    again = fit_heads(model, TEXT, kind=kind, max_steps=150, learning_rate=0.01)
    for one, other in zip(draft.heads.parameters(), again.heads.parameters(), strict=True):
        assert torch.equal(one, other)
    _in_double(model, draft)
    try:
        plain = model.generate("the cat", 50, temperature=0)
        assert model.generate("the cat", 50, temperature=0, decoding=Speculative(draft, 3)) == plain
        assert model.decoding_["accepted"] > 0.6 * model.decoding_["proposed"]
        assert model.decoding_["passes"] < 25
    finally:
        model.module_.float()


def test_the_first_blocks_learn_to_guess(model):
    before = {name: weight.clone() for name, weight in model.module_.state_dict().items()}
    draft = fit_early_exit(model, TEXT, max_steps=150, learning_rate=0.01)
    ours, theirs = draft.network.state_dict(), model.module_.state_dict()
    for name, weight in theirs.items():
        assert torch.equal(weight, before[name]), name
    assert len(draft.network.decoder.encoder.blocks) == 2
    for name in ("embedding.weight", "decoder.encoder.blocks.0.mlp.expand.weight"):
        assert torch.equal(ours[name], theirs[name])
    _in_double(model, draft)
    try:
        plain = model.generate("the cat", 50, temperature=0)
        for way in (Speculative(draft, 6), SpecTr(draft, 3, 2)):
            assert model.generate("the cat", 50, temperature=0, decoding=way) == plain
            assert model.decoding_["accepted"] > 0 and model.decoding_["passes"] < 25
        # Past the context, where the model goes on from the last half of it, more than once.
        plain = model.generate("the cat", 150, temperature=0)
        way = Speculative(draft, 6)
        assert model.generate("the cat", 150, temperature=0, decoding=way) == plain
    finally:
        model.module_.float()


def test_no_block_reads_a_token_twice(model):
    """The first block reads guesses once, and the others read what it made of them."""
    draft = fit_early_exit(model, TEXT, max_steps=50, confidence=0.0)
    blocks = model.module_.decoder.encoder.blocks
    counts = [0] * 3

    def counting(number, extend):
        def counted(x, *rest):
            counts[number] += x.shape[1]
            return extend(x, *rest)

        return counted

    for number, block in enumerate(blocks):
        block.extend = counting(number, block.extend)
        block.extend_each = counting(number, block.extend_each)
    try:
        model.generate("", 30, temperature=0, decoding=Speculative(draft, 3))
    finally:
        for block in blocks:
            del block.extend, block.extend_each
    assert counts[0] == counts[1] == counts[2]


def test_an_early_exit_is_of_one_model(model):
    draft = fit_early_exit(model, TEXT, max_steps=1)
    other = LanguageModel(
        context_length=64, d_model=16, n_layers=3, n_heads=2, d_ff=32, max_steps=1,
        random_state=0, device="cpu",
    ).fit(TEXT)  # fmt: skip
    with pytest.raises(ParameterError, match="first blocks of another network; train one"):
        other.generate("the", decoding=Speculative(draft))
    with pytest.raises(ParameterError, match="must be the first ones of whole"):
        EarlyExitDraft(draft.network, other.module_)
    # A model that learns on has another network.
    other.partial_fit(TEXT)
    draft = fit_early_exit(other, TEXT, max_steps=1)
    other.partial_fit(TEXT)
    with pytest.raises(ParameterError, match="first blocks of another network; train one"):
        other.generate("the", decoding=Speculative(draft))


def test_ways_that_need_no_training_keep_greedy_texts(model):
    model.module_.double()
    try:
        plain = model.generate("the cat", 50, temperature=0)
        for way in ("jacobi", SpecTr(NGramDraft(4, model.encode(TEXT)), 4, 3)):
            assert model.generate("the cat", 50, temperature=0, decoding=way) == plain
            assert model.decoding_["passes"] < 50
    finally:
        model.module_.float()


def test_what_no_draft_can_be_trained_for(model):
    with pytest.raises(ParameterError, match="did you mean 'medusa'"):
        fit_heads(model, TEXT, kind="meduse")
    with pytest.raises(ParameterError, match="n_blocks must be less than the 3 blocks"):
        fit_early_exit(model, TEXT, n_blocks=3)
    with pytest.raises(ParameterError, match="must be a fitted LanguageModel, got MegaByte"):
        fit_heads(small_language_model(MegaByte), TEXT)
    with pytest.raises(NotFittedError):
        fit_heads(LanguageModel(), TEXT)
    with pytest.raises(DataError, match="the texts have 5 tokens and the model a context of 64"):
        fit_heads(model, "short")
    with pytest.raises(ParameterError, match="max_steps"):
        fit_heads(model, TEXT, max_steps=0)
    with pytest.raises(ParameterError, match="confidence"):
        fit_early_exit(model, TEXT, confidence=1.5)
    draft = fit_heads(model, TEXT, max_steps=1)
    patches = small_language_model(MegaByte, d_local=4).fit(TEXT)
    with pytest.raises(ParameterError, match="PatchedNetwork gives no hidden states"):
        patches.generate("the", decoding=Speculative(draft))


def test_several_suggestions_for_a_prompt(model):
    ways = model.suggest("the ", 3, 12, counts=NGramDraft(6, model.encode(TEXT)))
    assert len(set(ways)) == 3 and all(len(way) <= 12 for way in ways)
    # After "the " come the four nouns, and the best ways are told by the text itself.
    assert ("the " + ways[0]) in TEXT
    assert len(model.suggest("the ", 2)) == 2
    with pytest.raises(DataError, match="than context_length=64"):
        model.suggest("the ", 2, 100)
    with pytest.raises(ParameterError, match="n_texts"):
        model.suggest("the ", 0)
