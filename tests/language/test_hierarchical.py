"""Models of patches: against the passes that define them, token by token, and for leaks."""

import itertools
import math

import numpy as np
import pytest
import torch

import tsar
from tsar.checks.language import small_language_model
from tsar.core.state import fork, rewind, select
from tsar.exceptions import ParameterError
from tsar.language import BlockTransformer, MegaByte
from tsar.language.corpus import token_row
from tsar.language.patched import PatchedNetwork

TEXT = "the cat sat on the mat, and the dog sat on the log. " * 12
MODELS = (MegaByte, BlockTransformer)
OPTIONS = [
    {"patch_size": 4, "local_mixer": "attention", "local_window": None},
    {
        **{"patch_size": 2, "mixer": "mamba2", "local_window": None},
        "local_mixer": ["retention", "attention"],
    },
    {"patch_size": 4, "local_window": 6, "local_mixer": ["gated_convolution", "attention"]},
]


def _fitted(cls, texts=TEXT, **parameters):
    return small_language_model(cls, d_local=4, **parameters).fit(texts)


def _network(cls, **parameters):
    return _fitted(cls, **parameters).module_.double()


def _ids(length, batch=3):
    return torch.randint(257, (batch, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def _logits_of_the_last(network, ids):
    """From the definition: patches in one pass, the last one or all up to it in another."""
    size = network.patch_size
    read = network.embedding(ids)
    if network.local_first is not None:
        read = torch.cat([network.local_first.expand(len(ids), 1, -1), read], dim=1)
    rows = [network.first.expand(len(ids), -1)]
    for begin in range(0, (read.shape[1] - 1) // size * size, size):
        parts = [network.patch_embedding(ids[:, begin + k]) for k in range(size)]
        rows.append(torch.cat(parts, dim=-1))
    overall = network.overall(torch.stack(rows, dim=1))
    told, weight, bias = network.context, network.context.map.weight, network.context.map.bias
    patches = []
    for patch, begin in enumerate(range(0, read.shape[1], size)):
        tokens = read[:, begin : begin + size].clone()
        if isinstance(network.context, tsar.language.patched.AddedContext):
            cut = overall[:, patch].chunk(size, dim=-1)
            for k in range(tokens.shape[1]):
                tokens[:, k] += cut[k] @ weight.T + bias
        else:
            prefix = (overall[:, patch] @ weight.T + bias).view(len(ids), told.n_prefix, -1)
            tokens = torch.cat([prefix, tokens], dim=1)
        patches.append(tokens)
    last = network.local(torch.cat(patches, dim=1) if network.across else patches[-1])[:, -1]
    return last @ network.embedding.weight.T


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cls", MODELS)
def test_logits_are_those_of_the_definition(cls, options):
    network, ids = _network(cls, **options), _ids(15)
    with torch.no_grad():
        for length in (1, 2, 3, 4, 5, 8, 11, 15):
            logits = network(ids[:, :length])
            assert logits.shape == (3, length, 257)
            torch.testing.assert_close(logits[:, -1], _logits_of_the_last(network, ids[:, :length]))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cls", MODELS)
def test_no_token_is_told_of_later_ones(cls, options):
    """The gradient of each logit is 0 in all later tokens, and not in the one before."""
    network, ids = _network(cls, **options), _ids(14, 1)
    seen = {}
    for table in (network.embedding, network.patch_embedding):
        table.register_forward_hook(lambda _, __, out: seen.setdefault(id(out), out))
    logits = network(ids)
    inputs = [out for out in seen.values() if out.requires_grad]
    for t in range(14):
        touched = torch.zeros(16, dtype=torch.bool)
        grads = torch.autograd.grad(
            logits[0, t].sin().sum(), inputs, retain_graph=True, allow_unused=True
        )
        for grad in grads:
            if grad is not None:
                by_token = grad.flatten(0, -2).abs().sum(dim=-1)
                touched[: len(by_token)] |= by_token > 0
        assert not touched[t + 1 :].any() and touched[: t + 1].all()


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cls", MODELS)
def test_any_cutting_gives_the_full_pass(cls, options, mode):
    network, ids = _network(cls, **options), _ids(33)
    with mode():
        expected = network(ids)
        for pieces in ((1,), (3,), (1, 3, 2, 11, 1), (33,), (0, 4), (4, 5)):
            state, outputs, start = network.init_state(3), [], 0
            for size in itertools.cycle(pieces):
                output, state = network.extend(ids[:, start : start + size], state)
                outputs.append(output)
                start += size
                if start >= 33:
                    break
            torch.testing.assert_close(torch.cat(outputs, dim=1), expected)


@torch.inference_mode()
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cls", MODELS)
def test_states_are_forked_selected_and_rewound(cls, options):
    network, ids = _network(cls, **options), _ids(20)
    expected = network(ids)
    _, start = network.extend(ids[:, :7], network.init_state(3))
    rows = torch.tensor([2, 0, 2])
    output, _ = network.extend(ids[rows, 7:], select(start, rows))
    torch.testing.assert_close(output, expected[rows, 7:])
    wrong = torch.cat([ids[:, 7:10], _ids(5)], dim=1)
    output, states = network.extend_each(wrong, fork(start))
    assert len(states) == 8
    torch.testing.assert_close(output[:, :3], expected[:, 7:10])
    output, _ = network.extend(ids[:, 10:], rewind(states[2]))
    torch.testing.assert_close(output, expected[:, 10:])
    nothing, states = network.extend_each(ids[:, :0], start)
    assert nothing.shape == (3, 0, 257) and states == ()


@torch.inference_mode()
@pytest.mark.parametrize("cls", MODELS)
def test_saved_networks_of_earlier_versions_are_what_they_were(cls):
    """Their contexts stood beside the token that is read, and each patch began anew."""
    model = _fitted(cls)
    new, ids = model.module_, _ids(15)
    old = PatchedNetwork(
        new.overall, new.local, new.context, new.n_tokens, new.patch_size, late=True
    )
    for length in (1, 3, 4, 5, 15):
        expected = _logits_of_the_last(old, ids[:, :length])
        torch.testing.assert_close(old(ids[:, :length])[:, -1], expected)
    record, tensors = model.learned_state()
    tensors = {name: tensor for name, tensor in tensors.items() if "local_first" not in name}
    tensors |= {f"network.{name}": tensor for name, tensor in old.state_dict().items()}
    parameters = model.get_params()
    del parameters["local_window"]
    twin = cls(**cls.upgrade_parameters(parameters))
    twin.restore_learned_state(record, tensors, {})
    torch.testing.assert_close(twin.module_(ids), old(ids), rtol=0, atol=0)
    assert not torch.allclose(twin.module_(ids), new(ids))
    whole = old(ids)
    for pieces in ((1, 14), (4, 5, 6), (3, 12), (8, 7), (15,)):
        state, outputs = old.init_state(3), []
        for piece in ids.split(pieces, dim=1):
            output, state = old.extend(piece, state)
            outputs.append(output)
        torch.testing.assert_close(torch.cat(outputs, dim=1), whole)


class Three:
    n_tokens = 3

    def encode(self, text):
        return ["abc".index(letter) for letter in text]

    def decode(self, ids):
        return "".join("abc"[place] for place in ids)


@pytest.mark.parametrize("cls", MODELS)
def test_probabilities_of_all_texts_sum_to_one(cls):
    """Of all texts of three letters, and of what ends or goes on in another way before."""
    model = _fitted(cls, "abcacb" * 20, tokenizer=Three(), context_length=6, patch_size=2)
    texts = ["".join(letters) for letters in itertools.product("abc", repeat=3)]
    ended = 0.0
    with torch.inference_mode():
        for n in range(3):
            for prefix in itertools.product(range(3), repeat=n):
                shares = model.module_(torch.tensor([[3, *prefix]])).double().log_softmax(-1)[0]
                nats = sum(float(shares[k, token]) for k, token in enumerate(prefix))
                ended += math.exp(nats + float(shares[n, 3]))
    assert np.exp(model.log_likelihood(texts)).sum() + ended == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    "options", [*OPTIONS, {"mixer": "mamba2", "local_mixer": "mamba"}], ids=str
)
@pytest.mark.parametrize("cls", MODELS)
def test_greedy_text_is_that_of_reading_anew(cls, options):
    model = _fitted(cls, **options, context_length=48, max_steps=20, learning_rate=0.01)
    model.module_.double()
    text = model.generate("the", max_tokens=30, temperature=0)
    ids = token_row(model.tokenizer_, ["the"], 256)[None]
    with torch.inference_mode():
        for _ in range(30):
            ids = torch.cat([ids, model.module_(ids)[:, -1:].argmax(dim=-1)], dim=1)
    assert text == model.tokenizer_.decode(ids[0, 4:].tolist())
    assert text == model.generate("the", 30, temperature=0, decoding="ngram")


@pytest.mark.parametrize("cls", MODELS)
def test_patches_are_learned_by_heart_and_saved(cls, tmp_path):
    text = "one two three four five six seven eight nine ten. "
    model = cls(
        context_length=32, d_model=32, n_layers=2, n_heads=2, d_ff=64, d_local=32,
        n_local_layers=1, max_steps=400, batch_size=16, learning_rate=5e-3, random_state=0,
        device="cpu",
    ).fit(text * 40)  # fmt: skip
    written = model.generate("one two", 100, temperature=0)
    assert (text * 4).startswith("one two" + written)
    model.save(tmp_path / "model")
    assert tsar.load(tmp_path / "model").generate("one two", 100, temperature=0) == written
    assert model.embed(["one"]).shape == (1, 32)


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"patch_size": 3}, "d_model must be a multiple of patch_size=3, got 8"),
        ({"patch_size": 1}, "patch_size"),
        ({"d_local": 7, "local_mixer": "attention"}, "multiple of n_heads"),
        ({"local_window": 0}, "local_window"),
        ({"local_mixer": "autocorrelation"}, "local_mixer must be"),
        ({"local_mixer": []}, "local_mixer must name at least one"),
        ({"mixer": "latents"}, "mixer must be"),
        ({"n_local_layers": 0}, "n_local_layers"),
    ],
)
def test_parameters_are_checked_before_training(parameters, words):
    with pytest.raises(ParameterError, match=words):
        small_language_model(MegaByte, **{"d_local": 4, **parameters}).fit(TEXT)
