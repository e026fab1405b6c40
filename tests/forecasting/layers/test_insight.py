"""Attention maps and embeddings of fitted networks, against the formula from their own weights."""

import numpy as np
import pandas as pd
import pytest
import torch

import tsar
from tsar.checks import small_forecaster
from tsar.core.mixers import ResidualAttention, SoftmaxAttention
from tsar.core.ops.attention import attention, attention_weights
from tsar.exceptions import DataError, NotFittedError, ParameterError

ROWS, HORIZON = 90, 3


def _wide(n_variates: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    stamps = pd.date_range("2024-01-01", periods=ROWS, freq="D")
    return pd.DataFrame(
        rng.normal(size=(ROWS, n_variates)).cumsum(axis=0), stamps, columns=list("cab")[:n_variates]
    )


def _long() -> pd.DataFrame:
    parts = [
        pd.DataFrame({"unique_id": name, "ds": _wide().index[:n], "y": _wide()[column][:n]})
        for name, column, n in (("s", "a", 90), ("t", "b", 9), ("u", "c", 70))
    ]
    return pd.concat(parts, ignore_index=True)


def _heads(projected: torch.Tensor, n_heads: int) -> torch.Tensor:
    return projected.unflatten(-1, (n_heads, -1)).transpose(1, 2)


@pytest.mark.parametrize("mixer", ["attention", "residual_attention"])
def test_the_attention_of_patches_is_the_softmax_of_their_products(mixer):
    model = small_forecaster(
        tsar.PatchTST, horizon=HORIZON, mixer=mixer, n_layers=2, n_heads=2, d_model=8
    ).fit(_wide())
    found = model.inspect()
    network = model.module_
    n_patches = network.embedding.n_patches
    assert found.shape == (1, 2, 3, 2, n_patches, n_patches) and found.dtype == np.float32
    # By hand: the network's own modules, and the formula of the weights written out.
    scaling = model.learned_.scaling
    context = model.end_.values[-model.context_length :]
    x = torch.tensor((context - scaling.mean) / scaling.scale, dtype=torch.float32)[None]
    with torch.no_grad():
        x, _, _ = network.revin(x, None)
        tokens = network.position(network.embedding(x))
        scores = 0.0
        for layer, block in enumerate(network.encoder.blocks):
            own = block.mixer
            query, key, value = own.query_key_value(block.before_mixer(tokens)).chunk(3, dim=-1)
            query, key, value = (_heads(part, 2) for part in (query, key, value))
            product = query @ key.mT / np.sqrt(4)
            scores = product + (scores if mixer == "residual_attention" else 0.0)
            weights = scores.softmax(-1)
            np.testing.assert_allclose(found[0, layer], weights.numpy(), rtol=2e-4, atol=1e-6)
            mixed = own.output((weights @ value).transpose(1, 2).flatten(2))
            tokens = block.after_mixer(tokens, mixed)
    embedded = model.inspect(what="embedding")
    assert embedded.shape == (1, 3, n_patches, 8)
    np.testing.assert_allclose(embedded[0], tokens.numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)


def test_looking_changes_no_forecast():
    model = small_forecaster(tsar.PatchTST, horizon=HORIZON).fit(_wide())
    before = model.predict()
    for what in ("attention", "embedding"):
        model.inspect(what=what)
    pd.testing.assert_frame_equal(model.predict(), before, check_exact=True)


@pytest.mark.parametrize("calendar", [False, True])
def test_tokens_that_are_variates(calendar):
    model = small_forecaster(
        tsar.iTransformer, horizon=HORIZON, calendar_features=calendar, n_layers=2
    ).fit(_wide())
    found, embedded = model.inspect(), model.inspect(what="embedding")
    n_tokens = 3 + 4 * calendar
    n_heads, d_model = model.n_heads, model.d_model
    assert found.shape == (1, 2, 1, n_heads, n_tokens, n_tokens)
    assert embedded.shape == (1, 1, n_tokens, d_model)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)
    # The head of the network makes the forecast from these tokens.
    with torch.no_grad():
        raw = model.module_.head(torch.from_numpy(embedded[0, 0, :3]))
    scaling = model.learned_.scaling
    context = (model.end_.values[-model.context_length :] - scaling.mean) / scaling.scale
    _, location, scale = model.module_.revin(torch.tensor(context, dtype=torch.float32)[None], None)
    forecast = (raw.T * scale[0] + location[0]).detach().numpy() * scaling.scale + scaling.mean
    np.testing.assert_allclose(model.predict(), forecast, rtol=1e-4)
    turned = _wide()[["b", "c", "a"]]
    np.testing.assert_allclose(model.inspect(turned), found, rtol=1e-4, atol=1e-6)


def test_s_mamba_has_an_embedding_and_no_attention():
    model = small_forecaster(tsar.SMamba, horizon=HORIZON).fit(_wide())
    assert model.inspect(what="embedding").shape[:2] == (1, 1)
    with pytest.raises(ParameterError, match="SMamba: what='attention' needs .* mixer='attention'"):
        model.inspect()


def test_each_series_is_looked_at_by_itself():
    model = small_forecaster(tsar.PatchTST, horizon=HORIZON).fit(_long())
    found = model.inspect()
    assert found.shape[0] == 3
    for place, name in enumerate("stu"):
        alone = model.inspect(_long()[_long()["unique_id"] == name])
        np.testing.assert_allclose(alone[0], found[place], rtol=1e-5, atol=1e-7)
    assert not np.allclose(found[0], found[2])


def test_future_covariates_are_read():
    wide = _wide().assign(price=np.arange(ROWS) % 5.0)
    model = small_forecaster(tsar.iTransformer, horizon=HORIZON, future_covariates=["price"])
    model.fit(wide)
    future = model.make_future_frame().assign(price=1.0)
    found = model.inspect(future=future)
    assert found.shape[-1] > 3
    assert not np.allclose(found, model.inspect(future=future.assign(price=4.0)))
    with pytest.raises(DataError, match="price"):
        model.inspect()


def test_what_cannot_be_looked_at():
    with pytest.raises(NotFittedError):
        tsar.PatchTST().inspect()
    model = small_forecaster(tsar.NLinear, horizon=HORIZON).fit(_wide())
    with pytest.raises(ParameterError, match="NLinear: what='embedding' needs a network with an"):
        model.inspect(what="embedding")
    with pytest.raises(ParameterError, match="what must be one of .* .did you mean 'attention'"):
        model.inspect(what="atention")


@pytest.mark.parametrize("causal", [False, True])
def test_weights_are_those_that_attention_mixes_with(causal):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 4, dtype=torch.float64) for _ in range(3))
    mask = torch.rand(2, 7) > 0.3
    mask[:, 0] = True
    weights = attention_weights(query, key, mask=mask, causal=causal)
    for backend in ("reference", "matmul", "sdpa"):
        mixed = attention(query, key, value, mask=mask, causal=causal, backend=backend)
        torch.testing.assert_close(weights @ value, mixed)
    both = attention_weights([query, key], [key, query], scale=0.3)
    torch.testing.assert_close(both, (0.3 * (query @ key.mT + key @ query.mT)).softmax(-1))


@pytest.mark.parametrize("kind", [SoftmaxAttention, ResidualAttention])
def test_nothing_is_recorded_outside_of_the_block(kind):
    mixer = kind(8, 2).eval()
    x = torch.randn(2, 5, 8)
    with mixer.recording() as kept:
        mixer(x)
        mixer(x[:, :3])
    mixer(x)
    assert [tuple(one.shape) for one in kept] == [(2, 2, 5, 5), (2, 2, 3, 3)]
