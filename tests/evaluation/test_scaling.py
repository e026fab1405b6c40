import numpy as np
import pytest

from tsar import plot
from tsar.evaluation import scaling_law
from tsar.exceptions import DataError, ParameterError

SIZES = np.array([1e3, 3e3, 1e4, 1e5, 1e6, 3e6])


def _noisy(curve, seed, deviation=0.02):
    return curve * np.exp(deviation * np.random.default_rng(seed).normal(size=len(curve)))


def test_a_line_through_logarithms():
    """Against numpy's own least squares."""
    losses = _noisy(3 * SIZES**-0.2, seed=0, deviation=0.3)
    law = scaling_law(SIZES, losses, random_state=0)
    slope, height = np.polyfit(np.log10(SIZES), np.log10(losses), 1)
    assert law.exponent == pytest.approx(-slope, rel=1e-10)
    assert law.coefficient == pytest.approx(10**height, rel=1e-10)
    assert law.floor == 0
    expected = 10 ** (height + slope * np.log10([5e2, 1e7]))
    np.testing.assert_allclose(law.predict([5e2, 1e7]), expected, rtol=1e-10)


@pytest.mark.parametrize("floor", [False, True])
@pytest.mark.parametrize(("coefficient", "exponent"), [(3.0, 0.3), (0.02, 0.05), (1e5, 1.1)])
def test_a_curve_without_noise_is_found_again(floor, coefficient, exponent):
    lowest = 0.07 * floor
    law = scaling_law(
        SIZES, coefficient * SIZES**-exponent + lowest, floor=floor, n_resamples=5, random_state=0
    )
    expected = {"coefficient": coefficient, "exponent": exponent, "floor": lowest}
    for number, truth in expected.items():
        assert getattr(law, number) == pytest.approx(truth, rel=1e-4)
        np.testing.assert_allclose(law.interval(number), truth, rtol=1e-3)


def test_a_floor_that_is_not_there_is_none():
    law = scaling_law(SIZES, 3 * SIZES**-0.2, floor=True, n_resamples=1)
    assert law.floor < 1e-3 * law.losses.min()
    assert law.exponent == pytest.approx(0.2, rel=1e-2)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Four in five at 80 %, of 300 series of runs: 240 +- 21 is three deviations."""
    hits = 0
    for seed in range(300):
        law = scaling_law(SIZES, _noisy(2 * SIZES**-0.1, seed), n_resamples=200, random_state=seed)
        low, high = law.interval("exponent", confidence=0.8)
        hits += low < 0.1 < high
    assert 205 < hits < 265


def test_intervals_of_a_law_with_a_floor():
    truth = 4 * SIZES**-0.4 + 0.1
    law = scaling_law(SIZES, _noisy(truth, 3), floor=True, n_resamples=60, random_state=0)
    low, high = law.interval("floor")
    assert low < 0.1 < high and high - low < 0.05
    below, above = law.predict_interval(SIZES)
    assert (below < truth).all() and (truth < above).all() and (above / below < 1.2).all()
    again = scaling_law(SIZES, law.losses, floor=True, n_resamples=60, random_state=0)
    np.testing.assert_array_equal(again.samples, law.samples)


@pytest.mark.parametrize(
    ("sizes", "losses", "floor", "message"),
    [
        ([1, 2, 3], [1, 2], False, r"one number each per run, got the shapes \(3,\) and \(2,\)"),
        ([1, 2, 3], [1, -0.5, 1], False, "losses must be finite and above 0.*got -0.5 at place 1"),
        ([1, 0, 3], [1, 1, 1], False, "sizes must be finite and above 0.*got 0 at place 1"),
        ([1, 2, 3], [1, np.nan, 1], False, "got nan at place 1"),
        ([1, 2], [1, 1], False, "at least 3 runs of 2 different sizes are needed, got 2 of 2"),
        ([5, 5, 5], [1, 2, 3], False, "got 3 of 1; train more sizes"),
        ([1, 2, 2, 1], [1, 2, 3, 4], True, "at least 4 runs of 3 different sizes.*got 4 of 2"),
    ],
)
def test_runs_that_have_no_law(sizes, losses, floor, message):
    with pytest.raises(DataError, match=f"scaling_law: .*{message}"):
        scaling_law(sizes, losses, floor=floor)


def test_bad_parameters():
    with pytest.raises(ParameterError, match="scaling_law: n_resamples must be an integer"):
        scaling_law(SIZES, SIZES, n_resamples=0)
    law = scaling_law(SIZES, 1 / SIZES, n_resamples=2)
    with pytest.raises(ParameterError, match="number must be one of"):
        law.interval("slope")
    with pytest.raises(ParameterError, match=r"ScalingLaw.interval: confidence .* got 95"):
        law.interval("floor", confidence=95)


def test_the_figure_shows_runs_law_and_floor():
    law = scaling_law(SIZES, _noisy(4 * SIZES**-0.4 + 0.1, 3), floor=True, n_resamples=9)
    ax = plot.scaling_law(law)
    runs, curve, floor = ax.lines
    np.testing.assert_array_equal(runs.get_xydata(), np.stack([SIZES, law.losses], axis=1))
    np.testing.assert_allclose(curve.get_ydata(), law.predict(curve.get_xdata()))
    assert floor.get_ydata()[0] == law.floor
    assert ax.get_xscale() == ax.get_yscale() == "log"
    low, high = law.predict_interval(SIZES[[0]])
    band = ax.collections[0].get_paths()[0].vertices
    edge = band[np.isclose(band[:, 0], SIZES[0]), 1]
    np.testing.assert_allclose([edge.min(), edge.max()], [low[0], high[0]])
    straight = plot.scaling_law(scaling_law(SIZES, law.losses, n_resamples=9))
    assert len(straight.lines) == 2
    with pytest.raises(ParameterError, match="law must be what .* returned, got ndarray"):
        plot.scaling_law(SIZES)
