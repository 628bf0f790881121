"""Effects of adaptation by hand, cheaper accounts of it, orientations of pictures, and files of recordings."""

import numpy as np
import pytest
from scipy.io import savemat

from broadsheet.errors import DataError, InputError
from broadsheet.networks.adaptation_controls import (
    Normalisation,
    adapt_synapses,
    fit_normalisation,
    uniform_gain,
    uniform_gain_of_activity,
    weber_gains,
)
from broadsheet.networks.adaptation_effects import (
    effects,
    preferred_orientations,
    stimulus_correlation,
    stimulus_covariance,
    wrapped,
)
from broadsheet.networks.adaptation_files import (
    AdaptedPopulation,
    adapter_ensemble,
    explained_change,
    read_population,
    write_population,
)
from broadsheet.networks.orientations import biased, grid, image_orientations, ring_network, uniform, von_mises

P, THETA = biased(24, 12), grid(24)


def tuning(centres, heights=1.0):
    return np.reshape(heights, (-1, 1)) * von_mises(np.asarray(centres)[:, None] - THETA, 2.0)


def test_preferred_orientations_have_period_pi():
    centres = np.deg2rad([0.5, 89.0, 91.0, 179.7])
    np.testing.assert_allclose(preferred_orientations(tuning(centres), THETA), centres, atol=1e-4)
    assert np.isnan(preferred_orientations(np.ones((1, 24)), THETA))[0]
    np.testing.assert_allclose(wrapped(np.deg2rad([179.0, -91.0, 90.0])), np.deg2rad([-1.0, 89.0, -90.0]), atol=1e-12)


def test_a_shift_and_a_scale_by_hand():
    """Neurons 10 degrees to each side of the adapter move 2 degrees outwards and lose a fifth; others stay."""
    centres = np.deg2rad([80.0, 100.0, 170.0, 10.0])
    moved = centres + np.deg2rad([-2.0, 2.0, 0.0, 0.0])
    found = effects(tuning(centres), tuning(moved, [0.8, 0.8, 1.0, 1.0]), P, np.pi / 2, THETA)
    np.testing.assert_allclose(np.rad2deg(found.repulsion), [2, 2, 0, 0], atol=1e-3)
    np.testing.assert_allclose(np.rad2deg(found.distance), [-10, 10, 80, -80], atol=1e-3)
    np.testing.assert_allclose(found.slope, [0.8, 0.8, 1, 1], atol=0.01)
    assert np.rad2deg(found.at("repulsion", 10.0)) == pytest.approx(2, abs=1e-3)
    assert np.rad2deg(found.at("repulsion", 45.0)) == pytest.approx(1, abs=1e-3)  # half way to 80 degrees
    assert found.at("slope", 90.0) == pytest.approx(1, abs=1e-6)
    assert found.at_adapter[0] == pytest.approx(0.8 * np.exp(2 * (np.cos(np.deg2rad(24)) - np.cos(np.deg2rad(20)))))
    attracted = effects(tuning(moved), tuning(centres), P, np.pi / 2, THETA)
    assert attracted.summary()["repulsion_15"] < 0


def test_moments_are_numpys():
    H = np.random.default_rng(0).random((4, 24))
    np.testing.assert_allclose(stimulus_covariance(H, P), np.cov(H, aweights=P, ddof=0))
    np.testing.assert_allclose(stimulus_correlation(H, uniform(24)), np.corrcoef(H))
    scaled = effects(H, H * np.arange(1, 5)[:, None], P, 1.0, THETA)
    assert scaled.summary()["correlation_ratio"] == pytest.approx(1, abs=1e-12)
    flat = stimulus_correlation(np.vstack([H[0], np.ones(24)]), P)
    assert abs(flat[0, 1]) < 1e-12


def test_effects_refuse():
    H = tuning(THETA)
    with pytest.raises(InputError, match="do not fit"):
        effects(H, H[:3], P, 0.0, THETA)
    with pytest.raises(InputError, match="NaN"):
        effects(H, H * np.nan, P, 0.0, THETA)
    with pytest.raises(InputError, match="No neuron answers"):
        effects(H, 0 * H, P, 0.0, THETA)


def test_what_all_neurons_share_cannot_tell_ensembles_apart():
    ring = ring_network(24)
    one, other = uniform_gain(ring, uniform(24)), uniform_gain(ring, P)
    np.testing.assert_allclose(one, other, atol=1e-7)
    np.testing.assert_allclose(one, ring.adapt(uniform(24)), atol=1e-6)
    spent = ring.cost(0.6 * np.ones(24), P).activity
    np.testing.assert_allclose(uniform_gain_of_activity(ring, P, spent), 0.6, atol=1e-10)
    with pytest.raises(InputError, match="spends an activity"):
        uniform_gain_of_activity(ring, P, 1e-9)


def test_weber_gains_divide_by_the_mean():
    ring = ring_network(24, excitation=0.0)
    before = ring.adapt(uniform(24))
    after = weber_gains(ring, P, uniform(24), before)
    means = ring.steady(after) @ P  # without recurrence they come out alike
    np.testing.assert_allclose(means, means[0], rtol=1e-12)


def test_normalisation_by_loops_and_its_optimum():
    rng = np.random.default_rng(1)
    F, pool, w = rng.random((3, 4)), rng.random((3, 3)), rng.random(3)
    model = Normalisation(F, pool, 0.4, 1.5, 2.0)
    H = model.respond(w)
    below = 0.4**1.5 + sum(pool[1, j] * w[j] * F[j, 2] ** 1.5 for j in range(3))
    assert H[1, 2] == pytest.approx(2.0 * F[1, 2] ** 1.5 / below)
    p, D = uniform(4), rng.standard_normal((3, 3))

    def loss(weights):
        h = model.respond(weights)
        return (p * ((F - D @ h) ** 2 + 0.7 * h**2).sum(axis=0)).sum() + 2.4 * ((weights - 1) ** 2).sum()

    best = model.adapt(p, D)
    assert best.min() > 0
    slope = [(loss(best + e) - loss(best - e)) / 2e-5 for e in 1e-5 * np.eye(3)]
    np.testing.assert_allclose(slope, 0, atol=1e-5)
    with pytest.raises(InputError, match="all are positive"):
        Normalisation(F, pool, sigma=0.0)


def test_normalisation_starts_like_the_network_and_weights_follow_co_activity():
    ring = ring_network(12)
    model = fit_normalisation(ring, uniform(12))

    def distance(*constants):
        return ((Normalisation(ring.F, model.pool, *constants).respond() - ring.steady()) ** 2).sum()

    least = min(distance(s, n, c) for s in np.linspace(0.2, 1, 9) for n in (1.0, 1.5, 2.0) for c in np.linspace(1, 6, 26))
    assert distance(model.sigma, model.exponent, model.scale) <= least
    np.testing.assert_allclose(model.co_activity(uniform(12), uniform(12)), 1)
    weights = model.co_activity(biased(12, 6), uniform(12))
    assert weights.argmax() == 6 * 12 + 6
    np.testing.assert_allclose(model.decoder(uniform(12)) @ model.respond(), ring.F, atol=1e-3)


def test_synapses_at_their_optimum():
    ring, p = ring_network(6), biased(6, 2)
    W = adapt_synapses(ring, p)

    def loss(weights):
        H = np.linalg.solve(np.eye(6) - weights, ring.F)
        costs = ((ring.F - ring.D @ H) ** 2 + 0.7 * H**2).sum(axis=0)
        return (p * costs).sum() + 2.4 * ((weights - ring.W) ** 2).sum()

    slope = np.zeros((6, 6))
    for i, j in np.ndindex(6, 6):
        step = np.zeros((6, 6))
        step[i, j] = 1e-5
        slope[i, j] = (loss(W + step) - loss(W - step)) / 2e-5
    np.testing.assert_allclose(slope, 0, atol=1e-5)
    assert loss(W) < loss(ring.W)


@pytest.mark.parametrize("degrees", [0, 30, 90, 150])
def test_orientations_of_a_grating(degrees):
    y, x = np.mgrid[:80, :90]
    across = np.deg2rad(degrees) + np.pi / 2
    picture = np.sin(0.4 * (x * np.cos(across) + y * np.sin(across)))
    p = image_orientations(np.repeat(picture[:, :, None], 3, axis=2), 12)
    assert p.sum() == pytest.approx(1)
    assert p[degrees // 15] > 0.9


def test_pictures_refused():
    with pytest.raises(InputError, match="16 pixels"):
        image_orientations(np.ones((10, 40)), 12)
    with pytest.raises(InputError, match="no edges"):
        image_orientations(np.ones((40, 40)), 12)


def recorded(stimuli=12):
    ring, p = ring_network(6, stimuli), biased(stimuli, stimuli // 2)
    before, after = (ring.steady(ring.adapt(each)) for each in (uniform(stimuli), p))
    return AdaptedPopulation(grid(stimuli), p, before, after, np.pi / 2, "six")


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_files_come_back(tmp_path, suffix):
    given = recorded()
    write_population(given, tmp_path / f"six{suffix}")
    (read,) = read_population(tmp_path / f"six{suffix}")
    for name in ("orientations", "ensemble", "before", "after"):
        np.testing.assert_allclose(getattr(read, name), getattr(given, name), atol=1e-12)
    assert read.adapter == pytest.approx(np.pi / 2)
    assert read.effects().summary() == pytest.approx(given.effects().summary(), abs=1e-6)


def test_the_layout_of_benuccis_file(tmp_path):
    """21 orientations from -90 to 90 degrees, the first and the last of them the same."""
    rng = np.random.default_rng(0)
    cells = np.empty((11, 1), object)
    for k in range(11):
        cells[k, 0] = rng.random((13, 21, 2))
    savemat(tmp_path / "BenucciTuningData.mat", {"resps": cells})
    sessions = read_population(tmp_path / "BenucciTuningData.mat")
    assert len(sessions) == 11
    assert sessions[1].before.shape == (13, 20)
    assert sessions[1].ensemble.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.rad2deg(sessions[0].orientations), 9 * np.arange(20), atol=1e-9)
    np.testing.assert_allclose(sessions[0].after[:, 0], cells[0, 0][:, 10, 1])  # the adapter, at 0 degrees
    np.testing.assert_allclose(sessions[0].after[:, 10], cells[0, 0][:, [0, 20], 1].mean(axis=1))
    assert sessions[9].ensemble[0] == pytest.approx(0.15)
    np.testing.assert_allclose(adapter_ensemble(21, 0.3)[9:12], [0.075, 0.15, 0.075])


def test_share_of_a_change():
    given = recorded()
    assert explained_change(given, given.after) == 1
    assert explained_change(given, given.before) == 0


def test_files_refused(tmp_path):
    def refused(name, said, **arrays):
        file = tmp_path / name
        if arrays:
            np.savez(file, **arrays)
        with pytest.raises(DataError, match=said):
            read_population(file)

    good = {
        "orientations": np.arange(0, 180, 15.0),
        "ensemble": uniform(12),
        "before": np.ones((3, 12)),
        "after": np.ones((3, 12)),
    }
    refused("none.npz", "is no file")
    refused("a.npz", "no array 'after'", **{k: v for k, v in good.items() if k != "after"})
    refused("b.npz", "all stimuli are alike", **good)
    refused("c.npz", "sums to 2", **good | {"ensemble": 2 * uniform(12), "adapter": 0.0})
    refused("d.npz", "after holds NaN", **good | {"after": np.full((3, 12), np.nan), "adapter": 0.0})
    refused("e.npz", "have the shapes", **good | {"after": np.ones((3, 11)), "adapter": 0.0})
    refused("f.npz", "1 neurons", **good | {"before": np.ones((1, 12)), "after": np.ones((1, 12)), "adapter": 0.0})
    refused("h.npz", "different orientations", **good | {"orientations": 90.0 * np.arange(12), "adapter": 0.0})
    refused("i.npz", "one row of each", **good | {"ensemble": np.ones((2, 6)), "adapter": 0.0})
    refused("g.npz", "no readable", **good | {"before": np.array([None])})
    texts = {
        "a.csv": ("orientation,ensemble\n", "1 rows"),
        "b.csv": ("orientation,ensemble,before_a\n0,1,1\n", "no column 'after_a'"),
        "c.csv": ("orientation,ensemble,before_a,after_a,depth\n0,1,1,1,1\n", "column 'depth'"),
        "d.csv": ("orientation,ensemble,before_a,after_a\n0,1,1\n", "row 2: 3 values in 4 columns"),
        "e.csv": ("orientation,ensemble,before_a,after_a\n0,1,1,x\n", "'after_a' holds something that is no number"),
        "f.csv": ("orientation,ensemble,before_a,before_a\n0,1,1,1\n", "names a column twice"),
        "a.txt": ("", "ends in '.txt'"),
        "a.mat": ("nothing", "no readable .mat"),
    }
    for name, (text, said) in texts.items():
        (tmp_path / name).write_text(text)
        refused(name, said)
    savemat(tmp_path / "b.mat", {"other": np.ones(3)})
    refused("b.mat", "no cell array 'resps'")
    with pytest.raises(InputError, match=r"ends in '\.txt'"):
        write_population(recorded(), tmp_path / "out.txt")
