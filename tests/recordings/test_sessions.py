"""Sessions in memory: what is checked at the door, bins by hand, pynapple and Neo there and back, .npz and CSV."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.errors import DataError, InputError, UntrustedError
from broadsheet.recordings import Session, Spikes, Traces, Trials, open_session
from broadsheet.recordings.stretches import joined, shared_stretches
from broadsheet.recordings.traces import StoredTraces


def spikes(**more):
    return Spikes((np.array([0.5, 1.0, 2.5]), np.array([3.0]), np.array([])), ("a", "b", "c"), 0.0, 4.0, **more)


def test_bins_on_edges():
    """A spike on an edge lies in the later bin, one at the end in the last."""
    made = Spikes((np.array([0.0, 0.1, 0.2, 0.30000000000000004, 0.4]),), ("a",), 0.0, 0.4)
    assert made.counts(0.1)[:, 0].tolist() == [1, 1, 1, 2]
    assert made.counts(0.15)[:, 0].tolist() == [2, 1, 2]  # the last is cut short
    assert made.counts(0.4)[:, 0].tolist() == [5]
    assert (made.counts(0.1).dtype, made.counts(0.1).shape) == (np.int32, (4, 1))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 3.0), st.floats(-5, 5))
def test_counts_keep_every_spike(seed, dt, start):
    rng = np.random.default_rng(seed)
    times = tuple(np.unique(start + rng.uniform(0, 10, rng.integers(0, 60))) for _ in range(3))
    made = Spikes(times, ("a", "b", "c"), start, start + 10.0)
    counts = made.counts(dt)
    assert counts.sum(axis=0).tolist() == [len(each) for each in times]
    edges = start + dt * np.arange(len(counts) + 1)
    edges[-1] = max(edges[-1], start + 10.0)
    for k, each in enumerate(times):
        if np.abs(each[:, None] - edges).min(initial=1.0) > 1e-5:
            np.testing.assert_array_equal(counts[:, k], np.histogram(each, edges)[0])


def test_what_was_not_observed_is_missing():
    made = spikes(observed=([[0.0, 1.0], [2.0, 4.0]], [[0.0, 4.0]], [[3.0, 3.5]]))
    with pytest.raises(InputError, match="Unit a was not observed in 1 of 4 bins, the first at 1 s; take missing='nan'"):
        Spikes((np.array([0.5]),), ("a",), 0.0, 4.0, ([[0.0, 1.0], [2.0, 4.0]],)).counts(1.0)
    counts = made.counts(1.0, missing="nan")
    np.testing.assert_array_equal(counts[:, 0], [1, np.nan, 1, 0])
    np.testing.assert_array_equal(counts[:, 1], [0, 0, 0, 1])
    assert np.isnan(counts[:, 2]).all()
    assert made.seconds().tolist() == [3.0, 4.0, 0.5]
    np.testing.assert_allclose(made.rates(), [1.0, 0.25, 0.0])
    part = made.between(0.5, 2.5)
    np.testing.assert_array_equal(part.stretches(0), [[0.5, 1.0], [2.0, 2.5]])
    assert part.times[0].tolist() == [0.5, 1.0]
    np.testing.assert_array_equal(made.choose(["b"]).counts(1.0)[:, 0], [0, 0, 0, 1])
    assert made.counts(1.0, missing="nan").dtype == float
    with pytest.raises(InputError, match=r"Unit a: 1 of 3 spikes, the first at 2.5 s, lie outside"):
        spikes(observed=([[0.0, 2.0]], [[0.0, 4.0]], [[0.0, 4.0]]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=8),
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=8),
)
def test_stretches_as_sets_of_seconds(first, second):
    def seconds(stretches):
        return {k for start, stop in stretches for k in range(int(start), int(stop))}

    one, two = (np.array([[a, a + n] for a, n in each], float).reshape(-1, 2) for each in (first, second))
    assert seconds(joined(one)) == seconds(one)
    assert (np.diff(joined(one).ravel()) > 0).all()
    assert seconds(shared_stretches([joined(one), joined(two)])) == seconds(one) & seconds(two)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Spikes((np.array([1.0, 0.5]),), ("u",), 0.0, 2.0), "Unit u: the spike at 0.5 s comes after 1 s"),
        (lambda: Spikes((np.array([1.0, 1.0]),), ("u",), 0.0, 2.0), "Unit u: the spike at 1 s comes twice"),
        (lambda: Spikes((np.array([1.0, 5.0]),), ("u",), 0.0, 2.0), r"Unit u: 1 of 2 spikes, the first at 5 s.*\(0 to 2 s\)"),
        (lambda: Spikes((np.array([np.nan]),), ("u",), 0.0, 2.0), "Unit u: spike times must be a list of finite"),
        (lambda: Spikes((np.zeros(0),) * 2, ("u", "u"), 0.0, 2.0), "Two units are named 'u'"),
        (lambda: Spikes((np.zeros(0),) * 2, ("u",), 0.0, 2.0), "2 units have 1 names"),
        (lambda: Spikes((), (), 3.0, 2.0), "from 3.0 to 2.0 s"),
        (lambda: spikes(columns={"area": np.array(["x"])}), "The column 'area' of the units has 1 entries for 3 units"),
        (lambda: spikes().choose(["z"]), "There is no unit 'z'; there are a, b, c"),
        (lambda: spikes(columns={"area": np.array(["x", "y", "y"])}).where("area", "z"), "No unit has area 'z'; there are x, y"),
        (lambda: spikes().where("area", "z"), "have no column 'area'; they have none"),
        (lambda: spikes().choose(["a"]).population(), "There is one unit; a population of 2 or more"),
        (lambda: spikes().counts(0.0), "Bins of 0.0 s"),
        (lambda: spikes().counts(9.0), "A bin of 9 s is longer than the recording of 4 s"),
        (lambda: spikes().between(4.0, 9.0), "Nothing lies between 4 and 4 s"),
        (lambda: Traces(np.zeros((3, 2)), np.arange(3.0), ("x",)), r"Traces of shape \(3, 2\)"),
        (lambda: Traces(np.zeros(3), np.array([0.0, 2.0, 1.0]), ("x",)), "The sample at 1 s comes after 2 s"),
        (lambda: Traces(np.zeros(2), np.array([0.0, np.nan]), ("x",)), "The time of sample 1 is not a finite number"),
        (lambda: Traces(np.zeros((2, 2)), np.arange(2.0), ("x", "x")), "Two traces are named 'x'"),
        (lambda: Trials(np.array([1.0, 2.0]), np.array([2.0, 2.0])), "Trial 1 is from 2 to 2 s; a length above 0"),
        (lambda: Trials(np.array([1.0]), np.array([np.nan])), "Trial 0 is from 1 to nan s"),
        (lambda: Trials(np.zeros(1), np.ones(1), {"side": np.zeros(2)}), "The column 'side' has 2 entries; there are 1 trials"),
        (lambda: Session("s").units(), "s has no spike times; and it has no traces either"),
        (lambda: Session("s", spikes()).units(4), "s: There are 3 units"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(make, says):
    with pytest.raises(InputError, match=says) as raised:
        make()
    assert "\n" not in str(raised.value)


@settings(max_examples=100, deadline=None)
@given(st.floats(-50, 50), st.floats(0.1, 1000), st.integers(1, 200), st.floats(-1, 2), st.floats(0, 2))
def test_stretches_of_even_samples_as_of_their_times(start, rate, samples, share, length):
    """What is computed from a rate is what the times say."""
    values = np.arange(2.0 * samples).reshape(-1, 2)
    stored = StoredTraces(lambda first, last: values[first:last], (start, rate), samples, ("x", "y"))
    plain = Traces(values, start + np.arange(samples) / rate, ("x", "y"))
    low = start + share * samples / rate
    for a, b in ((low, low + length * samples / rate), (plain.times[0], plain.times[-1])):
        one, two = stored.between(a, b), plain.between(a, b)
        np.testing.assert_array_equal(one.times, two.times)
        np.testing.assert_array_equal(one.values, two.values)
    assert (stored.start, stored.stop, len(stored)) == (plain.start, plain.stop, len(plain))
    assert stored.gaps() == plain.gaps()
    if samples > 1:
        assert stored.dt == pytest.approx(plain.dt, rel=1e-6)


def test_pynapple_there_and_back():
    pytest.importorskip("pynapple")
    for observed in (None, ([[0.0, 1.5], [2.0, 4.0]],) * 3):
        made = spikes(observed=observed, columns={"area": np.array(["CA1", "CA3", "CA3"])})
        group = made.to_pynapple()
        assert len(group.time_support) == (1 if observed is None else 2)
        back = Spikes.from_pynapple(group)
        assert (back.names, back.start, back.stop) == (made.names, 0.0, 4.0)
        for k in range(3):
            np.testing.assert_array_equal(back.times[k], made.times[k])
            np.testing.assert_array_equal(back.stretches(k), made.stretches(k))
        assert back.columns["area"].tolist() == ["CA1", "CA3", "CA3"]
        np.testing.assert_allclose(group["rate"], back.rates())
    apart = spikes(observed=([[0.0, 4.0]], [[1.0, 2.0], [2.8, 4.0]], [[0.0, 4.0]]))
    with pytest.raises(InputError, match="Units were observed at different times"):
        apart.to_pynapple()
    group = apart.together().to_pynapple()
    assert group.time_support.values.tolist() == [[1.0, 2.0], [2.8, 4.0]]
    assert [group[k].index.tolist() for k in range(3)] == [[1.0], [3.0], []]
    traces = Traces(np.arange(6.0).reshape(3, 2), np.arange(3.0), ("x", "y"), columns={"k": np.array([1, 2])})
    back = Traces.from_pynapple(traces.to_pynapple())
    np.testing.assert_array_equal(back.values, traces.values)
    assert (back.names, back.columns["k"].tolist()) == (("x", "y"), [1, 2])
    trials = Trials(np.array([0.0, 2.0]), np.array([1.0, 3.0]), {"side": np.array(["l", "r"])})
    back = Trials.from_pynapple(trials.to_pynapple())
    assert (back.start.tolist(), back.columns["side"].tolist()) == ([0.0, 2.0], ["l", "r"])
    with pytest.raises(InputError, match="Trial 1 begins before trial 0 ends"):
        Trials(np.array([0.0, 0.5]), np.array([1.0, 3.0])).to_pynapple()
    whole = Session("s", spikes(), {"a/x": traces, "b/y": traces, "c/y": traces}, trials).to_pynapple()
    assert list(whole) == ["units", "trials", "x", "b/y", "c/y"]


def test_neo_there_and_back():
    pytest.importorskip("neo")
    made = Session(
        "s", spikes(observed=([[0.0, 4.0]], [[1.0, 4.0]], [[0.0, 4.0]])),
        {"speed": Traces(np.arange(8.0).reshape(4, 2), 0.5 + np.arange(4) / 10, ("x", "y"), "m/s"),
         "licks": Traces(np.ones(3), np.array([0.0, 1.0, 5.0]), ("l",), "furlongs")},
        Trials(np.array([0.0, 2.0]), np.array([1.0, 3.0]), {"side": np.array(["l", "r"])}),
    )  # fmt: skip
    back = Session.from_neo(made.to_neo())
    np.testing.assert_array_equal(back.spikes.stretches(1), [[1.0, 4.0]])
    assert back.spikes.observed is not None
    assert [each.tolist() for each in back.spikes.times] == [each.tolist() for each in made.spikes.times]
    np.testing.assert_allclose(back.traces["speed"].times, made.traces["speed"].times)
    np.testing.assert_array_equal(back.traces["speed"].values, made.traces["speed"].values)
    assert (back.traces["speed"].names, back.traces["speed"].unit) == (("x", "y"), "m/s")
    assert back.traces["licks"].times.tolist() == [0.0, 1.0, 5.0]
    assert back.trials.columns["side"].tolist() == ["l", "r"]
    assert back.trials.stop.tolist() == [1.0, 3.0]
    with pytest.raises(InputError, match="There is no Neo spike train"):
        Spikes.from_neo([])


def test_names_of_traces():
    one = Traces(np.zeros(2), np.arange(2.0), ("v",))
    made = Session("s", None, {"behavior/Position/head": one, "a/speed": one, "b/speed": one, "running/running_speed": one})
    assert made.trace_name("head") == "behavior/Position/head"
    assert made.trace_name("Position/head") == "behavior/Position/head"
    assert made.trace_name("running") == "running/running_speed"
    assert made.trace_name("a/speed") == "a/speed"
    with pytest.raises(InputError, match="s has 2 traces named 'speed': a/speed, b/speed"):
        made.trace("speed")
    with pytest.raises(InputError, match="s has no trace named 'pupil'; it has behavior"):
        made.trace("pupil")
    with pytest.raises(InputError, match="s has 0 traces of cells"):
        made.cells()


def test_parts_can_be_pickled_and_chosen():
    again = pickle.loads(pickle.dumps(Session("s", spikes(observed=([[0.0, 3.0]],) + ([[0.0, 4.0]],) * 2))))
    assert again.spikes.stretches(0).tolist() == [[0.0, 3.0]]
    traces = Traces(np.arange(6.0).reshape(3, 2), np.arange(3.0), ("x", "y"), columns={"k": np.array([1, 2])})
    assert traces.choose(["y"]).values[:, 0].tolist() == [1, 3, 5]
    assert traces.choose(["y"]).columns["k"].tolist() == [2]
    assert traces.between(0.5, 2.0).times.tolist() == [1.0]
    trials = Trials(np.array([0.0, 2.0]), np.array([1.0, 3.0]), {"side": np.array(["l", "r"])})
    assert trials.keep(trials.columns["side"] == "r").start.tolist() == [2.0]


def test_arrays(tmp_path):
    path = tmp_path / "s.npz"
    np.savez(
        path, spike_times=[0.5, 1.0, 0.2], spike_units=[1, 1, 0], unit_names=["a", "b"], start=0.0, stop=2.0, speed=np.zeros(3),
        speed_times=[0.0, 1.0, 2.0], speed_unit="cm/s", trial_start=[0.0], trial_stop=[1.0], trial_side=["l"], other=np.zeros(2),
    )  # fmt: skip
    made = open_session(path)
    assert [each.tolist() for each in made.spikes.times] == [[0.2], [0.5, 1.0]]
    assert (made.spikes.names, made.spikes.stop) == (("a", "b"), 2.0)
    assert (made.traces["speed"].names, made.traces["speed"].unit) == (("speed",), "cm/s")
    assert made.trials.columns["side"].tolist() == ["l"]
    assert made.unused == {"other": "an array (2,) of another name"}
    for arrays, says in (
        ({"x": np.zeros(2)}, "s.npz holds x; spike_times with spike_units, or traces as X with X_times"),
        ({"spike_times": np.zeros(2), "spike_units": np.zeros(3)}, r"\(2,\) spike times have units of the shape \(3,\)"),
        ({"spike_times": [1.0], "spike_units": [0.5]}, "no whole numbers"),
        ({"spike_times": [1.0], "spike_units": [2], "unit_names": ["a"]}, "numbers from 0 to 0, since there are 1 unit_names"),
        ({"spike_times": ["x"]}, "spike_times holds <U1; numbers"),
        ({"spike_times": [2.0, 1.0]}, "Unit 0: the spike at 1 s comes after 2 s"),
        ({"spike_times": [1.0], "trial_start": [0.0]}, "there is no array 'trial_stop'"),
        ({"v": np.zeros(3), "v_times": np.zeros(3)}, "The sample at 0 s comes twice"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=says):
            open_session(path)
    np.savez(path, spike_times=np.array([1, "x"], object))
    with pytest.raises(UntrustedError, match="Python objects"):
        open_session(path)


def test_tables(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("unit,time,quality\nu2,1.5,good\nu1,0.5,good\nu1,0.75,mua\n")
    made = open_session(path)
    assert (made.spikes.names, made.spikes.start, made.spikes.stop) == (("u1", "u2"), 0.5, 1.5)
    assert made.unused == {"quality": "a column beside time and unit"}
    path.write_text("time,x,y\n0,1,2\n0.1,,nan\n0.2,3,4\n")
    assert np.isnan(open_session(path).traces["s"].values[1]).all()
    (tmp_path / "t.tsv").write_text("t\tv\n0\t1\n1\t2\n")
    assert open_session(tmp_path / "t.tsv").traces["t"].names == ("v",)
    for text, says in (
        ("a,b\n1,2\n", "has the columns a, b; time"),
        ("time,x\n0,1\n1\n", "line 3: 1 cells; 2 are wanted"),
        ("time,x\n0,one\n", "line 2: 0, one holds a cell that is no number"),
        ("time,x\n", "no line below its header"),
        ("time,unit\n1,a\n1,a\n", "Unit a: the spike at 1 s comes twice"),
        ("", "has the columns none"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=says):
            open_session(path)
