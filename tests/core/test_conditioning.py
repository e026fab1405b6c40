import pytest
import torch

from tsar.core.conditioning import AdaptiveNorm, LabelEmbedding
from tsar.core.decay import no_decay_names
from tsar.core.random import set_generator


def test_a_new_adaptive_norm_does_nothing_but_normalise():
    norm, x = AdaptiveNorm(6, 4), torch.randn(2, 3, 6)
    normed, gate = norm(x, torch.randn(2, 4))
    torch.testing.assert_close(normed, torch.nn.functional.layer_norm(x, (6,)))
    assert gate.shape == (2, 1, 6) and not gate.any()


@pytest.mark.parametrize("by_token", [False, True])
def test_an_adaptive_norm_is_moved_by_its_condition(by_token):
    norm, x = AdaptiveNorm(6, 4).double(), torch.randn(2, 3, 6, dtype=torch.float64)
    torch.nn.init.normal_(norm.map.weight)
    torch.nn.init.normal_(norm.map.bias)
    shape = (2, 3, 4) if by_token else (2, 4)
    condition = torch.randn(shape, dtype=torch.float64)
    normed, gate = norm(x, condition)
    for b in range(2):
        for t in range(3):
            c = condition[b, t] if by_token else condition[b]
            moved = norm.map.weight @ (c * c.sigmoid()) + norm.map.bias
            row = x[b, t] - x[b, t].mean()
            row = row / (row.square().mean() + 1e-5).sqrt()
            torch.testing.assert_close(normed[b, t], row * (1 + moved[6:12]) + moved[:6])
            torch.testing.assert_close(gate[b, t if by_token else 0], moved[12:])


def test_labels_are_dropped_in_training_only():
    labels, embedding = torch.randint(5, (4000,)), LabelEmbedding(5, 3)
    assert embedding.null == 5 and len(embedding.table.weight) == 6
    set_generator(embedding, torch.Generator().manual_seed(0))
    vectors = embedding(labels)
    dropped = (vectors == embedding.table.weight[5]).all(1)
    # Four standard deviations of a share of 4,000.
    assert dropped.float().mean().item() == pytest.approx(0.1, abs=4 * (0.09 / 4000) ** 0.5)
    assert torch.equal(vectors[~dropped], embedding.table(labels)[~dropped])
    set_generator(embedding, torch.Generator().manual_seed(0))
    assert torch.equal(embedding(labels), vectors)
    assert torch.equal(embedding.eval()(labels), embedding.table(labels))
    assert no_decay_names(embedding) == {"table.weight"}
