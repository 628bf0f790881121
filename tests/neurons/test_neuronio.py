import pickle
from itertools import islice

import numpy as np
import pytest

from broadsheet.errors import DataError, InputError, MissingDataError, UntrustedError
from broadsheet.neurons.neuronio import neuronio_files, read_neuronio, whole_simulations, window_batches
from broadsheet.neurons.surrogate import scale_voltage

DURATION, SEGMENTS = 40, 3


def simulation(rng):
    def times():
        return {segment: sorted(rng.choice(DURATION, 4, replace=False).tolist()) for segment in range(SEGMENTS)}

    return {
        "exInputSpikeTimes": times(),
        "inhInputSpikeTimes": times(),
        "somaVoltageLowRes": rng.uniform(-75, -40, DURATION + 1),
        "outputSpikeTimes": np.array([6.5, 8.2, 31.0]),
    }


def dense(run):
    """A simulation's inputs by the definition: 1 and -1 in the millisecond of each spike."""
    out = np.zeros((DURATION, 2 * SEGMENTS))
    for sign, offset, name in ((1, 0, "exInputSpikeTimes"), (-1, SEGMENTS, "inhInputSpikeTimes")):
        for segment, times in run[name].items():
            for t in times:
                out[int(t), offset + segment] = sign
    return out


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    made = {}
    for part, count in (("train", 3), ("test", 1)):
        (tmp_path / f"data_{part}").mkdir()
        for k in range(count):
            runs = [simulation(rng) for _ in range(2)]
            content = {
                "Params": {"totalSimDurationInSec": DURATION / 1000, "allSegmentsType": ["a"] * SEGMENTS},
                "Results": {"listOfSingleSimulationDicts": runs},
            }
            file = tmp_path / f"data_{part}" / f"sim_{k}.p"
            file.write_bytes(pickle.dumps(content))
            made[file] = runs
    return tmp_path, made


def test_a_file_needs_trust_and_is_read_as_published(folder, monkeypatch):
    where, made = folder
    train, (test,) = neuronio_files(where)
    assert [file.parent.name for file in train] == ["data_train"] * 3
    assert test.parent.name == "data_test"
    with pytest.raises(UntrustedError, match="--trust"):
        read_neuronio(test)
    monkeypatch.setenv("BROADSHEET_TRUST", "1")
    found = read_neuronio(test)
    for k, run in enumerate(made[test]):
        np.testing.assert_array_equal(found.inputs(k, 0, DURATION), dense(run))
        np.testing.assert_array_equal(found.inputs(k, 5, 17), dense(run)[5:17])
        np.testing.assert_allclose(found.voltage[k], run["somaVoltageLowRes"][:DURATION], rtol=1e-6)
        assert np.flatnonzero(found.spikes[k]).tolist() == [6, 7, 30]  # a spike at t falls in the bin of t - 0.5
    assert found.first[-1] == len(found.channel) == 2 * 2 * SEGMENTS * 4


def test_windows_are_pieces_of_the_simulations_and_reach_all_of_them(folder, monkeypatch):
    monkeypatch.setenv("BROADSHEET_TRUST", "1")
    where, made = folder
    train, _ = neuronio_files(where)
    pieces = {
        np.ascontiguousarray(dense(run)[t : t + 20]).tobytes(): (file, k, scale_voltage(run["somaVoltageLowRes"][t : t + 20]))
        for file in train
        for k, run in enumerate(made[file])
        for t in range(DURATION - 20 + 1)
    }
    seen = set()
    for x, y in islice(window_batches(train, batch=2, window=20, keep=2), 60):
        assert x.shape == (2, 20, 2 * SEGMENTS)
        for inputs, targets in zip(x, y, strict=True):
            file, k, voltage = pieces[inputs.astype(float).tobytes()]
            np.testing.assert_allclose(targets[:, 1], voltage, atol=1e-5)
            seen.add((file, k))
    assert len(seen) == 6
    with pytest.raises(InputError, match="shorter than the window"):
        next(window_batches(train, batch=2, window=50))


def test_whole_simulations_leave_the_start_out(folder, monkeypatch):
    monkeypatch.setenv("BROADSHEET_TRUST", "1")
    where, made = folder
    _, test = neuronio_files(where)
    found = list(whole_simulations(test, skip=10))
    assert len(found) == 2
    for (inputs, voltage, spikes), run in zip(found, made[test[0]], strict=True):
        np.testing.assert_array_equal(inputs, dense(run)[10:])
        assert len(voltage) == len(spikes) == DURATION - 10
        assert spikes.sum() == 1


def test_what_is_missing_or_broken_is_said(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("BROADSHEET_TRUST", "1")
    with pytest.raises(MissingDataError, match="Kaggle"):
        neuronio_files(None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="0 training"):
        neuronio_files(tmp_path / "empty")
    _, made = folder
    file, runs = next(iter(made.items()))
    runs[0]["exInputSpikeTimes"][1] = [3, DURATION]
    content = {
        "Params": {"totalSimDurationInSec": DURATION / 1000, "allSegmentsType": ["a"] * SEGMENTS},
        "Results": {"listOfSingleSimulationDicts": runs},
    }
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match="segment 1 is outside"):
        read_neuronio(file)
