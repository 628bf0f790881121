import numpy as np
import pytest

from broadsheet.errors import DataError, InputError
from broadsheet.matter import observables as obs
from broadsheet.matter import read_tracks


def lattice(kind, n=12):
    i, j = np.meshgrid(np.arange(n), np.arange(n))
    x, y = (i + 0.5 * (j % 2), j * np.sqrt(3) / 2) if kind == "hexagonal" else (i, j)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(float)


def inside(points):
    low, high = points.min(axis=0) + 1.5, points.max(axis=0) - 1.5
    return ((points > low) & (points < high)).all(axis=1)


def test_bond_order_of_perfect_lattices():
    for kind, order, other in (("hexagonal", 6, 4), ("square", 4, 6)):
        points = lattice(kind)
        middle = inside(points)
        np.testing.assert_allclose(obs.bond_order(points, order, 1.3)[middle], 1.0, atol=1e-9)
        np.testing.assert_allclose(obs.bond_order(points, other, 1.3)[middle], 0.0, atol=1e-9)
        assert obs.nearest_distance(points[middle]) < 1.2


def test_clusters_and_bonds():
    points = np.array([[0, 0], [1, 0], [2, 0], [10, 0], [11, 0.0]])
    assert obs.cluster_sizes(points, 1.1).tolist() == [3, 2]
    assert len(obs.bonds(points, 1.1)) == 3
    assert obs.bond_order(np.array([[0.0, 0.0], [9.0, 9.0]]), 6, 1.0).tolist() == [0.0, 0.0]


def test_bond_fluctuation_ignores_rotation():
    angle = np.linspace(0, 2, 50)
    turning = np.stack([np.zeros((50, 2)), np.stack([np.cos(angle), np.sin(angle)], axis=1)], axis=1)
    assert obs.bond_fluctuation(turning, 1.5) == pytest.approx(0, abs=1e-9)
    breathing = turning * (1 + 0.1 * np.sin(angle * 20))[:, None, None]
    assert obs.bond_fluctuation(breathing, 1.5) == pytest.approx(0.1 * np.sin(angle * 20).std(), rel=1e-6)


def test_heading_of_circular_motion():
    angle = np.arange(200) * 0.1
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, None]
    np.testing.assert_allclose(obs.heading_autocorrelation(circle, 1, [5, 10]), np.cos([0.5, 1.0]), atol=1e-6)
    assert obs.mean_speed(circle, 1, 0.1) == pytest.approx(2 * np.sin(0.05) / 0.1)


def test_radial_distribution_has_the_lattice_peaks():
    r, g = obs.radial_distribution(lattice("square")[None], np.arange(0.5, 3, 0.05))
    assert r[np.argmax(g)] == pytest.approx(1.0, abs=0.05)
    assert g[np.argmin(np.abs(r - 1.2))] == 0


def test_a_lag_beyond_the_end_is_refused():
    with pytest.raises(InputError, match="does not fit"):
        obs.msd(np.zeros((5, 1, 2)), [5])


def test_tracks_are_read_in_any_order(tmp_path):
    path = tmp_path / "tracks.csv"
    path.write_text("y,x,mass,particle,frame\n1,2,9,7,1\n3,4,9,7,0\n5,6,9,3,1\n")
    tracks = read_tracks(path)
    assert tracks.shape == (2, 2, 2)
    np.testing.assert_array_equal(tracks[:, 1], [[4, 3], [2, 1]])
    assert np.isnan(tracks[0, 0]).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,y\n1,2\n", "'frame' is missing"),
        ("frame,id,x,y\n", "no rows"),
        ("frame,id,x,y\n0,0,a,1\n", "line 2"),
        ("frame,id,x,y\n0,0,1,1\n0,0,2,2\n", "twice"),
        ("frame,id,x,y\n0.5,0,1,1\n", "whole numbers"),
        ("frame,id,x,y\n0,0,1,1\n1e15,1,2,2\n", "too many"),
    ],
)
def test_bad_tracks_are_named(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        read_tracks(tmp_path / "t.csv")
