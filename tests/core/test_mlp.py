import copy

import pytest
import torch
from torch import nn

from tsar.core.decay import no_decay_names
from tsar.core.mlp import (
    MLP,
    MLPS,
    GatedMLP,
    MixtureOfExperts,
    imbalance,
    make_mlp,
    recorded_routes,
)
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


@pytest.mark.parametrize("traced", [False, True])
def test_published_experts_equal_a_loop(traced):
    """Time-MoE: the softmax is over all experts, and one more serves every token."""
    mlp = _experts(
        n_experts=5, top_k=3, d_shared=7, expert="swiglu", softmax_over="all", bias=False
    )
    x, rows = _tokens(2, 7, 6), []

    def swiglu(part, token):
        gate, value = (weight @ token for weight in part.expand.weight.chunk(2))
        return part.contract.weight @ (gate / (1 + torch.exp(-gate)) * value)

    for token in x.reshape(-1, 6):
        scores = mlp.router.weight @ token
        probabilities = scores.exp() / scores.exp().sum()
        best = sorted(range(5), key=lambda e: -scores[e].item())[:3]
        row = sum(probabilities[e] * swiglu(mlp.experts[e], token) for e in best)
        share = 1 / (1 + torch.exp(-(mlp.shared_gate.weight @ token)))
        rows.append(row + share * swiglu(mlp.shared, token))
    result = torch.export.export(mlp, (x,)).module()(x) if traced else mlp(x)
    torch.testing.assert_close(result, torch.stack(rows).view(2, 7, 6))


def test_equal_experts_are_one_times_the_weights_of_two():
    mlp, x = _experts(n_experts=5, expert="swiglu", softmax_over="all"), _tokens(3, 6)
    for expert in mlp.experts:
        expert.load_state_dict(mlp.experts[0].state_dict())
    weights = (x @ mlp.router.weight.T).softmax(1).topk(2, dim=1).values.sum(1, keepdim=True)
    torch.testing.assert_close(mlp(x), weights * mlp.experts[0](x))
    assert (weights < 0.99).all()


def test_how_uneven_experts_are():
    mlp, x = _experts(), _tokens(3, 5, 6)
    network = nn.Sequential(mlp, nn.Identity(), mlp)
    with recorded_routes(network) as routes:
        network(x)
    assert len(routes) == 2 and imbalance(routes).requires_grad
    tokens = [x.reshape(-1, 6), mlp(x).reshape(-1, 6)]
    weight = torch.arange(15.0).double()

    def expected(tokens, weight):
        """Of all tokens together, whichever pass they are of."""
        scores = torch.cat(tokens) @ mlp.router.weight.T
        shares, means = torch.zeros(4).double(), torch.zeros(4).double()
        for row, counts in zip(scores, weight.repeat(len(tokens)), strict=True):
            means += counts * row.softmax(0)
            for expert in row.argsort(descending=True)[:2]:
                shares[expert] += counts / 2
        return 4 * (shares * means).sum() / (len(tokens) * weight.sum()) ** 2

    torch.testing.assert_close(imbalance(routes[:1]), expected(tokens[:1], torch.ones(15)))
    torch.testing.assert_close(imbalance(routes), expected(tokens, torch.ones(15)))
    torch.testing.assert_close(imbalance(routes, weight), expected(tokens, weight))
    assert imbalance(routes, torch.zeros(15)) == 0
    network(x)
    assert len(routes) == 2
    copy.deepcopy(network)  # nothing with a gradient is left behind


def test_even_experts_have_the_least_loss():
    """Four tokens, each for an expert of its own, against four for one."""
    mlp = MixtureOfExperts(4, 5, top_k=1)
    with torch.no_grad():
        mlp.router.weight.copy_(20 * torch.eye(4))
    with recorded_routes(mlp) as routes:
        mlp(torch.eye(4))
        mlp(torch.eye(4)[:1].expand(4, 4))
    assert imbalance(routes[:1]).item() == pytest.approx(1)
    assert imbalance(routes[1:]).item() == pytest.approx(4, rel=1e-5)


def test_experts_can_be_exported():
    mlp, x = _experts().eval(), _tokens(2, 3, 6)
    exported = torch.export.export(mlp, (x,)).module()
    other = _tokens(2, 3, 6) * 2
    torch.testing.assert_close(exported(other), mlp(other))


@pytest.mark.parametrize("top_k", [0, 5])
def test_a_token_goes_through_some_of_the_experts(top_k):
    with pytest.raises(ParameterError, match=f"between 1 and n_experts=4, got {top_k}"):
        MixtureOfExperts(6, 5, top_k=top_k)


def test_kinds_of_experts():
    with pytest.raises(ParameterError, match="expert must be one of 'gelu', 'swiglu', got 'mlp'"):
        MixtureOfExperts(6, 5, expert="mlp")
    with pytest.raises(ParameterError, match="softmax_over must be one of 'chosen', 'all'"):
        MixtureOfExperts(6, 5, softmax_over="some")


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
