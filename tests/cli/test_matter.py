"""Tracks of a user's own: lags in true frames, and each dimension counts."""

import numpy as np
import pytest

from commands import call, read


def tracks(path, numbers, dim, header):
    """Free diffusion at D = 0.5 a frame, as a table."""
    frames = len(numbers)
    steps = np.random.default_rng(0).normal(size=(frames, 200, dim)) * np.sqrt(np.diff(numbers, prepend=0))[:, None, None]
    positions = np.cumsum(steps, axis=0)
    rows = [
        f"{n},{k},{','.join(map(str, p))}" for n, frame in zip(numbers, positions, strict=True) for k, p in enumerate(frame)
    ]
    path.write_text("\n".join([header, *rows]))
    return path, positions


@pytest.mark.parametrize(("every", "dim"), [(1, 3), (5, 2), (5, 3)])
def test_msd_of_a_time_lapse(tmp_path, every, dim):
    path, positions = tracks(tmp_path / "t.csv", np.arange(60) * every, dim, f"frame,particle,{'x,y,z'[: 2 * dim - 1]}")
    found = read("matter", "msd", path)
    assert found["lag"][:3] == [every, 2 * every, 3 * every]
    by_hand = [((positions[n:] - positions[:-n]) ** 2).sum(axis=-1).mean() for n in (1, 2, 3)]
    np.testing.assert_allclose(found["msd"][:3], by_hand)
    assert found["late_diffusion"] == pytest.approx(0.5, rel=0.1)
    assert (found["frames"], found["dimensions"], found["notes"]) == (60, dim, [])
    done = call("matter", "msd", path)
    assert f"slope / {2 * dim}" in done.stdout
    assert not done.stderr


def test_lags_that_no_pair_of_frames_has_are_left_out(tmp_path):
    numbers = np.array([0, 10, 30, 31, 60, 61])
    path, _ = tracks(tmp_path / "t.csv", numbers, 2, "frame,particle,x,y")
    found = read("matter", "msd", path, "--dt", "0.5")
    apart = {0.5 * (b - a) for a in numbers for b in numbers if b > a}
    assert set(found["lag"]) <= apart
    assert None not in found["msd"]
    assert found["late_diffusion"] is not None


def test_time_of_a_frame_comes_from_the_file_or_the_user(tmp_path):
    path, _ = tracks(tmp_path / "t.csv", np.arange(10), 2, "frame,particle,x [px],y [px]")
    lines = path.read_text().splitlines()
    timed = [f"{lines[0]},t [s]", *(f"{line},{0.2 * int(line.split(',')[0])}" for line in lines[1:])]
    path.write_text("\n".join(timed))
    found = read("matter", "msd", path)
    assert found["lag"][0] == pytest.approx(0.2)
    assert found["units"] == {"length": "px", "time": "s"}
    other = read("matter", "msd", path, "--dt", "0.1", "--scale", "2")
    assert other["lag"][0] == pytest.approx(0.1)
    assert "0.2 by the times in the file" in other["notes"][0]
    assert other["msd"][0] == pytest.approx(4 * found["msd"][0])
