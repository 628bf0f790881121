"""Spikes and traces on the same bins against plain loops, and splits of time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score

from broadsheet.errors import InputError
from broadsheet.recordings import Session, Spikes, Traces
from broadsheet.recordings.alignment import BlockedSplit, aligned, blocked_split, interpolated, on_bins, runs


def session(rate=100.0, seconds=10.0, **more):
    rng = np.random.default_rng(0)
    times = np.arange(int(seconds * rate)) / rate
    spikes = Spikes((np.sort(rng.uniform(0, seconds, 200)), np.sort(rng.uniform(0, seconds, 50))), ("a", "b"), 0.0, seconds)
    speed = Traces(np.sin(times)[:, None], times, ("speed",), "cm/s")
    return Session("s", spikes, {"running/speed": speed}, **more)


def test_as_a_plain_loop():
    made = session()
    got = aligned(made, 0.25, "speed")
    assert got.counts.shape == (40, 2)
    assert got.counts.dtype.kind == "i"
    assert (got.units, got.channels) == (("a", "b"), ("speed",))
    speed = made.traces["running/speed"]
    for k, centre in enumerate(got.times):
        low, high = centre - 0.125, centre + 0.125
        inside = (speed.times >= low - 1e-9) & (speed.times < high - 1e-9)
        assert got.values[k, 0] == pytest.approx(speed.values[inside].mean())
        for unit in range(2):
            times = made.spikes.times[unit]
            assert got.counts[k, unit] == ((times >= low) & (times < high)).sum()
    assert got.runs() == [slice(0, 40)]


def test_only_what_is_shared_is_taken():
    times = 2.3 + np.arange(100) / 20
    made = Session("s", session().spikes, {"t": Traces(times, times, ("t",))})
    got = aligned(made, 0.5, "t")
    assert got.times[0] == pytest.approx(2.55)
    assert len(got.times) == 10
    got = aligned(made, 0.5, "t", start=3.0, stop=5.1)
    np.testing.assert_allclose(got.times, [3.25, 3.75, 4.25, 4.75])
    with pytest.raises(InputError, match=r"no bin of 0.5 s is shared: the spikes from 0 to 10 s, t from 2.3"):
        aligned(made, 0.5, "t", start=8.0)


def test_slow_traces_are_drawn_between_their_samples():
    times = np.array([0.0, 1.0, 2.0, 3.0, 7.0, 8.0, 9.0, 10.0])
    got = on_bins(Traces(2 * times, times, ("v",)), 0.0, 0.25, 40)
    centres = 0.125 + 0.25 * np.arange(40)
    between = (centres > 3) & (centres < 7)
    assert np.isnan(got[between]).all()
    np.testing.assert_allclose(got[~between, 0], 2 * centres[~between])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.floats(0.05, 2.0), st.integers(0, 10_000), st.floats(0, 0.3))
def test_means_in_bins_as_counted_by_hand(samples, dt, seed, absent):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.001, 0.04, samples))
    values = np.where(rng.random((samples, 3)) < absent, np.nan, rng.normal(size=(samples, 3)))
    bins = int(times[-1] / dt) + 1
    got = on_bins(Traces(values, times, ("a", "b", "c")), 0.0, dt, bins)
    for k in range(bins):
        inside = np.floor(times / dt + 1e-6).astype(int) == k
        wanted = values[inside].mean(axis=0) if inside.any() else np.full(3, np.nan)
        np.testing.assert_allclose(got[k], wanted, atol=1e-12)


def test_missing_samples_are_refused_kept_dropped_or_drawn():
    made = session()
    made.traces["running/speed"].values[300:320] = np.nan
    with pytest.raises(InputError, match="running/speed miss 1 of 40 bins, the first at 3 s; interpolate, nan or drop"):
        aligned(made, 0.25, "speed")
    assert np.isnan(aligned(made, 0.25, "speed", missing="nan").values[12, 0])
    dropped = aligned(made, 0.25, "speed", missing="drop")
    assert len(dropped.times) == 39
    assert dropped.runs() == [slice(0, 12), slice(12, 39)]
    drawn = aligned(made, 0.25, "speed", missing="interpolate")
    assert drawn.values[12, 0] == pytest.approx(drawn.values[[11, 13], 0].mean())
    made.traces["running/speed"].values[:5] = np.nan
    with pytest.raises(InputError, match="begin with missing values"):
        aligned(made, 0.25, "speed", missing="interpolate")
    assert interpolated(np.array([[1.0], [np.nan], [3.0]]), np.arange(3.0))[1, 0] == 2


def test_what_was_not_observed_is_not_silence():
    spikes = Spikes(([1.0, 1.5], [0.5, 7.0]), ("a", "b"), 0.0, 10.0, ([[0.0, 4.0]], [[0.0, 10.0]]))
    made = Session("s", spikes)
    with pytest.raises(InputError, match="the spikes miss 12 of 20 bins, the first at 4 s; nan or drop"):
        aligned(made, 0.5)
    with pytest.raises(InputError, match="miss 12 of 20"):
        aligned(made, 0.5, missing="interpolate")
    kept = aligned(made, 0.5, missing="nan").counts
    assert np.isnan(kept[8:, 0]).all()
    assert not np.isnan(kept[:, 1]).any()
    assert aligned(made, 0.5, missing="drop").counts.tolist() == [[0, 0], [0, 1], [1, 0], [1, 0]] + [[0, 0]] * 4


def test_traces_of_cells_stand_for_spikes():
    times = np.arange(100) / 10
    cells = Traces(np.column_stack([times, -times]), times, ("AVAL", "AVAR"), kind="RoiResponseSeries")
    made = Session("s", None, {"ophys/dff": cells, "velocity": Traces(times, times, ("velocity",))})
    got = aligned(made, 1.0, "velocity")
    assert got.units == ("AVAL", "AVAR")
    np.testing.assert_allclose(got.counts[:, 0], got.values[:, 0])
    np.testing.assert_allclose(aligned(made, 1.0, activity="dff").counts[:, 1], -got.counts[:, 0])
    two = aligned(made, 1.0, ["velocity", "dff"])
    assert two.channels == ("velocity", "dff/AVAL", "dff/AVAR")
    with pytest.raises(InputError, match="no trace named 'running'"):
        aligned(made, 1.0, "running")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(20, 2000), st.integers(2, 20), st.integers(0, 4), st.floats(0.05, 0.95), st.one_of(st.none(), st.integers(0, 9))
)
def test_blocks_are_apart(bins, blocks, gap, share, seed):
    try:
        train, test = blocked_split(bins, test=share, blocks=blocks, gap=gap, random_state=seed)
    except InputError:
        return
    assert not set(train) & set(test)
    assert min(abs(train[:, None] - test[None]).min(axis=1)) > gap
    assert len(runs(test)) <= blocks
    if gap == 0:
        assert len(train) + len(test) == bins


def test_folds_for_scikit_learn():
    folds = list(BlockedSplit(4, gap=2).split(np.zeros(40)))
    assert [len(test) for _, test in folds] == [10] * 4
    assert [len(train) for train, _ in folds] == [28, 26, 26, 28]
    x = np.random.default_rng(0).normal(size=(200, 3))
    assert cross_val_score(Ridge(), x, x.sum(axis=1), cv=BlockedSplit(5, gap=3)).min() > 0.9
    with pytest.raises(InputError, match="too few"):
        list(BlockedSplit(5, gap=30).split(np.zeros(50)))
    with pytest.raises(InputError, match="2 or more"):
        BlockedSplit(1)


def test_runs_of_masks_and_of_nothing():
    assert runs(np.array([True, True, False, True])) == [slice(0, 2), slice(3, 4)]
    assert runs([]) == []
