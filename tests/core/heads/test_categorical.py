import pytest
import torch
from torch import nn

from tsar.core.heads import CategoricalHead
from tsar.core.sampling import Sampler
from tsar.exceptions import ParameterError


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("bias", [False, True])
def test_loss_is_minus_the_log_of_the_probability(bias):
    head, z = CategoricalHead(4, 5, bias=bias), torch.randn(2, 3, 4, generator=_generator())
    assert {name for name, _ in head.named_parameters()} == {"weight"} | (
        {"bias"} if bias else set()
    )
    targets = torch.randint(5, (2, 3), generator=_generator())
    losses = head.loss(z, targets)
    for b in range(2):
        for t in range(3):
            logits = head.weight @ z[b, t]
            if bias:
                logits = logits + head.bias
            expected = logits.exp().sum().log() - logits[targets[b, t]]
            torch.testing.assert_close(losses[b, t], expected)


def test_weights_are_those_of_the_embedding():
    embedding = nn.Embedding(5, 4)
    head = CategoricalHead(4, 5, embedding=embedding)
    assert head.weight is embedding.weight
    network = nn.ModuleDict({"embedding": embedding, "head": head})
    assert len(list(network.parameters())) == 1
    with pytest.raises(ParameterError, match=r"must have the shape \(5, 3\), got \(5, 4\)"):
        CategoricalHead(3, 5, embedding=embedding)


def test_samples_follow_the_logits():
    head, z = CategoricalHead(4, 5), torch.randn(1, 2, 4, generator=_generator())
    drawn = head.sample(z.expand(20_000, -1, -1), Sampler(), generator=_generator(1))
    assert drawn.shape == (20_000, 2)
    for t in range(2):
        expected = (head.weight @ z[0, t]).softmax(0).detach() * 20_000
        counts = torch.bincount(drawn[:, t], minlength=5)
        assert ((counts - expected).square() / expected).sum() < 18.5  # one in a thousand


def test_guidance_takes_both_halves():
    head, z = CategoricalHead(4, 5), torch.randn(6, 2, 4, generator=_generator())
    drawn = head.sample(z, Sampler(temperature=0), 2.5)
    with_condition, without = head(z[:3]), head(z[3:])
    assert torch.equal(drawn, (without + 2.5 * (with_condition - without)).argmax(-1))
    plain = head.sample(z[:3], Sampler(), None, _generator(2))
    assert torch.equal(head.sample(z, Sampler(), 1.0, _generator(2)), plain)
