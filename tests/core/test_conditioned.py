"""Conditioned blocks: piece by piece as at once, order by levels, and a condition that tells."""

import pytest
import torch

from tsar.core.conditioned import ConditionedDecoder, QueryDecoder, in_order
from tsar.core.mixers import accepted_options, make_mixer
from tsar.core.state import fork, select
from tsar.exceptions import ParameterError


def _mixers(mixer, causal, d_model=8):
    options = accepted_options(mixer, n_heads=2, causal=causal, qk_norm=True)
    return [make_mixer(mixer, d_model, **options) for _ in range(2)]


def _trained(decoder):
    # Gates begin at zero, which would hide everything.
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return decoder.double().eval()


def _decoder(mixer, levels, d_model=8, across=None):
    torch.manual_seed(0)
    causal = mixer != "attention" or bool((levels.diff() > 0).all())
    decoder = ConditionedDecoder(
        _mixers(mixer, causal, d_model),
        d_model=d_model,
        d_ff=12,
        condition_dim=6,
        levels=levels,
        across=None if across is None else _mixers(across, True, d_model),
    )
    return _trained(decoder)


def _query_decoder(mixer="attention"):
    torch.manual_seed(0)
    sizes = {"d_model": 8, "d_ff": 12, "condition_dim": 6}
    return _trained(QueryDecoder(_mixers(mixer, True), n_query_layers=2, n_heads=2, **sizes))


SCALES = torch.tensor([0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2])


@pytest.mark.parametrize(
    ("mixer", "levels", "across"),
    [
        ("attention", SCALES, None),
        ("attention", in_order(11), None),
        ("mamba2", in_order(11), None),
        ("attention", SCALES, "mamba2"),
        ("attention", SCALES, "attention"),
    ],
)
def test_level_by_level_is_as_at_once(mixer, levels, across):
    decoder = _decoder(mixer, levels, across=across)
    tokens, condition = torch.randn(3, 11, 8).double(), torch.randn(3, 6).double()
    with torch.no_grad():
        whole = decoder(tokens, condition)
        state, parts = decoder.init_state(condition), []
        for level in levels.unique():
            part, state = decoder.extend(tokens[:, levels == level], state)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole)
        pair, _ = decoder.extend(tokens[:, levels < 2], decoder.init_state(condition))
        torch.testing.assert_close(pair, whole[:, levels < 2])


@pytest.mark.parametrize("mixer", ["attention", "mamba2"])
def test_later_levels_reach_no_earlier_ones(mixer):
    levels = SCALES if mixer == "attention" else in_order(11)
    decoder = _decoder(mixer, levels)
    tokens, condition = torch.randn(2, 11, 8).double(), torch.randn(2, 6).double()
    with torch.no_grad():
        before = decoder(tokens, condition)
        for place in range(11):
            moved = tokens.clone()
            moved[:, place] = torch.randn(2, 8).double()
            changed = (decoder(moved, condition) != before).any(dim=2).any(dim=0)
            assert not changed[levels < levels[place]].any()
            assert changed[levels >= levels[place]].all()


def test_the_condition_reaches_every_token_and_a_new_network_ignores_it():
    decoder = _decoder("attention", SCALES)
    tokens = torch.randn(2, 11, 8).double()
    one, other = torch.randn(2, 2, 6).double().unbind(0)
    with torch.no_grad():
        assert (decoder(tokens, one) != decoder(tokens, other)).any(dim=2).all()
    fresh = ConditionedDecoder(
        [make_mixer("attention", 8, n_heads=2)], d_model=8, d_ff=8, condition_dim=6, levels=SCALES
    )
    with torch.no_grad():
        torch.testing.assert_close(
            fresh(tokens.float(), one.float()), fresh.final_norm(tokens.float())
        )


def test_each_token_may_have_a_condition_of_its_own():
    decoder = _decoder("attention", SCALES)
    tokens, conditions = torch.randn(2, 11, 8).double(), torch.randn(2, 11, 6).double()
    with torch.no_grad():
        one = conditions[:, 0]
        alike = one[:, None].expand(-1, 11, -1)
        torch.testing.assert_close(decoder(tokens, alike), decoder(tokens, one))
        whole = decoder(tokens, conditions)
        state, parts = decoder.init_state(one), []
        for level in SCALES.unique():
            here = SCALES == level
            part, state = decoder.extend(tokens[:, here], state, conditions[:, here])
            parts.append(part)
            assert torch.equal(state.condition, one)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole)
        by_level = conditions[:, :3]
        spread = decoder(tokens, by_level[:, SCALES])
        torch.testing.assert_close(decoder(tokens, by_level, groups=SCALES), spread)
        # Those that see a token see what it was told.
        moved = conditions.clone()
        moved[:, 3] += 1
        changed = (decoder(tokens, moved) != whole).any(dim=2).any(dim=0)
        assert torch.equal(changed, SCALES >= SCALES[3])


def test_a_mask_takes_the_place_of_the_levels():
    decoder = _decoder("attention", SCALES)
    tokens, condition = torch.randn(2, 11, 8).double(), torch.randn(2, 6).double()
    with torch.no_grad():
        alone = decoder(tokens, condition, mask=SCALES[:, None] == SCALES)
        for level in SCALES.unique():
            # A level by itself is a sequence of one level.
            one = _decoder("attention", torch.zeros(int((SCALES == level).sum()), dtype=int))
            expected = one(tokens[:, SCALES == level], condition)
            torch.testing.assert_close(alone[:, SCALES == level], expected)


@pytest.mark.parametrize("mixer", ["attention", "mamba2", "linear_attention"])
def test_queries_are_answered_from_a_state_as_at_once(mixer):
    """Content and queries in pieces of any size, and of some rows of the batch."""
    decoder, sizes = _query_decoder(mixer), [1, 3, 0, 2]
    content, queries = torch.randn(3, 6, 8).double(), torch.randn(3, 8, 8).double()
    condition, n_queries = torch.randn(3, 6).double(), [2, 1, 4, 1]
    levels = torch.arange(4)
    with torch.no_grad():
        whole = decoder(
            content,
            queries,
            condition,
            content_levels=levels.repeat_interleave(torch.tensor(sizes)),
            query_levels=levels.repeat_interleave(torch.tensor(n_queries)),
        )
        state, answers = decoder.init_state(condition), []
        for part, wanted in zip(content.split(sizes, 1), queries.split(n_queries, 1), strict=True):
            before = fork(state)
            answer, state = decoder.extend(part, wanted, state)
            rows = torch.tensor([2, 0])
            some, _ = decoder.extend(part[rows], wanted[rows], select(before, rows))
            torch.testing.assert_close(some, answer[rows])
            answers.append(answer)
        torch.testing.assert_close(torch.cat(answers, dim=1), whole)


def test_a_query_reads_the_content_of_its_levels_and_no_other_query():
    decoder = _query_decoder()
    content, queries = torch.randn(2, 5, 8).double(), torch.randn(2, 4, 8).double()
    condition = torch.randn(2, 6).double()
    levels = {
        "content_levels": torch.tensor([0, 1, 1, 2, 4]),
        "query_levels": torch.tensor([0, 1, 2, 3]),
    }
    with torch.no_grad():
        before = decoder(content, queries, condition, **levels)
        for place, level in enumerate(levels["content_levels"].tolist()):
            changed = content.clone()
            changed[:, place] = torch.randn(2, 8).double()
            moved = (decoder(changed, queries, condition, **levels) != before).any(dim=2).all(dim=0)
            assert moved.tolist() == [level <= own for own in range(4)]
        for place in range(4):
            changed = queries.clone()
            changed[:, place] = torch.randn(2, 8).double()
            moved = (decoder(content, changed, condition, **levels) != before).any(dim=2).any(dim=0)
            assert moved.tolist() == [own == place for own in range(4)]


def test_wrong_mixers_of_conditioned_blocks():
    sizes = {"d_model": 8, "d_ff": 8, "condition_dim": 6}
    for make, message in (
        (
            lambda: QueryDecoder(_mixers("attention", False), n_query_layers=1, n_heads=2, **sizes),
            "QueryDecoder: SoftmaxAttention looks ahead",
        ),
        (
            lambda: QueryDecoder(_mixers("mamba2", True), n_query_layers=1, n_heads=3, **sizes),
            "n_heads=3 does not divide d_model=8",
        ),
        (
            lambda: ConditionedDecoder(
                _mixers("attention", False),
                levels=SCALES,
                across=_mixers("attention", False),
                **sizes,
            ),
            "ConditionedDecoder: SoftmaxAttention looks ahead",
        ),
        (
            lambda: ConditionedDecoder(
                _mixers("mamba2", True), levels=SCALES, across=_mixers("mamba2", True), **sizes
            ),
            "Mamba2 cannot stay inside of levels",
        ),
    ):
        with pytest.raises(ParameterError, match=message):
            make()
