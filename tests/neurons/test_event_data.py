"""Readers of event recordings, on files written byte by byte as the formats say."""

import struct

import h5py
import numpy as np
import pytest

from broadsheet.errors import DataError, EventOverflowError, InputError, MissingDataError
from broadsheet.neurons.event_data import Events, nmnist_files, read_aedat, read_events, read_nmnist, read_spiking_speech


@pytest.fixture
def events():
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, 300_000, 500))
    return Events(t, rng.integers(0, 34, 500), rng.integers(0, 34, 500), rng.integers(0, 2, 500))


def same(found, events):
    for name in Events._fields:
        np.testing.assert_array_equal(getattr(found, name), getattr(events, name))


def test_nmnist(tmp_path, events):
    folder = tmp_path / "Train" / "7"
    folder.mkdir(parents=True)
    rows = [
        bytes((x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255))
        for t, x, y, p in zip(*map(np.ndarray.tolist, events), strict=True)
    ]
    (folder / "00001.bin").write_bytes(b"".join(rows))
    ((path, label),) = nmnist_files(tmp_path)
    assert label == 7
    same(read_nmnist(path), events)
    frames = read_events(path).frames((34, 34), 50.0, counts=True)
    assert frames.shape[1:] == (2, 34, 34)
    assert frames.sum() == 500
    with pytest.raises(MissingDataError, match="N-MNIST is needed"):
        nmnist_files(tmp_path, "Test")


def aedat(events, damage=b""):
    """A file with a special packet first, and the events in packets of 200."""
    words = events.p << 1 | events.y << 2 | events.x << 17 | 1
    out = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    out += struct.pack("<HHIIIIII", 0, 1, 8, 4, 0, 1, 1, 1) + b"\0" * 8
    for start in range(0, len(words), 200):
        part = slice(start, start + 200)
        rows = np.stack([words[part], events.t[part]], axis=1).astype("<u4")
        out += struct.pack("<HHIIIIII", 1, 1, 8, 4, 0, len(rows), len(rows), len(rows)) + rows.tobytes()
    return out + damage


def test_aedat(tmp_path, events):
    path = tmp_path / "user01.aedat"
    path.write_bytes(aedat(events))
    same(read_aedat(path), events)
    for raw, said in (
        (aedat(events, b"\1\0\1\0"), "header of a packet"),
        (aedat(events)[:-40], "damaged packet"),
        (b"hello", "AEDAT"),
    ):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=said):
            read_aedat(path)


def test_arrays_and_mistakes(tmp_path, events):
    np.savez(tmp_path / "a.npz", **events._asdict())
    same(read_events(tmp_path / "a.npz"), events)
    rows = np.array(list(zip(*events, strict=True)), dtype=[("t", "<i8"), ("x", "<i8"), ("y", "<i8"), ("p", "<i8")])
    np.save(tmp_path / "b.npy", rows)
    same(read_events(tmp_path / "b.npy"), events)
    np.savez(tmp_path / "c.npz", t=[1], x=[2], y=[3])
    with pytest.raises(DataError, match="p are wanted"):
        read_events(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", t=[1], x=[2], y=[3], p=[7])
    with pytest.raises(DataError, match="polarities"):
        read_events(tmp_path / "d.npz")
    with pytest.raises(EventOverflowError, match="outside"):
        events.frames((10, 34), 50.0)
    with pytest.raises(EventOverflowError, match="after 2 bins"):
        events.frames((34, 34), 50.0, bins=2)
    with pytest.raises(InputError, match="bin_ms"):
        events.frames((34, 34), 0.0)
    (tmp_path / "e.bin").write_bytes(b"1234567")
    with pytest.raises(DataError, match="multiple of 5"):
        read_events(tmp_path / "e.bin")


def test_events_of_any_type_and_order(tmp_path, events):
    """Floating times that are whole, polarities as booleans or signs, and events in any order are the same events."""
    mixed = np.random.default_rng(1).permutation(len(events.t))
    mixed = mixed[np.argsort(events.t[mixed], kind="stable")]
    backwards = Events(*(part[mixed][::-1] for part in events))
    expected = Events(*(part[np.argsort(backwards.t, kind="stable")] for part in backwards))
    for polarity in (backwards.p.astype(bool), 2 * backwards.p - 1, backwards.p.astype("f4")):
        np.savez(tmp_path / "a.npz", t=backwards.t.astype("f8"), x=backwards.x.astype("u1"), y=backwards.y, p=polarity)
        same(read_events(tmp_path / "a.npz"), expected)
    rows = np.array([(7, 1, 2, -1)], dtype=[("t", "u4"), ("x", "u2"), ("y", "u2"), ("p", "i1")])
    np.savez(tmp_path / "b.npz", events=rows)
    same(read_events(tmp_path / "b.npz"), Events(*np.array([[7], [1], [2], [0]])))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"t": [0.0, 0.25]}, "t of event 1 is 0.25"), ({"t": [5, -1]}, "t of event 1 is -1"), ({"x": [0.5, 1.0]}, "x of event 0 is 0.5"),
     ({"y": [1, -1]}, "y of event 1"), ({"t": [1.0, np.nan]}, "t of event 1 is nan"), ({"p": [-1, 0]}, "polarities"),
     ({"t": ["1", "2"]}, "numbers are wanted"), ({"trigger": [0, 0]}, "'trigger' beside")],
)  # fmt: skip
def test_events_that_would_change_are_refused(tmp_path, change, said):
    np.savez(tmp_path / "a.npz", **{"t": [1, 2], "x": [0, 0], "y": [0, 0], "p": [0, 1]} | change)
    with pytest.raises(DataError, match=said):
        read_events(tmp_path / "a.npz")


def speech(path, times, units, labels, kind="f4"):
    with h5py.File(path, "w") as file:
        for name, dtype, rows in (("times", kind, times), ("units", "i4", units)):
            data = file.create_dataset(f"spikes/{name}", (len(rows),), h5py.vlen_dtype(np.dtype(dtype)))
            for k, row in enumerate(rows):
                data[k] = np.array(row, dtype)
        file["labels"] = np.array(labels, "u1")
    return path


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_speech_on_the_edges_of_bins(tmp_path, kind):
    """A spike each ms is one in each bin of 1 ms, and 10 in each of 3 ms but the last, which is cut short."""
    path = speech(tmp_path / "a.h5", [np.arange(1200) / 1000], [np.zeros(1200)], [1], kind)
    assert read_spiking_speech(path, bin_ms=1.0, duration_ms=1000.0, channels=1)[0].tolist() == [[[1.0]] * 1000]
    assert read_spiking_speech(path, bin_ms=3.0, duration_ms=1000.0, channels=1)[0].shape == (1, 334, 1)
    path = speech(tmp_path / "b.h5", [[0.0005, 0.0104, 0.0107]], [[0, 1, 2]], [1], kind)
    spikes = read_spiking_speech(path, bin_ms=1.0, duration_ms=10.6, channels=3)[0]
    assert np.argwhere(spikes).tolist() == [[0, 0, 0], [0, 10, 1]]


@pytest.mark.parametrize(
    ("times", "units", "labels", "said"),
    [([[0.1], [-0.2]], [[0], [0]], [0, 0], "sample 1 has a spike at -0.2"), ([[0.1]], [[5]], [0], "sample 0 has a spike of unit 5"),
     ([[0.1]], [[-1]], [0], "unit -1"), ([[0.1, 0.2]], [[0]], [0], "2 times and 1 units"), ([[0.1]], [[0]], [0, 1], "2 labels")],
)  # fmt: skip
def test_speech_that_is_damaged_is_named(tmp_path, times, units, labels, said):
    with pytest.raises(DataError, match=said):
        read_spiking_speech(speech(tmp_path / "a.h5", times, units, labels), channels=3)


def test_spiking_speech(tmp_path):
    """A file as the Heidelberg data sets publish them: ragged arrays of half-precision times (s) and channels."""
    path = tmp_path / "ssc_test.h5"
    speech(path, [[0.003, 0.5], [0.012]], [[5, 699], [0]], [3, 34], "f2")
    spikes, labels = read_spiking_speech(path, bin_ms=10.0, duration_ms=100.0)
    np.testing.assert_array_equal(labels, [3, 34])
    assert [tuple(map(int, where)) for where in np.argwhere(spikes)] == [(0, 0, 5), (1, 1, 0)]
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="Heidelberg"):
        read_spiking_speech(path)


def test_frames_count_from_the_first_event_within_their_edges():
    made = Events(*map(np.array, ([5000, 5999, 6000, 6001, 7000], [0, 1, 1, 1, 1], [2, 0, 0, 0, 0], [0, 1, 1, 1, 0])))
    found = made.frames((2, 3), 1.0)
    assert found.shape == (3, 2, 3, 2)
    assert np.argwhere(found).tolist() == [[0, 0, 2, 0], [0, 1, 0, 1], [1, 1, 0, 1], [2, 0, 0, 1]]
    assert found.max() == 1
    counts = made.frames((2, 3), 1.0, bins=4, counts=True)
    assert (counts.shape[0], counts[1, 1, 0, 1], counts.sum()) == (4, 2, 5)
    made.frames((2, 3), 1.0, bins=3)
    for size, bins in (((1, 3), 3), ((2, 2), 3), ((2, 3), 2)):
        with pytest.raises(EventOverflowError):
            made.frames(size, 1.0, bins=bins)
    for part, value in (("x", -1), ("y", -1)):
        with pytest.raises(EventOverflowError, match="1 events lie outside"):
            made._replace(**{part: np.where(np.arange(5) == 2, value, getattr(made, part))}).frames((2, 3), 1.0)
    empty = Events(*[np.zeros(0, int)] * 4).frames((2, 3), 1.0)
    assert empty.shape == (1, 2, 3, 2)
    with pytest.raises(InputError, match="need more than 2048 MiB"):
        made.frames((20_000, 20_000), 1.0)
    assert Events(*[np.zeros(0, int)] * 4).frames((1024, 64), 1.0, bins=1).nbytes == 2**19


def test_nmnist_pixels_and_polarities_at_their_limits(tmp_path):
    for place, fits in ((33, True), (34, False)):
        for row in ((place, 0), (0, place)):
            (tmp_path / "a.bin").write_bytes(bytes((*row, 0xFF, 0xFF, 0xFE)) + bytes((0, 0, 0, 0, 1)))
            if fits:
                found = read_nmnist(tmp_path / "a.bin")
                assert (found.t.tolist(), found.p.tolist()) == ([1, 2**23 - 2], [0, 1])
            else:
                with pytest.raises(DataError, match="34 x 34 pixels"):
                    read_nmnist(tmp_path / "a.bin")
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(DataError, match="0 bytes"):
        read_nmnist(tmp_path / "a.bin")
    with pytest.raises(MissingDataError):
        nmnist_files(None)


def test_packets_by_their_kind_overflow_and_capacity(tmp_path):
    def packet(kind, rows, size=8, overflow=0, spare=0):
        body = np.array(rows, "<u4").tobytes() + bytes(size * spare)
        return struct.pack("<HHIIIIII", kind, 1, size, 4, overflow, len(rows) + spare, len(rows), len(rows)) + body

    def word(x, y, p, valid=1):
        return p << 1 | y << 2 | x << 17 | valid

    head = b"#!AER-DAT3.1\r\n#!END-HEADER\r\n"
    path = tmp_path / "a.aedat"
    path.write_bytes(
        head
        + packet(1, [(word(5, 6, 1), 90), (word(1, 2, 0, valid=0), 10)], spare=2)
        + packet(3, [(7, 7)])
        + packet(1, [(word(300, 200, 0), 4)], overflow=1)
    )
    found = read_aedat(path)
    assert [part.tolist() for part in found] == [[90, 2**31 + 4], [5, 300], [6, 200], [1, 0]]
    for raw, said in (
        (b"#!AER-DAT3.1\r\n", "header has no end"), (head, "no polarity events"), (head + packet(3, [(7, 7)]), "no polarity events"),
        (head + struct.pack("<HHIIIIII", 1, 1, 8, 4, 0, 1, 2, 2) + bytes(16), "damaged packet"),
        (head + struct.pack("<HHIIIIII", 1, 1, 12, 4, 0, 1, 1, 1) + bytes(12), "polarity events of 12 bytes"),
        (head + struct.pack("<HHIIIIII", 1, 1, 4, 4, 0, 1, 1, 1) + bytes(4), "damaged packet"),
    ):  # fmt: skip
        path.write_bytes(raw)
        with pytest.raises(DataError, match=said):
            read_aedat(path)


@pytest.mark.parametrize(("bin_ms", "duration_ms", "fits"), [(1.0, 1.0, True), (2.0, 1.0, False), (0.0, 1.0, False)])
def test_bins_of_speech_are_shorter_than_it(tmp_path, bin_ms, duration_ms, fits):
    path = speech(tmp_path / "a.h5", [[0.0]], [[2]], [1])
    if fits:
        assert read_spiking_speech(path, bin_ms=bin_ms, duration_ms=duration_ms)[0].shape == (1, 1, 700)
        assert read_spiking_speech(path)[0].shape == (1, 100, 700)
    else:
        with pytest.raises(InputError, match="at least one bin"):
            read_spiking_speech(path, bin_ms=bin_ms, duration_ms=duration_ms)
