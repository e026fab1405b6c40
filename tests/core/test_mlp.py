import copy

import pytest
import torch
from torch import nn

from tsar.core.decay import no_decay_names
from tsar.core.mlp import MLP, MLPS, GatedMLP, MixtureOfExperts, balancing, make_mlp
from tsar.exceptions import ParameterError


def _tokens(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _experts(**options):
    torch.manual_seed(0)
    return MixtureOfExperts(6, 5, **options).double()


def test_gated_mlp_is_a_product_of_two_maps():
    mlp, x = GatedMLP(6, 5, bias=False).double(), _tokens(2, 3, 6)
    gate, value = (x @ part.T for part in mlp.expand.weight.chunk(2))
    hidden = gate / (1 + torch.exp(-gate)) * value
    torch.testing.assert_close(mlp(x), hidden @ mlp.contract.weight.T)
    assert sum(p.numel() for p in mlp.parameters()) == 3 * 6 * 5


@pytest.mark.parametrize(("n_experts", "top_k"), [(4, 2), (3, 1), (3, 3)])
def test_every_token_is_mixed_of_its_best_experts(n_experts, top_k):
    mlp, x = _experts(n_experts=n_experts, top_k=top_k), _tokens(2, 7, 6).requires_grad_()
    rows = []
    for token in x.reshape(-1, 6):
        scores = mlp.router.weight @ token
        best = sorted(range(n_experts), key=lambda e: -scores[e].item())[:top_k]
        weights = torch.stack([scores[e] for e in best]).softmax(0)
        outputs = torch.stack([mlp.experts[e](token[None])[0] for e in best])
        rows.append(weights @ outputs)
    results = [mlp(x), torch.stack(rows).view(2, 7, 6)]
    torch.testing.assert_close(*results)
    over = [x, *mlp.parameters()]
    grads = [torch.autograd.grad(r.square().sum(), over, allow_unused=True) for r in results]
    for result, expected in zip(*grads, strict=True):
        if expected is None:  # no token went there
            expected = torch.zeros_like(result)
        torch.testing.assert_close(result, expected)


def test_how_uneven_experts_are():
    mlp, x = _experts(), _tokens(3, 5, 6)
    network = nn.Sequential(mlp, nn.Identity(), mlp)
    with balancing(network) as losses:
        network(x)
    assert len(losses) == 2 and losses[0].requires_grad
    scores = x.reshape(-1, 6) @ mlp.router.weight.T
    chosen = scores.argsort(dim=1, descending=True)[:, :2].flatten().tolist()
    means = scores.softmax(1).mean(0)
    expected = 4 * sum(chosen.count(e) / 30 * means[e] for e in range(4))
    torch.testing.assert_close(losses[0], expected)
    network(x)
    assert len(losses) == 2
    copy.deepcopy(network)  # nothing with a gradient is left behind


def test_even_experts_have_the_least_loss():
    """Four tokens, each for an expert of its own, against four for one."""
    mlp = MixtureOfExperts(4, 5, top_k=1)
    with torch.no_grad():
        mlp.router.weight.copy_(20 * torch.eye(4))
    with balancing(mlp) as losses:
        mlp(torch.eye(4))
        mlp(torch.eye(4)[:1].expand(4, 4))
    assert losses[0].item() == pytest.approx(1) and losses[1].item() == pytest.approx(4, rel=1e-5)


def test_experts_can_be_exported():
    mlp, x = _experts().eval(), _tokens(2, 3, 6)
    exported = torch.export.export(mlp, (x,)).module()
    other = _tokens(2, 3, 6) * 2
    torch.testing.assert_close(exported(other), mlp(other))


@pytest.mark.parametrize("top_k", [0, 5])
def test_a_token_goes_through_some_of_the_experts(top_k):
    with pytest.raises(ParameterError, match=f"between 1 and n_experts=4, got {top_k}"):
        MixtureOfExperts(6, 5, top_k=top_k)


@pytest.mark.parametrize("name", MLPS)
def test_by_name(name):
    mlp = make_mlp(name, 6, 5, dropout=0.25, bias=False)
    assert type(mlp) is MLPS[name] and mlp(torch.randn(2, 3, 6)).shape == (2, 3, 6)
    assert no_decay_names(mlp) == set()
    assert {part.p for part in mlp.modules() if hasattr(part, "p")} == {0.25}


def test_unknown_names():
    assert isinstance(make_mlp("gelu", 6, 5), MLP)
    with pytest.raises(ParameterError, match="did you mean 'swiglu'"):
        make_mlp("swigul", 6, 5)
