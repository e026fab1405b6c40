"""Windows against slices and slow enumerations."""

import numpy as np
import pytest
import torch

from tsar.data.windows import SeriesTensors, Windows, training_cutoffs


def _offsets(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _tensors(lengths: list[int], n_variates: int = 3, masked: bool = False) -> SeriesTensors:
    offsets = _offsets(lengths)
    values = torch.arange(1.0, offsets[-1] * n_variates + 1).reshape(-1, n_variates)
    generator = torch.Generator().manual_seed(0)
    observed = torch.rand(values.shape, generator=generator) > 0.3 if masked else None
    scale = torch.arange(1.0, len(lengths) * n_variates + 1).reshape(-1, n_variates)
    return SeriesTensors(values, observed, torch.from_numpy(offsets), scale)


def _cut(tensors: SeriesTensors, series: int, cutoff: int, before: int, after: int):
    """Cut one window by a loop: (values, observed), 0 and False outside the series."""
    start, end = int(tensors.offsets[series]), int(tensors.offsets[series + 1])
    values = torch.zeros(before + after, tensors.values.shape[1])
    observed = torch.zeros(values.shape, dtype=torch.bool)
    for step in range(before + after):
        row = cutoff - before + step
        if start <= row < end:
            values[step] = tensors.values[row]
            observed[step] = True if tensors.observed is None else tensors.observed[row]
    return values, observed


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("before", "after"), [(4, 2), (1, 5), (7, 0), (20, 20)])
def test_gather_against_slicing(masked, before, after):
    tensors = _tensors([9, 1, 17, 5], masked=masked)
    series, cutoffs = [], []
    for owner in range(4):
        for cutoff in range(int(tensors.offsets[owner]), int(tensors.offsets[owner + 1]) + 1):
            series.append(owner)
            cutoffs.append(cutoff)
    owners, rows = torch.tensor(series), torch.tensor(cutoffs)
    values, observed = tensors.gather(owners, rows, before, after)
    assert values.shape == (len(series), before + after, 3)
    for window, (owner, cutoff) in enumerate(zip(series, cutoffs, strict=True)):
        expected, seen = _cut(tensors, owner, cutoff, before, after)
        # Nothing outside of the series is seen, not even what neighbours hold there.
        torch.testing.assert_close(values[window], expected, rtol=0, atol=0)
        assert observed is not None and torch.equal(observed[window], seen)


def test_complete_windows_have_no_mask():
    tensors = _tensors([9, 17])
    values, observed = tensors.gather(torch.tensor([0, 1]), torch.tensor([4, 20]), 4, 5)
    assert observed is None
    torch.testing.assert_close(values[0], tensors.values[0:9])
    torch.testing.assert_close(values[1], tensors.values[16:25])


def _enumerate(lengths, context, horizon, tails):
    """List every (series, cutoff) pair by its definition."""
    training, validation = [], []
    for series, (length, tail) in enumerate(zip(lengths, tails, strict=True)):
        end = length - tail
        full = [
            cutoff
            for cutoff in range(length + 1)
            if cutoff - context >= 0 and cutoff + horizon <= end
        ]
        training += [(series, cutoff) for cutoff in full]
        validation += [
            (series, cutoff)
            for cutoff in range(length + 1)
            if tail and cutoff >= end and cutoff + horizon <= length
        ]
    return training, validation


def _listed(offsets, first, last):
    return [
        (series, cutoff - offsets[series])
        for series in range(len(first))
        for cutoff in range(first[series], last[series] + 1)
    ]


@pytest.mark.parametrize(("context", "horizon"), [(5, 3), (1, 1), (8, 4), (3, 7)])
@pytest.mark.parametrize("tail", [0, 7, 9])
def test_cutoffs_against_an_enumeration(context, horizon, tail):
    lengths = [30, 21, 55, context + horizon + tail]
    tails = [tail] * len(lengths)
    offsets = _offsets(lengths)
    training, validation = training_cutoffs(offsets, context, horizon, np.array(tails))
    expected, held_out = _enumerate(lengths, context, horizon, tails)
    assert _listed(offsets, *training) == expected
    assert _listed(offsets, *validation) == held_out
    for series, length in enumerate(lengths):
        count = training[1][series] - training[0][series] + 1
        assert count == length - tail - context - horizon + 1


def test_official_number_of_windows():
    """ETTh1: 8640 training rows and 2880 for validation, 336 steps in and 96 out."""
    offsets = _offsets([8640 + 2880])
    training, validation = training_cutoffs(offsets, 336, 96, np.array([2880]))
    assert training[1] - training[0] + 1 == [8640 - 336 - 96 + 1]
    assert validation[1] - validation[0] + 1 == [2880 - 96 + 1]
    assert validation[0] == [8640]


# Rows of a series, and where its only window of 8 steps in and 4 out is cut.
SHORT = {2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 7: 3, 8: 4, 9: 5, 10: 6, 11: 7}


@pytest.mark.parametrize("length", [0, 1, *SHORT])
def test_short_series_give_one_incomplete_window(length):
    """A whole horizon where it leaves half of the rows to read, else half and half."""
    offsets = _offsets([length, 40])
    (first, last), validation = training_cutoffs(offsets, 8, 4, np.zeros(2, dtype=int))
    assert validation[1][0] < validation[0][0]
    if length in SHORT:
        assert first[0] == last[0] == SHORT[length]
    else:
        assert last[0] < first[0]


def test_windows_are_numbered_series_by_series_in_time():
    lengths, context, horizon = [12, 3, 20, 1], 4, 3
    tensors = _tensors(lengths, masked=True)
    offsets = _offsets(lengths)
    (first, last), _ = training_cutoffs(offsets, context, horizon, np.zeros(4, dtype=int))
    windows = Windows(tensors, first, last, context, horizon)
    pairs = [
        (series, cutoff) for series in range(4) for cutoff in range(first[series], last[series] + 1)
    ]
    assert len(windows) == len(pairs) == 6 + 1 + 14
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(1))
    batch = windows.batch(order.to(torch.int32))
    assert batch.inputs.target.shape == (21, 4, 3) and batch.target.shape == (21, 3, 3)
    for place, number in enumerate(order.tolist()):
        series, cutoff = pairs[number]
        values, observed = _cut(tensors, series, cutoff, context, horizon)
        torch.testing.assert_close(batch.inputs.target[place], values[:context])
        torch.testing.assert_close(batch.target[place], values[context:])
        assert torch.equal(batch.inputs.observed[place], observed[:context])
        assert torch.equal(batch.observed[place], observed[context:])
        torch.testing.assert_close(batch.scale[place], tensors.scale[series])


def test_training_never_reads_the_validation_tail():
    lengths, context, horizon, tail = [40, 33], 6, 4, 9
    offsets = _offsets(lengths)
    training, validation = training_cutoffs(offsets, context, horizon, np.array([tail, tail]))
    tensors = _tensors(lengths)
    for series in range(2):
        border = int(offsets[series + 1]) - tail
        tensors.values[border : offsets[series + 1]] = float("nan")
    windows = Windows(tensors, *training, context, horizon)
    batch = windows.batch(torch.arange(len(windows)))
    assert not batch.inputs.target.isnan().any() and not batch.target.isnan().any()
    held_out = Windows(tensors, *validation, context, horizon)
    batch = held_out.batch(torch.arange(len(held_out)))
    assert batch.target.isnan().all()
    # The contexts of the first ones reach back over the border.
    assert not batch.inputs.target[0].isnan().any()


def test_no_windows():
    tensors = _tensors([3, 2])
    windows = Windows(tensors, np.array([5, 4]), np.array([4, 3]), 2, 1)
    assert len(windows) == 0
    assert windows.batch(torch.empty(0, dtype=torch.int64)).target.shape == (0, 1, 3)


def test_nothing_is_gathered_from_no_rows():
    tensors = SeriesTensors(torch.zeros(0, 2), None, torch.tensor([0, 0]))
    values, observed = tensors.gather(torch.tensor([0]), torch.tensor([0]), 3, 2)
    assert values.shape == (1, 5, 2) and not observed.any()
