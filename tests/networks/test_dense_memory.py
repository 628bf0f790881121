"""Dense memories against sums over all sets of neurons, exact averages over all states, and plain loops."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from broadsheet.dynamics import rollout
from broadsheet.errors import DataError, InputError
from broadsheet.networks.dense_memory import (
    LANES,
    DenseHebbian,
    ExampleSet,
    archetypes,
    corrupted,
    coupling_noise,
    random_order,
    sign_overlap,
    stored_numbers,
)
from broadsheet.networks.memory_baselines import PairwiseBank, nearest, overlaps, softmax_recall
from broadsheet.networks.pattern_memory import answers, check_patterns, measure_capacity, read_patterns

RNG = np.random.default_rng(0)
field_and_energy = eqx.filter_jit(lambda net, sigma: (net.field(sigma), net.energy(sigma)))
field = eqx.filter_jit(lambda net, sigma: net.field(sigma))
step = eqx.filter_jit(lambda net, *given: net.step(*given))


def sums(x, sigma, order, noise=None, size=0.0):
    """Field and energy by a loop over sets of neurons."""
    neurons = len(sigma)
    h, energy = np.zeros(neurons), 0.0
    for members in itertools.combinations(range(neurons), order):
        coupling = np.prod(x[:, members], axis=1).sum() + (0 if noise is None else size * noise[members])
        product = coupling * np.prod(sigma[list(members)]) / neurons ** (order - 1)
        energy -= product
        for i in members:
            h[i] += math.factorial(order - 1) * product / sigma[i]
    return h, energy


@pytest.mark.parametrize(("order", "signs"), [(2, True), (3, True), (3, False), (4, True), (4, False), (5, False)])
def test_field_and_energy_are_sums_over_sets_of_neurons(order, signs):
    x = archetypes(1, 5, 7).astype(float) if signs else RNG.standard_normal((5, 7))
    noise = coupling_noise(2, 7, order, np.float64)
    sigma = RNG.choice([-1.0, 1.0], 7)
    with jax.enable_x64(True):
        net = DenseHebbian(x, order, noise=noise, noise_scale=0.7)
        mean = np.where(sigma > 0, 0.3, -0.8)  # means of spins as well
        for state in (sigma, mean):
            h, energy = sums(x, state, order, noise, 0.7)
            found = field_and_energy(net, state)
            np.testing.assert_allclose(found[0], h, atol=1e-13)
            assert float(found[1]) == pytest.approx(energy, abs=1e-13)
    assert net.signs == signs


def test_a_large_field_by_blocks_is_that_of_a_recursion(monkeypatch):
    x, sigma = RNG.standard_normal((7, 400)), RNG.choice([-1.0, 1.0], 400)
    e = np.zeros((4, 7), np.longdouble)
    e[0] = 1
    for u in np.delete(x * sigma, 3, axis=1).T:
        e[1:] += u * e[:-1]
    monkeypatch.setattr("broadsheet.networks.dense_memory.BLOCK", 900)  # two patterns a block
    with jax.enable_x64(True):
        h = np.asarray(field(DenseHebbian(x), sigma))[3]
    assert float(h) == pytest.approx(float(6 * (x[:, 3] * e[3]).sum() / 400**3), rel=1e-12)


def test_sums_with_repeated_indices():
    x, sigma = RNG.standard_normal((3, 6)), RNG.choice([-1.0, 1.0], 6)
    with jax.enable_x64(True):
        net = DenseHebbian(x, 3, distinct=False)
        y = x @ sigma / 6
        found = field_and_energy(net, sigma)
        np.testing.assert_allclose(found[0], y**2 @ x, atol=1e-13)
        assert float(found[1]) == pytest.approx(-6 * np.sum(y**3) / 6)


def test_a_sweep_follows_the_field_and_never_raises_the_energy():
    x = ExampleSet(archetypes(3, 4, 9), 0.6, 5).means(4)
    net = DenseHebbian(x, 3)
    sigma, key = archetypes(5, 1, 9)[0].astype(np.float32), jax.random.key(1)
    after, _ = step(net, jnp.asarray(sigma), None, key)
    for i in random_order(jax.random.uniform(key, (2, 9))[0]):
        h = sums(x, sigma, 3)[0][i]
        before = sums(x, sigma, 3)[1]
        sigma[i] = np.sign(h)
        assert sums(x, sigma, 3)[1] <= before + 1e-9
    np.testing.assert_array_equal(after, sigma)


@pytest.mark.parametrize(("flips", "count"), [(0.05, 6), (0.5, 6), (0.5, LANES), (0.3, 9000)])
def test_sweeps_without_thermal_noise_are_those_of_a_loop(flips, count):
    """Near patterns and far from them, with fewer patterns than are summed side by side, as many, and very many."""
    key, sweeps = jax.random.key(3), 3
    x = RNG.choice([-1, 1], (count, 60)) * RNG.uniform(0.8, 1.2, (count, 60))
    start = np.where(RNG.random((4, 60)) < flips, -1, 1) * np.sign(x[:4])
    couplings = (x.T @ x - np.diag((x**2).sum(axis=0))) / 60
    net, ends, moved = DenseHebbian(x, 2), start.copy(), []
    for sweep in range(sweeps):
        before = ends.copy()
        for replica, spins in enumerate(ends):
            draws = jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, replica), sweep), (2, 60))
            for i in random_order(draws[0]):
                spins[i] = np.sign(couplings[i] @ spins)
        moved.append((ends != before).sum(axis=1).max())
        np.testing.assert_array_equal(net.glauber(key, start, sweep + 1), ends)
    assert max(moved) > 0
    np.testing.assert_array_equal(net.glauber(3, start, sweeps), ends)  # the key's seed
    np.testing.assert_array_equal(net.glauber(key, jnp.asarray(start[0]), 1), net.glauber(key, start[:1], 1)[0])


def test_a_neuron_with_a_field_of_0_stays():
    """Five patterns on nine neurons: whole numbers say where fields are 0, and the order then decides nothing."""
    x = archetypes(2, 5, 9).astype(int)
    start = np.array(list(itertools.product([-1, 1], repeat=9)))
    fields = start @ (x.T @ x - 5 * np.eye(9, dtype=int))
    still = (fields * start >= 0).all(axis=1)
    assert (fields[still] == 0).any()
    np.testing.assert_array_equal(DenseHebbian(x, 2).glauber(jax.random.key(0), start[still].astype(float), 3), start[still])


def test_all_orders_are_as_likely():
    orders = np.asarray(jax.vmap(random_order)(jax.random.uniform(jax.random.key(2), (24_000, 4))))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert (np.sort(orders, axis=1) == np.arange(4)).all()
    assert len(counts) == 24
    assert np.sum((counts - 1000) ** 2 / 1000) < 49.7  # chi² of 23 degrees of freedom, one in a thousand


def test_glauber_dynamics_has_the_boltzmann_distribution():
    x, temperature = RNG.standard_normal((3, 5)), 3.0
    states = np.array(list(itertools.product([-1.0, 1.0], repeat=5)))
    weights = np.exp([-sums(x, s, 3)[1] * 3 / temperature for s in states])  # beta = P! / (2 T')
    weights /= weights.sum()
    net = DenseHebbian(x, 3, temperature=temperature)
    start = np.tile(states, (48, 1))
    ends = np.asarray(net.glauber(jax.random.key(0), start, 40))
    found = np.array([np.mean((ends == s).all(axis=1)) for s in states])
    assert np.abs(found - weights).sum() < 0.2
    np.testing.assert_allclose(ends.mean(axis=0), weights @ states, atol=0.08)


def test_it_is_a_system_with_an_external_field_and_a_parallel_mode():
    x = RNG.standard_normal((3, 9))
    net = DenseHebbian(x, 3, sequential=False)
    start = archetypes(6, 1, 9)[0].astype(np.float32)
    state, spins = rollout(net, steps=3, state=jnp.asarray(start), key=jax.random.key(0))
    assert spins.shape == (3, 9)
    one = step(net, jnp.asarray(start), None, jax.random.key(0))[0]
    np.testing.assert_array_equal(one, np.sign(sums(x, start, 3)[0]))
    held, _ = step(net, jnp.asarray(start), np.full(9, 100.0, np.float32), jax.random.key(0))
    assert (np.asarray(held) == 1).all()
    assert jax.eval_shape(net.init, jax.random.key(1)).shape == (9,)


def test_plefkas_means_solve_their_equation_near_monte_carlo():
    xi = archetypes(7, 1250, 50)
    net = DenseHebbian(xi, 4, temperature=0.5)
    start = xi[0].astype(float)
    spins = net.glauber(jax.random.key(0), np.repeat(start[None], 32, axis=0), 6)
    found = []
    for k in range(1, 6):
        spins = net.glauber(jax.random.key(k), spins, 2)
        found.append(np.mean(np.asarray(spins) * start))
    full, naive = (np.asarray(net.plefka(start, 40, load=each), float) for each in (None, 0.0))
    y = xi @ full / 50
    q, twos, threes = np.mean(full**2), np.mean(full**2) / 50, xi @ full**3 / 50**3  # power sums of x m / N
    h = 6 * xi.T @ ((y**3 - 3 * y * twos + 2 * threes) / 6) - 3 * full / 50 * np.sum(y**2 - twos)
    h += 6 * (full / 50) ** 2 * (xi.T @ y) - 6 * (full / 50) ** 3 * len(xi)
    reaction = full * (1250 / 50**3) * 24 * 4 * 3 / 4 * q**2 * (1 - q) / 0.25
    np.testing.assert_allclose(np.arctanh(full), 2 * h / 0.5 - reaction, rtol=2e-3)
    assert np.mean(full * start) < np.mean(naive * start)
    assert np.mean(full * start) == pytest.approx(np.mean(found), abs=0.02)
    with pytest.raises(InputError, match="temperature is 0"):
        DenseHebbian(xi).plefka(start)


def test_examples_have_their_moments_and_averages_are_those_of_copies():
    xi = archetypes(8, 40, 500)
    examples = ExampleSet(xi, 0.4, 6)
    x, copies = examples.means(9), examples.copies(10)
    assert np.mean(x**2) == pytest.approx(1, abs=0.03)
    assert np.mean(x * xi) == pytest.approx(1 / math.sqrt(1 + examples.entropy), abs=0.02)
    of_copies = copies.mean(axis=1) / math.sqrt(0.16 + 0.84 / 6)
    assert set(np.unique(np.round(x, 6))) == set(np.unique(np.round(of_copies, 6)))
    assert np.mean(np.sign(x) * xi) == pytest.approx(sign_overlap(0.4, 6), abs=0.02)
    assert sign_overlap(0.3, 2001) == pytest.approx(erf(0.3 * math.sqrt(2001 / 2 / 0.91)), abs=1e-3)
    shown = corrupted(11, xi, 0.8)
    np.testing.assert_array_equal((shown != xi).sum(axis=1), 50)


def test_learned_without_a_teacher():
    copies = ExampleSet(archetypes(12, 2, 7), 0.5, 3).copies(13)
    sigma = RNG.choice([-1.0, 1.0], 7)
    wanted = sum(sums(copies[:, a].astype(float), sigma, 4)[0] for a in range(3)) / 3
    np.testing.assert_allclose(field(DenseHebbian.unsupervised(copies, 4), sigma), wanted, atol=1e-6)


def test_what_it_is_compared_with():
    xi = archetypes(14, 12, 40)
    cues = corrupted(15, xi, 0.6).astype(float)
    np.testing.assert_array_equal(nearest(xi, cues), xi)
    np.testing.assert_array_equal(softmax_recall(xi, cues, beta=2.0), xi)
    bank = PairwiseBank(xi, 4)
    assert bank.groups == 12
    assert bank.networks == stored_numbers(40, 4) // stored_numbers(40, 2)
    np.testing.assert_array_equal(bank.recall(cues), xi)  # one pattern a network
    whole = PairwiseBank(xi[:2], 4, groups=1)
    np.testing.assert_allclose(whole.couplings[0], (xi[:2].T @ xi[:2] - 2 * np.eye(40)) / 40)
    np.testing.assert_array_equal(overlaps(xi, xi), 1)
    with pytest.raises(InputError, match="groups"):
        PairwiseBank(xi, 4, groups=13)


@pytest.mark.parametrize(
    ("patterns", "options", "said"),
    [
        (np.ones((2, 5)), {"order": 1}, "order is 1"),
        (np.ones((2, 5)), {"order": 6}, "5 neurons"),
        (np.ones(5), {}, "shape"),
        (np.full((2, 5), np.nan), {}, "finite"),
        (np.ones((2, 5)), {"temperature": -1.0}, "temperature"),
    ],
)
def test_nonsense_is_refused(patterns, options, said):
    with pytest.raises(InputError, match=said):
        DenseHebbian(patterns, **options)


def test_spins_and_tensors_of_the_wrong_size_are_refused():
    with pytest.raises(InputError, match="5 neurons are wanted"):
        DenseHebbian(np.ones((2, 5))).glauber(jax.random.key(0), np.ones((3, 4)), 1)
    with pytest.raises(InputError, match="too large"):
        coupling_noise(0, 1000, 4)


def test_capacity_beside_theory():
    found = measure_capacity(20, 16, 4, points=(0.25, 1.0), cues=4, sweeps=5)
    assert found.most == pytest.approx(0.0329767 * 16**3, rel=1e-3)
    assert len(found.counts) == len(found.measured) == 2
    pair = measure_capacity(20, 16, 2, points=(1e9,), sweeps=1)
    assert (pair.limit, pair.counts) == (0.138, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,-1,1\n1,2,-1\n", "row 2: number 2 is 2"),
        ("1,-1,0\n", "number 3 is 0"),
        ("1,nan\n", "number 2 is nan"),
        ("1\n-1\n", "one neuron"),
        ("1,0,1\n1,0\n", "line 2: 2 cells"),
        ("a,b\n1,x\n", "line 2, column b: 'x' is no number"),
        ("", "is empty"),
        ("a,b\n", "no patterns"),
    ],
)
def test_files_that_hold_no_patterns_are_refused(tmp_path, text, said):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_patterns(path)


def test_patterns_are_read_and_checked(tmp_path):
    xi = archetypes(16, 5, 6)
    path = tmp_path / "p.csv"
    path.write_text("a,b,c,d,e,f\n" + "\n".join(",".join(str((each + 1) // 2) for each in row) for row in xi))
    np.testing.assert_array_equal(read_patterns(path), xi)
    np.save(tmp_path / "p.npy", xi)
    np.testing.assert_array_equal(read_patterns(tmp_path / "p.npy", neurons=6), xi)
    np.savez(tmp_path / "two.npz", a=xi, b=xi)
    with pytest.raises(DataError, match="one array"):
        read_patterns(tmp_path / "two.npz")
    with pytest.raises(DataError, match="7 are wanted"):
        read_patterns(path, neurons=7)
    with pytest.raises(DataError, match="rows 2 and 4"):
        check_patterns("p", xi[[0, 1, 2, 1]], 3)
    with pytest.raises(InputError, match="groups of 7"):
        check_patterns("p", xi, 7)
    with pytest.raises(InputError, match="order is 1"):
        check_patterns("p", xi, 1)


def test_answers_name_the_nearest_pattern_and_how_much_of_it_was_found():
    """Three of Sylvester's orthogonal patterns: each is its own answer, found whole, whatever their number is."""
    pair = np.asarray([[1, 1], [1, -1]], np.int8)
    patterns = np.kron(np.kron(pair, pair), pair)[[1, 2, 4]]
    found, best, overlap = answers(patterns, patterns[[2, 0]], 2)
    np.testing.assert_array_equal(found, patterns[[2, 0]])
    assert (best.tolist(), overlap.tolist()) == ([2, 0], [1.0, 1.0])
