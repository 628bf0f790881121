"""Tables of tracks as programs write them, against walks whose displacements a plain loop counts."""

import numpy as np
import pytest

from broadsheet.errors import DataError
from broadsheet.matter import read_tracks
from broadsheet.matter.observables import lags_seen, msd
from broadsheet.matter.tracks import track_file


def walk(frames=12, particles=3, dim=2):
    return np.cumsum(np.random.default_rng(0).normal(size=(frames, particles, dim)), axis=0)


def write(path, header, rows):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))
    return path


def rows_of(positions, numbers):
    return [(number, k, *point) for number, frame in zip(numbers, positions, strict=True) for k, point in enumerate(frame)]


@pytest.mark.parametrize("dim", [2, 3])
def test_time_lapse_of_any_dimension_in_any_order(tmp_path, dim):
    positions = walk(dim=dim)
    rows = rows_of(positions, range(100, 160, 5))
    np.random.default_rng(1).shuffle(rows)
    path = write(tmp_path / "t.csv", "frame,particle,x,y,z"[: 14 + 2 * dim], rows)
    found = track_file(path)
    np.testing.assert_allclose(found.positions, positions)
    assert (found.step, found.interval, found.notes) == (5, None, ())
    every = read_tracks(path)
    assert every.shape == (56, 3, dim)
    np.testing.assert_allclose(every[::5], positions)
    assert np.isnan(every).sum() == 44 * 3 * dim


def test_gaps_and_late_particles_count_as_a_loop_counts_them(tmp_path):
    """Frames 0, 2, 6, 7 and 11; the second particle enters late, the third is there but not seen, or with empty cells."""
    positions, numbers = walk(5), [0, 2, 6, 7, 11]
    rows = rows_of(positions, numbers)
    rows = [row for row in rows if not (row[1] == 1 and row[0] < 6)]
    rows = [(*row[:2], "nan", "NaN") if row[1] == 2 and row[0] == 7 else row for row in rows]
    rows = [(*row[:2], "", "") if row[1] == 2 and row[0] == 2 else row for row in rows]
    tracks = track_file(write(tmp_path / "t.csv", "frame,id,x,y", rows)).positions
    there = {(n, k): np.array(p, float) for n, k, *p in rows if p[0] not in ("", "nan")}
    expected = {}
    for lag in range(1, 12):
        steps = [np.sum((there[n + lag, k] - p) ** 2) for (n, k), p in there.items() if (n + lag, k) in there]
        if steps:
            expected[lag] = np.mean(steps)
    assert lags_seen(tracks).tolist() == list(expected)
    np.testing.assert_allclose(msd(tracks, list(expected)), list(expected.values()))
    assert np.isnan(msd(tracks, [8])).all()


@pytest.mark.parametrize("interval", [0.25, 1 / 30, 40.0])
def test_times_count_where_there_are_no_frames(tmp_path, interval):
    """Rounded to three decimals, with frames missing; beside frames they say how long one takes."""
    positions = walk(100)
    numbers = np.array([n for n in range(110) if n % 11 != 3])
    times = (1.5 + numbers * interval).round(3)
    found = track_file(write(tmp_path / "t.csv", "t [s],track,x (µm),y (µm)", rows_of(positions, times)))
    assert found.step == pytest.approx(interval, rel=1e-3)
    assert (found.length_unit, found.time_unit) == ("µm", "s")
    np.testing.assert_allclose(found.positions[numbers], positions)
    rows = [(n, *row) for n, row in zip(np.repeat(numbers, 3), rows_of(positions, times), strict=True)]
    both = track_file(write(tmp_path / "u.csv", "frame,t,id,x,y", rows))
    assert (both.step, both.interval) == (1, pytest.approx(interval, rel=1e-3))
    uneven = [(n, t + (n > 50) * interval, *rest) for n, t, *rest in rows]
    assert "'t' are not equally spaced" in track_file(write(tmp_path / "v.csv", "frame,t,id,x,y", uneven)).notes[0]


def test_other_spellings(tmp_path):
    """TrackMate's table of spots, whose ID is of the spot, in a plane; trackpy's order; tabs and semicolons."""
    positions = walk()
    rows = [
        (f"ID{n}", n, row[1], row[2], row[3], 0.0, 0.5 * row[0], row[0]) for n, row in enumerate(rows_of(positions, range(12)))
    ]
    header = "LABEL,ID,TRACK_ID,POSITION_X,POSITION_Y,POSITION_Z,POSITION_T,FRAME"
    words = [
        "Label,Spot ID,Track ID,X,Y,Z,T,Frame",
        "Label,Spot ID,Track ID,X,Y,Z,T,Frame",
        ",,,(micron),(micron),(micron),(sec),",
    ]
    found = track_file(write(tmp_path / "a.csv", "\n".join([header, *words]), rows))
    np.testing.assert_allclose(found.positions, positions)
    assert (found.interval, found.length_unit, found.time_unit) == (0.5, "micron", "sec")
    assert "plane" in found.notes[0]
    trackpy = [(k, n, *point) for n, k, *point in rows_of(walk(dim=3), range(12))]
    np.testing.assert_allclose(track_file(write(tmp_path / "b.csv", "particle,frame,x,y,z", trackpy)).positions, walk(dim=3))
    for delimiter in "\t;":
        (tmp_path / "c.csv").write_text((tmp_path / "b.csv").read_text().replace(",", delimiter))
        np.testing.assert_allclose(track_file(tmp_path / "c.csv").positions, walk(dim=3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frame,id,x,y\n0,0,1,1\n2,0,1,1\n0,0,2,2\n", "twice in one frame, in lines 2 and 4"),
        ("frame,id,x,y\n0,0,1,1\n0.5,0,1,1\n", "line 3: frames must be whole numbers"),
        ("frame,id,x,y\n0,0,1,1\n1,0,,1\n", "line 3: x, y must all be finite"),
        ("frame,id,x,y\n0,0,1,inf\n", "line 2: x, y must all be finite"),
        ("frame,id,x,y\n0,,1,1\n", "line 2: the particle"),
        ("frame,id,x,y\n,0,1,1\n", "line 2: the frame"),
        ("frame,id,x [px],x [nm],y [px]\n0,0,1,1,1\n", "2 columns for 'x'"),
        ("frame,id,x [px],y [nm]\n0,0,1,1\n", "different units: nm, px"),
        ("t,id,x,y\n0,0,1,1\n0.1,0,1,1\n0.23,0,1,1\n0.3,0,1,1\n", "line 4: the time is no multiple"),
        ("frame,id,x\n0,0,1\n", "'y' is missing"),
    ],
)
def test_strange_tables_are_refused_by_line(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        track_file(tmp_path / "t.csv")
