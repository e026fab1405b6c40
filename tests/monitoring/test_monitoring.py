"""Sequential tests against closed forms and simulated false alarms; reports of drift."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import tsar
from tsar.evaluation import backtest
from tsar.exceptions import DataError, ParameterError
from tsar.forecasting.run_manifest import ReferenceBins
from tsar.monitoring import CoverageTest, ErrorTest, population_stability, watch, watch_model
from tsar.monitoring.sequential import EXPONENTS, FRACTIONS


def test_evidence_of_single_hits_is_a_closed_form():
    # A run of one value: capital is (1 + b (1 - q)) ** hits * (1 - b q) ** misses.
    test = CoverageTest(80, tolerance=0.1)
    for hit in [1] * 9 + [0] * 4:
        test.update(hit)
    capital = []
    for limit, bets in ((0.7, -FRACTIONS / 0.3), (0.9, FRACTIONS / 0.9)):
        capital += [(1 + bet * (1 - limit)) ** 9 * (1 - bet * limit) ** 4 for bet in bets]
    assert test.evidence == pytest.approx(np.mean(capital), rel=1e-12)
    assert test.n_runs == 13


@pytest.mark.parametrize("share", [0.85, 0.9, 0.95])
def test_false_alarms_of_coverage_are_as_rare_as_stated(share):
    # The values of a run are covered or missed together, the worst that can be.
    generator = np.random.default_rng(1)
    n_alarms, n_tests = 0, 300
    for covered in generator.random((n_tests, 200)) < share:
        test = CoverageTest(90, alarm_rate=0.1)
        for one in covered:
            test.update(float(one))
        n_alarms += test.alarm_at is not None
    # A rate of 0.1 at most is exceeded so far by chance in one of 10,000 cases.
    assert n_alarms <= stats.binom(n_tests, 0.1).ppf(0.9999)


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_coverage_that_drifts_is_noticed(share):
    generator = np.random.default_rng(2)
    test = CoverageTest(80)
    for one in [0.8] * 50 + list(generator.binomial(20, share, 150) / 20):
        test.update(one)
    assert test.alarm_at is not None and test.alarm_at > 50


def test_evidence_of_errors_is_the_sum_over_all_begins_of_a_change():
    errors = np.random.default_rng(3).permutation(np.r_[np.arange(8.0), 3.0, 3.0])
    test, uniform = ErrorTest(random_state=5), np.random.default_rng(5)
    p_values = []
    for n, error in enumerate(errors, start=1):
        test.update(error)
        so_far = errors[:n]
        ties = (1 - uniform.random()) * (so_far == error).sum()
        p_values.append(((so_far > error).sum() + ties) / n)
    bets = EXPONENTS * np.array(p_values)[:, None] ** (EXPONENTS - 1)
    sums = sum(bets[begin:].prod(axis=0) for begin in range(len(bets)))
    assert test.evidence == pytest.approx(sums.mean(), rel=1e-12)


def test_false_alarms_of_errors_are_as_far_apart_as_stated():
    rate, n_tests, longest = 0.05, 200, 200
    generator = np.random.default_rng(4)
    lengths = []
    for number in range(n_tests):
        test = ErrorTest(rate, random_state=number)
        for error in generator.lognormal(size=longest):
            test.update(error)
            if test.alarm_at is not None:
                break
        # What goes on longer is cut: the true mean is larger.
        lengths.append(test.n_runs)
    standard_error = np.std(lengths) / np.sqrt(n_tests)
    assert np.mean(lengths) >= 1 / rate - 3 * standard_error


def test_errors_that_grow_are_noticed_and_smaller_ones_are_not():
    errors = np.random.default_rng(5).lognormal(sigma=0.2, size=60)
    grown, shrunk = ErrorTest(), ErrorTest()
    for place, error in enumerate(errors):
        grown.update(error * (2 if place >= 40 else 1))
        shrunk.update(error / (2 if place >= 40 else 1))
    assert grown.alarm_at is not None and 40 <= grown.alarm_at < 50
    assert shrunk.alarm_at is None


def test_stability_is_the_symmetrised_relative_entropy():
    generator = np.random.default_rng(6)
    one, other = generator.dirichlet(np.ones(7), 2)
    expected = stats.entropy(one, other) + stats.entropy(other, one)
    assert population_stability(one, other) == pytest.approx(expected)
    assert population_stability(one, one) == 0
    assert np.isfinite(population_stability([0.5, 0.5], [1.0, 0.0]))


def test_stability_of_the_same_distribution_follows_its_limit():
    generator = np.random.default_rng(7)
    bins = ReferenceBins.of(generator.normal(size=100_000))
    n = 400
    index = [
        n * population_stability(bins.shares, bins.shares_of(generator.normal(size=n)))
        for _ in range(300)
    ]
    assert stats.kstest(index, stats.chi2(9).cdf).pvalue > 0.001


@pytest.mark.parametrize("shares", [[0.5, 0.6], [0.5, 0.25, 0.25], [1.5, -0.5], []])
def test_what_is_no_shares_is_refused(shares):
    with pytest.raises(ParameterError, match="actual must be shares of the same bins"):
        population_stability([0.5, 0.5], shares)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CoverageTest(100),
        lambda: CoverageTest(80, alarm_rate=0),
        lambda: CoverageTest(80, tolerance=1),
        lambda: CoverageTest(80).update(1.1),
        lambda: ErrorTest(alarm_rate=1),
        lambda: ErrorTest().update(float("nan")),
    ],
)
def test_arguments_out_of_bounds_are_refused(make):
    with pytest.raises(ParameterError, match="must be"):
        make()


@pytest.fixture(scope="module")
def steady():
    """Return the forecasts of 40 runs of 3 days of two series, by a forecast that is right."""
    generator = np.random.default_rng(8)
    days = pd.date_range("2024-01-01", periods=120)
    parts = []
    for name, size in (("a", 1.0), ("b", 50.0)):
        y = size * generator.normal(size=len(days))
        half = stats.norm.ppf(0.9) * size
        parts.append(
            pd.DataFrame(
                {
                    "id": name,
                    "cutoff": days[np.arange(len(days)) // 3 * 3],
                    "time": days,
                    "y": y,
                    "model": 0.0,
                    "model_lo80": -half,
                    "model_hi80": half,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _late(frame):
    return frame["time"] >= pd.Timestamp("2024-03-15")


def test_what_is_steady_does_not_drift(steady):
    report = watch(steady)
    assert list(report.table["watch"]) == ["errors", "coverage 80"]
    assert not report.drifted and list(report.table["n"]) == [30, 40]
    covered = steady["y"].between(steady["model_lo80"], steady["model_hi80"]).mean()
    assert report.table["observed"][1] == pytest.approx(covered)


def test_what_drifts_is_named_with_the_run_of_the_alarm(steady):
    worse = steady.assign(y=steady["y"].where(~_late(steady), 4 * steady["y"]))
    table = watch(worse).table.set_index("watch")
    assert table["drift"].all()
    assert (pd.to_datetime(table["since"]) >= pd.Timestamp("2024-03-15")).all()


def test_a_file_of_text_is_read_as_the_frame(steady, tmp_path):
    steady.to_csv(tmp_path / "done.csv", index=False)
    pd.testing.assert_frame_equal(
        watch(pd.read_csv(tmp_path / "done.csv")).table, watch(steady).table
    )


def test_runs_that_overlap_are_left_out(steady):
    later = steady.assign(cutoff=steady["cutoff"] + pd.Timedelta("1D"), model=1e9)
    later = later[later["time"] >= later["cutoff"]]
    both = pd.concat([steady, later], ignore_index=True)
    pd.testing.assert_frame_equal(watch(both).table, watch(steady).table)


def test_frames_that_cannot_be_watched_are_refused(steady):
    with pytest.raises(DataError, match="cutoff missing"):
        watch(steady.drop(columns="cutoff"))
    with pytest.raises(DataError, match="more than reference=40 runs"):
        watch(steady, reference=40)
    with pytest.raises(ParameterError, match="there are model, other"):
        watch(steady.assign(other=1.0))
    with pytest.raises(DataError, match="no 'model_hi80'"):
        watch(steady.drop(columns="model_hi80"))
    with pytest.raises(DataError, match="must hold times"):
        watch(steady.assign(cutoff="soon"))


@pytest.mark.parametrize("shift", [0, 4])
def test_a_model_is_watched_on_rows_after_its_fit(shift):
    generator = np.random.default_rng(9)
    index = pd.date_range("2024-01-01", periods=900, freq="h")
    df = pd.DataFrame(
        {"load": generator.normal(size=900), "heat": 7.0 + generator.normal(size=900)}, index=index
    )
    model = tsar.Mean(horizon=6).fit(df[:600])
    new = df[600:].copy()
    new.iloc[150:, 1] += shift
    report = watch_model(model, new, level=80)
    table = report.table.set_index("watch")
    assert list(table.index) == ["errors", "coverage 80", "inputs load", "inputs heat"]
    done = backtest(model, new, windows=50, level=80)
    pd.testing.assert_frame_equal(watch(done, manifest=model.manifest_).table, report.table)
    assert table["drift"]["inputs heat"] == (shift > 0)
    assert not table["drift"]["inputs load"]
    assert report.drifted == (shift > 0)
