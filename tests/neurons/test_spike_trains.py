import neo
import numpy as np
import pytest
from scipy import sparse

from broadsheet.errors import DataError, EventOverflowError, InputError
from broadsheet.neurons import SpikeTrains
from broadsheet.neurons.spike_trains import read_dense


@pytest.fixture
def trains():
    rng = np.random.default_rng(0)
    return SpikeTrains.from_dense(rng.random((200, 5)) < 0.1, dt=0.5)


def test_dense_arrays_and_files_come_back(trains, tmp_path):
    again = SpikeTrains.from_dense(trains.to_dense(dt=0.5), dt=0.5)
    np.testing.assert_array_equal(again.times, trains.times)
    np.testing.assert_array_equal(again.neurons, trains.neurons)
    trains.save(tmp_path / "a.npz")
    loaded = SpikeTrains.load(tmp_path / "a.npz")
    assert (loaded.size, loaded.duration, len(loaded)) == (5, 100.0, len(trains))
    np.testing.assert_array_equal(loaded.times, trains.times)


def test_neo_trains_come_back_and_start_where_they_say(trains):
    theirs = trains.to_neo()
    assert [len(each) for each in theirs] == np.bincount(trains.neurons, minlength=5).tolist()
    back = SpikeTrains.from_neo(theirs)
    np.testing.assert_allclose(np.sort(back.times), np.sort(trains.times))
    late = [neo.SpikeTrain([1.2, 1.4], units="s", t_start=1.0, t_stop=2.0)]
    np.testing.assert_allclose(SpikeTrains.from_neo(late).times, [200, 400])


def test_rates_and_irregularity():
    """A clock has no irregularity; a Poisson train has one of 1."""
    clock = SpikeTrains(np.arange(0, 1000, 10.0), np.zeros(100, int), 2, 1000.0)
    np.testing.assert_allclose(clock.rates(), [100, 0])
    assert clock.irregularity() < 1e-6
    rng = np.random.default_rng(1)
    poisson = SpikeTrains(rng.uniform(0, 1e5, 4000), rng.integers(0, 4, 4000), 4, 1e5)
    assert abs(poisson.irregularity() - 1) < 0.05


def test_two_spikes_in_one_step_are_not_lost():
    pair = SpikeTrains(np.array([1.1, 1.2]), np.array([0, 0]), 1, 3.0)
    with pytest.raises(EventOverflowError, match="smaller dt"):
        pair.to_dense(dt=1.0)
    assert pair.to_dense(dt=1.0, counts=True)[1, 0] == 2


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_a_clock_has_one_spike_a_step_in_each_precision(kind, tmp_path):
    """Each second step of 0.1 ms has one, whether its time is rounded up or down."""
    steps = np.arange(0, 20_000, 2)
    np.savez(tmp_path / "a.npz", times=(steps * 0.1).astype(kind), neurons=np.zeros(10_000, "u1"), duration=1999.9)
    dense = SpikeTrains.load(tmp_path / "a.npz").to_dense(dt=0.1)
    np.testing.assert_array_equal(np.nonzero(dense[:, 0])[0], steps)
    assert dense.shape == (19_999, 1)


def test_durations_that_are_no_multiple_of_the_step():
    """The last bin is cut short, and has the spikes in it; one of less than a step has one bin."""
    trains = SpikeTrains(np.array([9.5, 10.3]), np.array([0, 0]), 1, 10.4)
    assert np.nonzero(trains.to_dense(dt=1.0)[:, 0])[0].tolist() == [9, 10]
    assert trains.to_dense(dt=1.0).shape == (11, 1)
    assert SpikeTrains(np.array([0.3]), np.array([1]), 2, 0.4).to_dense(dt=1.0).tolist() == [[0, 1]]
    assert SpikeTrains(np.array([0.0]), np.array([0]), 1, 0.0).to_dense(dt=1.0).tolist() == [[1]]
    assert SpikeTrains(np.empty(0), np.empty(0, int), 3, 0.0).to_dense(dt=1.0).shape == (0, 3)
    end = np.array([999.9], "f4")  # rounded up, past its own duration
    assert SpikeTrains(end, np.array([0]), 1, 999.9).to_dense(dt=0.1).nonzero()[0].tolist() == [9998]


@pytest.mark.parametrize("kind", ["u1", "i2", "u8", "f4"])
def test_neurons_of_any_type(tmp_path, kind):
    np.savez(tmp_path / "a.npz", times=np.array([5, 3], "u2"), neurons=np.array([255, 7]).astype(kind))
    trains = SpikeTrains.load(tmp_path / "a.npz")
    assert (trains.size, trains.duration, trains.times.tolist(), trains.neurons.tolist()) == (256, 6.0, [3, 5], [7, 255])
    assert (trains.rates() > 0).sum() == 2


def test_dense_arrays_of_any_type(tmp_path):
    spikes = np.random.default_rng(0).random((30, 4)) < 0.2
    for array in (spikes, spikes.astype("u1"), spikes.astype("f8")):
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(read_dense(tmp_path / "a.npy"), spikes)
    for made in (sparse.csr_array, sparse.coo_matrix):
        sparse.save_npz(tmp_path / "b.npz", made(spikes.astype("u1")))
        np.testing.assert_array_equal(read_dense(tmp_path / "b.npz"), spikes)
        trains = SpikeTrains.from_dense(made(spikes))
        np.testing.assert_array_equal(trains.to_dense(), spikes)
    np.save(tmp_path / "c.npy", spikes * 2)
    step, neuron = np.argwhere(spikes)[0]
    with pytest.raises(DataError, match=f"has 2 at step {step} of neuron {neuron}"):
        read_dense(tmp_path / "c.npy")


@pytest.mark.parametrize(
    ("change", "said"),
    [({"neurons": [0, 3], "size": 3}, "Spike 1 is of neuron 3"), ({"times": [1.0, -2.0]}, "Spike 1 has the time -2"),
     ({"size": 2.5}, "size is 2.5"), ({"size": [2, 2]}, "one number"), ({"duration": np.nan}, "duration"),
     ({"neurons": [True, False]}, "numbers are wanted"), ({"unit": 1}, "'unit' beside"),
     ({"neurons": [0.5, 1.0]}, "whole numbers")],
)  # fmt: skip
def test_files_with_something_strange_are_refused(tmp_path, change, said):
    np.savez(tmp_path / "a.npz", **{"times": [1.0, 2.0], "neurons": [0, 1]} | change)
    with pytest.raises(DataError, match=said):
        SpikeTrains.load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(([1.0], [0, 1], 2, 3.0), "times are"), (([4.0], [0], 1, 3.0), "duration"), (([np.nan], [0], 1, 3.0), "NaN"),
     (([1.0], [2], 2, 3.0), "neurons must lie"), (([1.0], [0.5], 2, 3.0), "whole numbers")],
)  # fmt: skip
def test_mistakes_are_named(arguments, said):
    times, neurons, size, duration = arguments
    with pytest.raises(InputError, match=said):
        SpikeTrains(np.array(times), np.array(neurons), size, duration)


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "b.npz", voltage=np.zeros(3))
    with pytest.raises(DataError, match="times"):
        SpikeTrains.load(tmp_path / "b.npz")


def test_irregularity_and_rates_by_hand():
    trains = SpikeTrains(np.array([0.0, 1, 3, 7, 8, 9, 5]), np.array([0, 0, 0, 0, 1, 1, 2]), 4, 10.0)
    intervals = np.array([1.0, 2, 4])
    assert trains.irregularity() == pytest.approx(intervals.std() / intervals.mean())  # of trains of three spikes at least
    three = SpikeTrains(np.array([0.0, 1, 3]), np.zeros(3, int), 1, 10.0)
    assert three.irregularity() == pytest.approx(0.5 / 1.5)
    assert np.isnan(SpikeTrains(np.array([1.0, 2.0]), np.zeros(2, int), 1, 10.0).irregularity())
    assert trains.rates().tolist() == [400, 200, 100, 0]
    with pytest.raises(
        EventOverflowError, match=r"2 times a neuron fires more than once in a step of 2\.0 ms, neuron 0 at 0 ms"
    ):
        trains.to_dense(dt=2.0)
    made = SpikeTrains.from_dense(np.eye(3), dt=0.5)
    assert (made.times.tolist(), made.duration, made.size) == ([0, 0.5, 1.0], 1.5, 3)
    assert SpikeTrains.from_dense(np.eye(3)).duration == 3
    with pytest.raises(InputError, match="need more than 4096 MiB"):
        SpikeTrains(np.zeros(0), np.zeros(0, int), 1 << 15, 32769.0).to_dense()
    for duration in (-1.0, np.inf):
        with pytest.raises(InputError, match="The duration is"):
            SpikeTrains(np.zeros(0), np.zeros(0, int), 1, duration)
    with pytest.raises(InputError, match=r"dt = 0\.0"):
        made.to_dense(dt=0.0)


def test_sparse_arrays_are_opened_up_to_eight_bytes_an_entry(tmp_path, monkeypatch):
    sparse.save_npz(tmp_path / "s.npz", sparse.csr_array(np.eye(3, 4)))
    monkeypatch.setattr("broadsheet.neurons.spike_trains.MAX_DENSE", 8 * 12)
    np.testing.assert_array_equal(read_dense(tmp_path / "s.npz"), np.eye(3, 4))
    monkeypatch.setattr("broadsheet.neurons.spike_trains.MAX_DENSE", 8 * 12 - 1)
    with pytest.raises(DataError, match=r"\(3, 4\); that needs more"):
        read_dense(tmp_path / "s.npz")
