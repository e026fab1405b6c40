import pytest
import torch

from tsar.core.mixers import AutoCorrelation, make_mixer
from tsar.core.ops.auto_correlation import auto_correlation
from tsar.exceptions import ParameterError


def _mixer(**options):
    torch.manual_seed(0)
    return AutoCorrelation(6, 2, **options).double()


def _tokens(batch=3, length=9, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, 6, dtype=torch.float64, generator=generator)


def _by_sequences(mixer, x, memory, mask, heads):
    """Delays of one sequence at a time, from the correlation summed head by head."""
    mixed = []
    for b in range(len(x)):
        query, key, value = mixer.query(x[b]), mixer.key(memory[b]), mixer.value(memory[b])
        if mask is not None:
            key, value = key * mask[b, :, None], value * mask[b, :, None]
        length, present = len(query), min(len(query), len(key))
        key, value = (
            torch.cat([part[:present], torch.zeros(length - present, 6).double()])
            for part in (key, value)
        )
        agreement = torch.stack(
            [(query.roll(-delay, dims=0) * key).sum(dim=0) for delay in range(length)]
        )  # (delays, features)
        parts = []
        for part in torch.arange(6).chunk(heads):
            strength, delays = (
                agreement[:, part].mean(dim=1).topk(int(3 * torch.log(torch.tensor(length))))
            )
            rolled = [value[:, part].roll(-int(delay), dims=0) for delay in delays]
            parts.append(torch.einsum("k,klv->lv", strength.softmax(0), torch.stack(rolled)))
        mixed.append(mixer.output(torch.cat(parts, dim=1)))
    return torch.stack(mixed)


@pytest.mark.parametrize("head_delays", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("n_memory", [None, 5, 12])
def test_sequences_are_mixed_one_by_one(head_delays, masked, n_memory):
    mixer, x = _mixer(head_delays=head_delays).eval(), _tokens()
    memory = None if n_memory is None else _tokens(length=n_memory, seed=2)
    source = x if memory is None else memory
    mask = None
    if masked:
        mask = torch.rand(source.shape[:2], generator=torch.Generator().manual_seed(3)) > 0.3
    expected = _by_sequences(mixer, x, source, mask, 2 if head_delays else 1)
    torch.testing.assert_close(mixer(x, mask=mask, memory=memory), expected)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("n_memory", [9, 5, 12])
def test_folded_projections_change_nothing(masked, n_memory, monkeypatch):
    mixer, x, memory = _mixer(), _tokens().requires_grad_(), _tokens(length=n_memory, seed=2)
    memory.requires_grad_()
    mask = None
    if masked:
        mask = torch.rand(3, n_memory, generator=torch.Generator().manual_seed(3)) > 0.3
    results = []
    for folds in (True, False):
        monkeypatch.setattr(mixer, "_folds", lambda memory, folds=folds: folds)
        mixed = mixer(x, mask=mask, memory=memory)
        gradients = torch.autograd.grad(mixed.square().sum(), [x, memory, *mixer.parameters()])
        results.append([mixed, *gradients])
    for folded, plain in zip(*results, strict=True):
        torch.testing.assert_close(folded, plain)


def test_projections_are_folded_where_that_pays():
    mixer, x = _mixer(), _tokens()
    assert mixer._folds(x)
    assert not mixer._folds(x[:1, :6])
    assert not _mixer(head_delays=True)._folds(x)
    with torch.no_grad():
        assert not mixer._folds(x)


def test_delays_are_shared_in_training_only():
    mixer, x = _mixer(), _tokens()
    parts = [part.unflatten(2, (1, 6)) for part in (mixer.query(x), mixer.key(x), mixer.value(x))]
    for training in (True, False):
        mixed = auto_correlation(*parts, shared=training, backend="reference").flatten(2)
        torch.testing.assert_close(mixer.train(training)(x), mixer.output(mixed))


def test_number_of_heads_matters_for_delays_of_heads_only():
    x = _tokens()
    for head_delays in (False, True):
        few = _mixer(head_delays=head_delays)
        torch.manual_seed(0)
        many = AutoCorrelation(6, 3, head_delays=head_delays).double()
        assert torch.allclose(few(x), many(x)) is not head_delays


def test_masked_tokens_change_nothing():
    mixer, x = _mixer().eval(), _tokens()
    keys = torch.ones(3, 9).bool()
    keys[:, 4] = False
    memory, other = x.clone(), x.clone()
    other[:, 4] = 100.0
    assert torch.equal(mixer(x, mask=keys, memory=memory), mixer(x, mask=keys, memory=other))


def test_pairs_cannot_be_masked():
    with pytest.raises(ParameterError, match="pairs cannot be masked"):
        _mixer()(_tokens(), mask=torch.ones(3, 9, 9).bool())


def test_heads_must_divide_the_width():
    with pytest.raises(ParameterError, match="n_heads=4 does not divide d_model=6"):
        AutoCorrelation(6, 4)


def test_mixer_by_name():
    assert isinstance(make_mixer("autocorrelation", 6, n_heads=2), AutoCorrelation)
