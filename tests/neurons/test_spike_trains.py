import neo
import numpy as np
import pytest

from broadsheet.errors import DataError, EventOverflowError, InputError
from broadsheet.neurons import SpikeTrains


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
