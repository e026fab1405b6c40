from typing import NamedTuple

import pytest
import torch

from tsar.core.state import KVCache, WindowCache, fork, rewind, select


class Pair(NamedTuple):
    count: int
    parts: tuple


def _tokens(length, seed, width=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, length, width, generator=generator)


def _piece(length, seed):
    return _tokens(length, seed), _tokens(length, seed + 100, width=4)


def _cache(*lengths):
    cache = KVCache.holding(*_piece(0, 0))
    for seed, length in enumerate(lengths):
        cache = cache.append(*_piece(length, seed))
    return cache


def _joined(*pieces):
    keys, values = zip(*pieces, strict=True)
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)


def _assert_holds(cache, *pieces):
    keys, values = _joined(*pieces)
    assert cache.length == keys.shape[2]
    assert torch.equal(cache.keys, keys) and torch.equal(cache.values, values)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_a_cache_holds_what_was_appended(mode):
    lengths = (1, 1, 7, 2, 31, 1)
    with mode():
        _assert_holds(_cache(*lengths), *(_piece(n, seed) for seed, n in enumerate(lengths)))


@torch.no_grad()
def test_room_is_doubled_and_then_written_in_place():
    cache, rooms = _cache(3), []
    for seed in range(20):
        cache = cache.append(*_piece(1, seed))
        rooms.append((cache.room.capacity, cache.room.keys.data_ptr()))
    assert [capacity for capacity, _ in rooms] == [6] * 3 + [12] * 6 + [24] * 11
    assert len(set(rooms)) == 3


@torch.no_grad()
def test_an_older_cache_is_extended_in_other_ways():
    """Whatever was appended to it before, and whatever is appended to that afterwards."""
    start = _cache(3, 1)
    first = start.append(*_piece(1, 10))
    second = start.append(*_piece(2, 20))
    third = first.append(*_piece(1, 30))
    fourth = start.append(*_piece(1, 40))
    begun = (_piece(3, 0), _piece(1, 1))
    _assert_holds(start, *begun)
    _assert_holds(first, *begun, _piece(1, 10))
    _assert_holds(second, *begun, _piece(2, 20))
    _assert_holds(third, *begun, _piece(1, 10), _piece(1, 30))
    _assert_holds(fourth, *begun, _piece(1, 40))
    assert first.room is third.room is start.room
    assert second.room is not start.room and fourth.room is not second.room


@torch.no_grad()
def test_what_is_handed_in_is_not_written_to():
    keys, values = _piece(4, 0)
    before = keys.clone(), values.clone()
    longer = KVCache.holding(keys, values).append(*_piece(1, 1))
    longer.append(*_piece(1, 2))
    assert torch.equal(keys, before[0]) and torch.equal(values, before[1])


def test_gradients_flow_through_a_cache():
    pieces = [[t.requires_grad_() for t in _piece(n, seed)] for seed, n in enumerate((2, 1, 3))]
    cache = KVCache.holding(*_piece(0, 0))
    total = torch.zeros(())
    for piece in pieces:
        cache = cache.append(*piece)
        total = total + cache.keys.square().sum() + cache.values.square().sum()
    total.backward()
    for weight, (keys, values) in zip((3, 2, 1), pieces, strict=True):
        torch.testing.assert_close(keys.grad, 2 * weight * keys)
        torch.testing.assert_close(values.grad, 2 * weight * values)


def test_a_cache_of_inference_mode_is_extended_outside_of_it():
    with torch.inference_mode():
        cache = _cache(3, 1)
        assert cache.room.capacity > cache.length
    with torch.no_grad():
        longer = cache.append(*_piece(1, 2))
    _assert_holds(longer, _piece(3, 0), _piece(1, 1), _piece(1, 2))


@torch.no_grad()
def test_a_fork_shares_no_room():
    cache, tensor = _cache(3, 1), torch.zeros(3)
    forked = fork(Pair(4, (cache, (tensor, Pair(1, (cache,))))))
    assert isinstance(forked, Pair) and forked.count == 4
    other, (same, inner) = forked.parts
    assert same is tensor and isinstance(inner, Pair)
    for copy in (other, *inner.parts):
        assert copy.room is not cache.room
        _assert_holds(copy, _piece(3, 0), _piece(1, 1))
    other.append(*_piece(1, 5))
    assert cache.append(*_piece(1, 6)).room is cache.room


@torch.no_grad()
def test_rows_of_a_state_are_copied():
    cache, rows = _cache(3, 1), torch.tensor([2, 2, 0])
    selected = select(Pair(4, (cache, (torch.arange(3), None))), rows)
    assert isinstance(selected, Pair) and selected.count == 4
    copy, (tensor, nothing) = selected.parts
    assert tensor.tolist() == [2, 2, 0] and nothing is None
    assert copy.room is not cache.room and copy.room.capacity == cache.room.capacity
    assert torch.equal(copy.keys, cache.keys[rows])
    assert torch.equal(copy.values, cache.values[rows])
    _assert_holds(cache, _piece(3, 0), _piece(1, 1))
    few = select(cache, torch.tensor([False, True, False]))
    assert torch.equal(few.keys, cache.keys[1:2])


@torch.no_grad()
def test_a_rewound_cache_writes_where_the_longer_ones_were():
    cache = _cache(3, 1)
    longer = cache.append(*_piece(2, 5))
    assert rewind((cache,))[0] is cache
    other = cache.append(*_piece(1, 6))
    assert other.room is longer.room is cache.room
    _assert_holds(other, _piece(3, 0), _piece(1, 1), _piece(1, 6))


@torch.no_grad()
def test_a_cache_of_a_window_knows_where_its_tokens_are():
    cache = WindowCache(_cache(0), 0, window=4, sinks=2)
    keys, values = _piece(30, 0)
    for t in range(30):
        cache = cache.append(keys[:, :, t : t + 1], values[:, :, t : t + 1])
        older = cache
        cache = cache.trimmed()
        for each in (cache, older, older.first(t), fork(cache)):
            held = each.positions
            assert len(held) == each.cache.length and held.tolist() == sorted(set(held.tolist()))
            assert set(range(each.length)) & {0, 1, t - 2, t - 1} <= set(held.tolist())
            assert torch.equal(each.keys, keys[:, :, held])
            assert torch.equal(each.values, values[:, :, held])
