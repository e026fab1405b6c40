"""Attention to keys and values that several layers share, against loops."""

import torch

from tsar.core.query_attention import KeysAndValues, QueryAttention


def test_every_query_weighs_values_by_how_its_key_fits():
    torch.manual_seed(0)
    reader, source = QueryAttention(6, 2).double(), KeysAndValues(6, 2).double()
    for parameter in (*reader.parameters(), *source.parameters()):
        torch.nn.init.normal_(parameter)
    x, tokens = torch.randn(2, 3, 6).double(), torch.randn(2, 4, 6).double()
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 1], [0, 1, 1, 0]]).bool()
    keys, values = source(tokens)
    assert keys.shape == values.shape == (2, 2, 4, 3)
    mixed = torch.empty(2, 3, 6).double()

    def normed(vector, factor):
        eps = torch.finfo(vector.dtype).eps
        return vector / (vector.square().mean() + eps).sqrt() * factor

    for row in range(2):
        for place in range(3):
            for head in range(2):
                part = slice(3 * head, 3 * head + 3)
                query = normed(reader.query(x[row, place])[part], reader.query_norm.weight)
                scores, held = [], []
                for token in range(4):
                    if mask[place, token]:
                        key, value = source.key_value(tokens[row, token]).chunk(2)
                        key = normed(key[part], source.key_norm.weight)
                        scores.append((query @ key / 3**0.5).exp())
                        held.append(value[part])
                weighed = [score * value for score, value in zip(scores, held, strict=True)]
                mixed[row, place, part] = sum(weighed) / sum(scores)
    expected = reader.output(mixed)
    torch.testing.assert_close(reader(x, keys, values, mask=mask[None]), expected)


def test_the_state_begins_empty():
    cache = KeysAndValues(6, 2).init_state(5)
    assert cache.length == 0 and cache.keys.shape == (5, 2, 0, 3)
