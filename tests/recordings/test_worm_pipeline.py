"""The common format: against loops over single numbers, the authors' own pipeline, and what no future may change."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.errors import InputError
from broadsheet.recordings.worm import canonical_names, homogenise, interpolate
from broadsheet.recordings.worm.by_hand import by_hand
from broadsheet.recordings.worm.names import slots
from broadsheet.recordings.worm.pipeline import running_zscore, smoothed

REFERENCE = json.loads((Path(__file__).parents[1] / "references" / "worm_pipeline.json").read_text())
NAMES = ["AVAL", "AVAR", "RIS", "VB2"]
SLOTS = [slots()[name] for name in NAMES]
EVERY = 40


def reference_traces():
    """As bench/references_worm_pipeline.py draws them."""
    rng = np.random.default_rng(7)
    times = np.cumsum(rng.uniform(0.4, 0.6, 700)).astype(np.float32).astype(float)
    return 100 + rng.standard_normal((700, len(NAMES))).cumsum(0), times - times[0]


def uneven(rng, samples=50, cells=4):
    return 50 + rng.standard_normal((samples, cells)).cumsum(0), np.cumsum(rng.uniform(0.1, 0.9, samples))


def test_by_hand():
    """z of (0, 0, 3) has mean 1 and deviation √2; samples at 0, 1, 2 s on a grid of 0.5 s."""
    made = homogenise(np.array([[0.0], [0.0], [3.0]]), np.array([0.0, 1.0, 2.0]), ["ris"], 0.5)
    z, slope = np.array([-1, -1, 2]) / np.sqrt(2), np.array([0, 1.5, 3]) / np.sqrt(2)
    slot = slots()["RIS"]
    np.testing.assert_allclose(made.time, [0, 0.5, 1, 1.5])
    np.testing.assert_allclose(made.calcium[:, slot], [z[0], (z[0] + z[1]) / 2, z[1], (z[1] + z[2]) / 2])
    np.testing.assert_allclose(made.residual[:, slot], [slope[0], slope[1] / 2, slope[1], (slope[1] + slope[2]) / 2])
    assert made.mask.sum() == 1
    assert made.mask[slot]
    assert not made.calcium[:, ~made.mask].any()


@given(seed=st.integers(0, 1000), dt=st.floats(0.05, 2.0), alpha=st.floats(0.05, 1.0))
@settings(max_examples=8, deadline=None)
def test_loops_over_single_numbers(seed, dt, alpha):
    x, times = uneven(np.random.default_rng(seed))
    made = homogenise(x, times, NAMES, dt, "exponential", amount=alpha)
    ours = np.stack([each[:, SLOTS].T for each in (made.calcium, made.residual, made.smooth_calcium, made.smooth_residual)])
    np.testing.assert_allclose(ours, by_hand(x.T.tolist(), times.tolist(), dt, alpha), atol=1e-9)


@pytest.mark.parametrize(("smooth", "amount"), [("none", None), ("exponential", 0.5)])
def test_the_authors_pipeline(smooth, amount):
    """Theirs is in single precision."""
    x, times = reference_traces()
    made = homogenise(x, times, NAMES, 0.333, smooth, amount=amount, zscore="last")
    for kind, ours in (
        ("calcium_data", made.calcium), ("residual_calcium", made.residual), ("smooth_residual_calcium", made.smooth_residual)
    ):  # fmt: skip
        np.testing.assert_allclose(ours[::EVERY, SLOTS], REFERENCE[smooth][kind], atol=2e-4, rtol=2e-4)
    np.testing.assert_allclose(made.time[::EVERY], REFERENCE[smooth]["time_in_seconds"], atol=1e-4)


def test_the_authors_causal_steps():
    x = reference_traces()[0]
    np.testing.assert_allclose(running_zscore(np.ascontiguousarray(x.T)).T[::EVERY], REFERENCE["running"], atol=1e-6)
    np.testing.assert_allclose(smoothed(x.T, "gaussian", 5.0, causal=True).T[::EVERY], REFERENCE["gaussian"], rtol=1e-6)
    # theirs, of 15 samples, takes the half that lies behind: 8
    np.testing.assert_allclose(smoothed(x.T, "moving", 8.0, causal=True).T[::EVERY], REFERENCE["moving"], rtol=1e-6)


@pytest.mark.parametrize("smooth", ["none", "gaussian", "moving", "exponential"])
@pytest.mark.parametrize("zscore", ["first", "last"])
def test_causal_samples_do_not_see_the_future(smooth, zscore):
    rng = np.random.default_rng(1)
    x, times = uneven(rng, 200)
    other = x.copy()
    other[120:] += 10 * rng.standard_normal((80, 4))
    kinds = ("calcium", "residual", "smooth_calcium", "smooth_residual", "others")
    for causal in (True, False):
        a, b = (homogenise(each, times, [*NAMES[:3], None], 0.7, smooth, causal=causal, average=True, zscore=zscore)
                for each in (x, other))  # fmt: skip
        assert a.causal is causal
        before = a.time < times[120]
        same = [np.array_equal(getattr(a, kind)[before], getattr(b, kind)[before]) for kind in kinds]
        assert all(same) if causal else not all(same)


@pytest.mark.parametrize("samples", [3, 15, 16, 17, 90])
@pytest.mark.parametrize("weight", [1.0, 0.5, 0.01])
def test_exponential_smoothing_is_its_recursion(samples, weight):
    x = np.random.default_rng(samples).standard_normal((3, samples)).cumsum(1)
    expected = x.copy()
    for k in range(1, samples):
        expected[:, k] = weight * x[:, k] + (1 - weight) * expected[:, k - 1]
    np.testing.assert_allclose(smoothed(x, "exponential", weight), expected, rtol=0, atol=1e-12)


def test_acausal_smoothing_is_that_of_scipy_and_of_a_zero_padded_window():
    from scipy.ndimage import gaussian_filter1d

    x = np.random.default_rng(2).standard_normal((3, 90))
    np.testing.assert_allclose(smoothed(x, "gaussian", 3.0), gaussian_filter1d(x, 3.0, axis=1))
    window = np.ones(21) / 21
    np.testing.assert_allclose(smoothed(x, "moving"), np.stack([np.convolve(row, window, "same") for row in x]), atol=1e-12)


def test_running_moments_of_large_numbers():
    """A baseline of 10⁶ must not eat the variance: squares of it have no digits left for a deviation of 1."""
    x = np.random.default_rng(3).standard_normal((2, 400))
    np.testing.assert_allclose(running_zscore(x + 1e6)[:, 50:], running_zscore(x)[:, 50:], atol=1e-6)


def test_names_and_cells_without():
    x, times = uneven(np.random.default_rng(4), cells=6)
    made = homogenise(x, times, ["VB02", "vb2", None, "AVA", "12", "AWCON"])
    assert {canonical_names()[k] for k in np.flatnonzero(made.mask)} == {"VB2", "AWCR"}
    assert made.other_names == ("2", "AVA", "12")  # the second VB2 is dropped, as in the authors' pipeline
    assert made.others.shape == (len(made.time), 3)
    first = homogenise(x[:, :1], times, ["VB2"])
    np.testing.assert_array_equal(made.calcium[:, slots()["VB2"]], first.calcium[:, slots()["VB2"]])


def test_one_grid_for_recordings_that_start_apart():
    x, times = uneven(np.random.default_rng(5))
    a, b = homogenise(x, times, NAMES, 0.4, start=0.0), homogenise(x[7:], times[7:], NAMES, 0.4, start=0.0)
    assert np.allclose(np.round(a.time / 0.4) * 0.4, a.time)
    assert set(np.round(b.time / 0.4)) <= set(np.round(a.time / 0.4))


def test_interpolation_is_numpys():
    x, times = uneven(np.random.default_rng(8))
    grid = np.linspace(times[0], times[-1], 77)
    np.testing.assert_allclose(interpolate(x, times, grid), np.stack([np.interp(grid, times, trace) for trace in x.T], 1))
    beyond = interpolate(x, times, np.array([times[0] - 3, times[-1] + 2]))
    for made, end, at in zip(beyond, (slice(2), slice(-2, None)), (times[0] - 3, times[-1] + 2), strict=True):
        np.testing.assert_allclose(made, [np.polynomial.Polynomial.fit(times[end], trace[end], 1)(at) for trace in x.T])
    x[5, 0] = np.nan  # unknown between its neighbours alone
    unknown = np.isnan(interpolate(x, times, grid))
    np.testing.assert_array_equal(unknown[:, 0], (grid > times[4]) & (grid < times[6]))
    assert not unknown[:, 1:].any()


@pytest.mark.parametrize("wrong", ["falls", "one", "nan"])
def test_interpolation_refuses_times_that_do_not_rise_and_single_samples(wrong):
    x, times = uneven(np.random.default_rng(8))
    times = times.copy()
    if wrong == "falls":
        times[[3, 4]] = times[[4, 3]]
    elif wrong == "nan":
        times[3] = np.nan
    used = slice(1 if wrong == "one" else None)
    with pytest.raises(InputError, match="rising times"):
        interpolate(x[used], times[used], np.array([1.0]))


def test_a_constant_trace_stays_zero():
    x, times = uneven(np.random.default_rng(6))
    x[:, 1] = 5.0
    for causal in (False, True):
        assert not homogenise(x, times, NAMES, causal=causal).calcium[:, slots()["AVAR"]].any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.nan}, "AVAR is nan in sample 3"),
        ({"times": (4, 0.0)}, "times must rise"),
        ({"times": (4, np.inf)}, "time of sample 4 is inf"),
        ({"names": NAMES[:3]}, "a name a cell"),
        ({"dt": 0.0}, "step of 0.0 s"),
        ({"dt": 1e6}, "2 are wanted"),
        ({"smooth": "median"}, "smooth='median'"),
        ({"amount": 0.0, "smooth": "gaussian"}, "above 0"),
        ({"amount": 2.0, "smooth": "exponential"}, "up to 1"),
        ({"zscore": "middle"}, "first or last"),
        ({"cut": 2}, "3 or more"),
    ],
)
def test_one_sentence(change, words):
    x, times = uneven(np.random.default_rng(0))
    options = {key: value for key, value in change.items() if key in ("dt", "smooth", "amount", "zscore")}
    if "x" in change:
        x[3, 1] = change["x"]
    if "times" in change:
        times[change["times"][0]] = change["times"][1]
    cut = change.get("cut", len(x))
    with pytest.raises(InputError, match=words):
        homogenise(x[:cut], times[:cut], change.get("names", NAMES), **options)
