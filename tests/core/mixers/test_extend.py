"""Reading piece by piece gives what reading at once gives: mixers, blocks, stacks, decoders."""

import itertools

import pytest
import torch
from torch import nn

from tsar.core.block import Block, Encoder
from tsar.core.decoder import Decoder
from tsar.core.masks import visible
from tsar.core.mixers import (
    MIXERS,
    Mixer,
    SoftmaxAttention,
    accepted_options,
    causal_mixers,
    make_mixer,
)
from tsar.core.mlp import MLP
from tsar.core.position import LearnedPosition, SinusoidalPosition
from tsar.core.state import fork, rewind, select
from tsar.exceptions import ParameterError

BATCH, D_MODEL, D_FF, MAX_TOKENS = 3, 6, 5, 70
LENGTHS = (1, 2, 7, 33, 65)
PIECES = {"single": (1,), "ragged": (1, 3, 2, 11, 1), "whole": (MAX_TOKENS,), "nothing": (0, 4)}


def _mixer(name):
    return make_mixer(name, D_MODEL, **accepted_options(name, n_heads=2, causal=True))


def _attention(**options):
    return SoftmaxAttention(D_MODEL, 3, causal=True, **options)


def _block(name, norm="layer", pre_norm=True):
    return Block(
        _mixer(name), MLP(D_MODEL, D_FF), d_model=D_MODEL, norm=norm, pre_norm=pre_norm, dropout=0.3
    )


def _decoder(*names):
    mixers = [_mixer(name) for name in names]
    return Decoder(mixers, d_model=D_MODEL, d_ff=D_FF, max_tokens=MAX_TOKENS)


MAKE = {name: (lambda name=name: _mixer(name)) for name in causal_mixers()} | {
    "rotary": lambda: _attention(rotary=True, n_kv_heads=1, bias=False),
    "sinks": lambda: _attention(window=5, sinks=2, rotary=True, qk_norm=True),
    "block": lambda: _block("mamba", "rms"),
    "post-norm block": lambda: _block("attention", "batch", pre_norm=False),
    "encoder": lambda: Encoder([_block("attention"), _block("mamba")], nn.LayerNorm(D_MODEL)),
    "decoder": lambda: _decoder("attention", "mamba", "attention"),
}


def _made(kind, dtype=torch.float64):
    torch.manual_seed(0)
    return MAKE[kind]().to(dtype).eval()


def _tokens(length, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, length, D_MODEL, dtype=torch.float64, generator=generator).to(dtype)


def _cut(x, pieces):
    """Cut tokens into pieces of these lengths, from the first again at the end."""
    start, lengths = 0, itertools.cycle(pieces)
    while start < x.shape[1]:
        stop = start + next(lengths)
        yield x[:, start:stop]
        start = stop


def _extended(module, x, pieces=(1,)):
    state = module.init_state(len(x))
    outputs = []
    for piece in _cut(x, pieces):
        output, state = module.extend(piece, state)
        assert output.shape == piece.shape
        outputs.append(output)
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", MAKE)
def test_any_cutting_gives_the_full_pass(kind, dtype, length, pieces, mode):
    module, x = _made(kind, dtype), _tokens(length, dtype)
    with mode():
        result, expected = _extended(module, x, PIECES[pieces]), module(x)
    tolerance = 1e-5 if dtype is torch.float32 else 1e-10
    torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", MAKE)
def test_gradients_are_those_of_the_full_pass(kind):
    module, results = _made(kind), []
    for mix in (module, lambda x: _extended(module, x, PIECES["ragged"])):
        x = _tokens(13).requires_grad_()
        grads = torch.autograd.grad((mix(x) * _tokens(13, seed=2)).sum(), [x, *module.parameters()])
        results.append(grads)
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("kind", MAKE)
def test_a_state_is_extended_any_number_of_times(kind, mode):
    """Several ways from one state, in turns and after a fork; none of them sees another."""
    module, begun = _made(kind), _tokens(9)
    ways = [_tokens(6, seed=seed) for seed in range(2, 6)]
    with mode():
        _, start = module.extend(begun[:, :4], module.init_state(BATCH))
        _, start = module.extend(begun[:, 4:], start)
        states, outputs = [start, start, fork(start), start], [[], [], [], []]
        for pieces in zip(*(_cut(way, (1, 2)) for way in ways), strict=True):
            for k, piece in enumerate(pieces):
                output, states[k] = module.extend(piece, states[k])
                outputs[k].append(output)
        for way, parts in zip(ways, outputs, strict=True):
            expected = module(torch.cat([begun, way], dim=1))[:, 9:]
            torch.testing.assert_close(torch.cat(parts, dim=1), expected)


@pytest.mark.parametrize("kind", causal_mixers())
def test_a_step_is_one_token(kind):
    mixer, x = _made(kind), _tokens(5)
    state, outputs = mixer.init_state(BATCH), []
    for x_t in x.unbind(1):
        output, state = mixer.step(x_t, state)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, dim=1), mixer(x))


@pytest.mark.parametrize("kind", [kind for kind in MAKE])
def test_padding_behind_is_what_was_never_read(kind):
    """Sequences of unequal length: masked together, or each extended by its own tokens."""
    module, x = _made(kind), _tokens(9)
    lengths = (4, 9, 1)
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    together = module(x, mask=mask)
    for row, length in enumerate(lengths):
        alone = _extended(module, x[row : row + 1, :length], (2, 1))
        torch.testing.assert_close(alone[0], together[row, :length])


@pytest.mark.parametrize("kind", causal_mixers())
def test_padding_before_is_what_was_never_read(kind):
    """Of mixers only: a decoder counts positions from the first token that it is given."""
    mixer, x = _made(kind), _tokens(9)
    mask = torch.arange(9).expand(BATCH, -1) >= 3
    torch.testing.assert_close(_extended(mixer, x[:, 3:], (2, 1)), mixer(x, mask=mask)[:, 3:])


@pytest.mark.parametrize("name", sorted(set(MIXERS) - set(causal_mixers())))
def test_what_sees_all_tokens_does_not_work_piece_by_piece(name):
    mixer = _mixer(name)
    with pytest.raises(NotImplementedError, match=f"{type(mixer).__name__} does not work piece by"):
        mixer.init_state(BATCH)
    with pytest.raises(NotImplementedError, match="does not work piece by piece"):
        mixer.step(_tokens(1)[:, 0], None)


def test_attention_that_cannot_be_extended():
    with pytest.raises(NotImplementedError, match="only if residual_scores=False"):
        SoftmaxAttention(D_MODEL, 2, causal=True, residual_scores=True).init_state(BATCH)
    both_ways = SoftmaxAttention(D_MODEL, 2)
    with pytest.raises(NotImplementedError, match="pass levels=, or build it with causal=True"):
        both_ways.extend(_tokens(3), both_ways.init_state(BATCH))


LEVELS = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 3, 4, 4])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("options", [{}, {"rotary": True}, {"window": 4, "sinks": 1}], ids=str)
def test_tokens_of_a_level_see_each_other(options, causal):
    """Level after level, several at a time, and all at once under the mask of the rule."""
    torch.manual_seed(0)
    mixer = SoftmaxAttention(D_MODEL, 3, causal=causal, **options).double()
    full = SoftmaxAttention(D_MODEL, 3, **options).double()
    full.load_state_dict(mixer.state_dict())
    x = _tokens(len(LEVELS))
    expected = full(x, mask=visible(LEVELS)[None])
    for cuts in ([3, 5, 6, 11], [5, 11], [3, 5, 6], []):
        state, outputs = mixer.init_state(BATCH), []
        for piece, levels in zip(
            x.tensor_split(cuts, dim=1), LEVELS.tensor_split(cuts), strict=True
        ):
            output, state = mixer.extend(piece, state, levels)
            outputs.append(output)
        torch.testing.assert_close(torch.cat(outputs, dim=1), expected)
    _, start = mixer.extend(x[:, :3], mixer.init_state(BATCH), LEVELS[:3])
    output, states = mixer.extend_each(x[:, 3:11], start, LEVELS[3:11])
    torch.testing.assert_close(output, expected[:, 3:11])
    again, _ = mixer.extend(x[:, 6:11], rewind(states[2]), LEVELS[6:11])
    torch.testing.assert_close(again, expected[:, 6:11])


def test_levels_go_through_stacks_and_past_what_goes_token_by_token():
    torch.manual_seed(0)
    blocks = [_block("attention"), _block("mamba")]
    for block in blocks:
        block.double().eval()
    x = _tokens(6)
    levels = torch.tensor([0, 0, 0, 1, 1, 1])
    plain = Encoder(blocks)
    output, _ = plain.extend(x, plain.init_state(BATCH), levels)
    first = blocks[0].after_mixer(
        x, blocks[0].mixer.extend(blocks[0].before_mixer(x), blocks[0].init_state(BATCH), levels)[0]
    )
    torch.testing.assert_close(output, blocks[1](first))
    assert not torch.allclose(output, plain(x))
    _, states = plain.extend_each(x[:, :3], plain.init_state(BATCH), levels[:3])
    after, _ = plain.extend(x[:, 3:], states[-1], levels[3:])
    torch.testing.assert_close(after, output[:, 3:])


def test_tokens_are_where_they_are_said_to_be():
    """Shuffled together with their positions, they become what they were, shuffled."""
    torch.manual_seed(0)
    mixer = SoftmaxAttention(D_MODEL, 3, rotary=True).double()
    stack = Encoder([Block(mixer, None, d_model=D_MODEL)]).double()
    x, order = _tokens(9), torch.randperm(9, generator=torch.Generator().manual_seed(0))
    expected = stack(x)
    torch.testing.assert_close(stack(x[:, order], positions=order), expected[:, order])
    assert not torch.allclose(stack(x[:, order]), expected[:, order])
    torch.testing.assert_close(mixer(x[:, order], positions=order), mixer(x)[:, order])
    with pytest.raises(ParameterError, match="Mamba takes tokens one after the other"):
        Encoder([_block("mamba")]).double()(x, positions=order)


def test_a_step_is_written_once():
    assert all("step" not in vars(cls) for cls in MIXERS.values())
    assert "step" in vars(Mixer)


def test_decoder_counts_the_tokens_of_all_pieces():
    decoder = _made("decoder")
    _, state = decoder.extend(_tokens(67), decoder.init_state(BATCH))
    assert state.length == 67
    decoder.extend(_tokens(3), state)
    with pytest.raises(ParameterError, match="71 tokens are more than max_tokens=70"):
        decoder.extend(_tokens(4), state)


@pytest.mark.parametrize("kind", [LearnedPosition, SinusoidalPosition])
def test_positions_begin_anywhere(kind):
    position, x = kind(11, D_MODEL), _tokens(4)
    torch.testing.assert_close(position(x, 5), x + position.weight[5:9])


@torch.inference_mode()
def test_a_cache_is_written_in_place():
    """All steps but those that double it leave keys and values where they are."""
    mixer, places = _made("attention"), set()
    state = mixer.init_state(BATCH)
    for x_t in _tokens(65).unbind(1):
        _, state = mixer.step(x_t, state)
        places.add(state.room.keys.data_ptr())
    assert len(places) <= 8  # capacities 1, 2, 4, ... 128


@torch.inference_mode()
@pytest.mark.parametrize("sinks", [0, 2])
def test_a_cache_of_a_window_does_not_grow(sinks):
    mixer, lengths = _attention(window=5, sinks=sinks).double(), []
    state = mixer.init_state(BATCH)
    for x_t in _tokens(MAX_TOKENS).unbind(1):
        _, state = mixer.step(x_t, state)
        lengths.append(state.cache.length)
    sees = mixer.window + mixer.sinks
    assert max(lengths) == 2 * sees and state.length == MAX_TOKENS
    assert state.cache.room.capacity <= 2 * sees + 1
    _, state = mixer.extend(_tokens(MAX_TOKENS), mixer.init_state(BATCH))
    assert state.cache.length == sees - 1


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", MAKE)
def test_states_after_each_token(kind, mode):
    """Each is that of extending by the tokens up to it, whatever is made of the others."""
    module, x = _made(kind), _tokens(31)
    with mode():
        expected = module(x)
        _, start = module.extend(x[:, :11], module.init_state(BATCH))
        output, states = module.extend_each(x[:, 11:18], start)
        torch.testing.assert_close(output, expected[:, 11:18])
        assert len(states) == 7
        for k in (3, 0, 6, 5):
            after = states[k]
            for piece in _cut(x[:, 12 + k :], (2, 3)):
                more, after = module.extend(piece, after)
            torch.testing.assert_close(more[:, -1], expected[:, -1])
        nothing, states = module.extend_each(x[:, :0], start)
        assert nothing.shape == (BATCH, 0, D_MODEL) and states == ()


@torch.inference_mode()
@pytest.mark.parametrize("kind", MAKE)
def test_rewinding_is_to_go_on_from_an_older_state(kind):
    module, x, wrong = _made(kind), _tokens(31), _tokens(9, seed=3)
    expected = module(x)
    _, start = module.extend(x[:, :11], module.init_state(BATCH))
    _, states = module.extend_each(torch.cat([x[:, 11:14], wrong], dim=1), start)
    apart = fork(states[-1])
    state = rewind(states[2])
    for stop in range(14, 31):
        output, state = module.extend(x[:, stop : stop + 1], state)
        torch.testing.assert_close(output[:, 0], expected[:, stop])
    other = torch.cat([x[:, :14], wrong, x[:, :3]], dim=1)
    torch.testing.assert_close(module.extend(x[:, :3], apart)[0], module(other)[:, -3:])


@torch.inference_mode()
def test_a_rewound_cache_is_written_in_place():
    mixer, x = _made("attention"), _tokens(40)
    _, state = mixer.extend(x[:, :20], mixer.init_state(BATCH))
    _, state = mixer.extend(x[:, 20:21], state)  # doubles the room
    place = state.room.keys.data_ptr()
    for _ in range(5):
        _, states = mixer.extend_each(x[:, 21:26], state)
        assert all(after.room.keys.data_ptr() == place for after in states)
        state = rewind(states[0])
    # Without it, an older state is copied.
    _, states = mixer.extend_each(x[:, 26:28], state)
    assert mixer.extend(x[:, 26:28], states[0])[1].room.keys.data_ptr() != place


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", MAKE)
def test_rows_of_a_state(kind, mode):
    module, x = _made(kind), _tokens(17)
    with mode():
        _, state = module.extend(x[:, :9], module.init_state(BATCH))
        for rows in (torch.tensor([2, 0, 2, 1]), torch.tensor([False, True, True])):
            outputs, selected = [], select(state, rows)
            for piece in _cut(x[rows, 9:], (1, 3)):
                output, selected = module.extend(piece, selected)
                outputs.append(output)
            torch.testing.assert_close(torch.cat(outputs, dim=1), module(x)[rows, 9:])
