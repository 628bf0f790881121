"""Descriptors, entropies and choices, against the authors' program and closed forms."""

import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from broadsheet.atoms.compression import Method, best_size, compress, select, structure_entropies
from broadsheet.atoms.environments import (
    EnvironmentSet,
    bandwidth,
    describe,
    describe_all,
    diversity,
    entropy,
    log_density,
    novelty,
    overlap,
)
from broadsheet.atoms.parts import select_in_parts
from broadsheet.errors import InputError

REFERENCE = Path(__file__).parents[1] / "references" / "atoms" / "quests.npz"


@pytest.fixture(scope="module")
def reference():
    sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
    from references_atoms import cells

    with np.load(REFERENCE) as kept:
        return describe_all(cells()), dict(kept)


def test_descriptors_and_information_are_those_of_the_authors(reference):
    ours, theirs = reference
    np.testing.assert_allclose(ours.X, theirs["X"], atol=1e-10)
    np.testing.assert_allclose(entropy(ours.X), theirs["entropy"], atol=1e-9)
    np.testing.assert_allclose(diversity(ours.X), theirs["diversity"], atol=1e-9)
    np.testing.assert_allclose(structure_entropies(ours), theirs["own"], atol=1e-9)
    finite = np.isfinite(theirs["novelty"])
    np.testing.assert_allclose(novelty(ours.X[:50], ours.X[100:])[finite], theirs["novelty"][finite], atol=1e-7)


def test_the_cover_is_that_of_the_authors(reference):
    ours, theirs = reference
    assert select(ours, 8, underflow=True).indices.tolist() == theirs["picks"].tolist()


def test_choices_in_parts_keep_what_is_rare(reference):
    ours, _ = reference
    whole = select(ours, 4)
    parts = select_in_parts(ours, 4, part=60)
    assert len(set(parts.indices.tolist())) == 4
    assert overlap(ours.X, ours.of(parts.indices).X, 0.1) >= 0.9 * overlap(ours.X, ours.of(whole.indices).X, 0.1)
    assert select_in_parts(ours, 4).indices.tolist() == whole.indices.tolist()
    at_random = select_in_parts(ours, 4, "random")
    assert at_random.indices.tolist() == select(ours, 4, "random").indices.tolist()


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(0, 10**6))
def test_bounds(n, seed):
    X = np.random.default_rng(seed).standard_normal((n, 5)) * 0.02
    assert -1e-9 <= entropy(X) <= np.log(n) + 1e-9
    assert -1e-9 <= diversity(X) <= np.log(n) + 1e-9
    assert novelty(X, X).max() <= 1e-9
    assert overlap(X, X) == 1


def test_every_sampler_chooses_as_many_as_asked():
    cells = [bulk("Cu", cubic=True, a=3.5 + 0.02 * k) for k in range(12)]
    environments = describe_all(cells)
    for method in get_args(Method):
        found = select(environments, 5, method, seed=3).indices
        assert len(set(found.tolist())) == 5
        assert (found == select(environments, 5, method, seed=3).indices).all()
    assert len(compress(cells, 0.3).indices) == 4
    assert 1 <= len(compress(cells).indices) <= 12


def line(*structures):
    """Environments with one number each."""
    X = np.array([number for each in structures for number in each])[:, None]
    return EnvironmentSet(X, np.repeat(np.arange(len(structures)), [len(each) for each in structures]))


def test_samplers_on_a_line_choose_what_they_look_at():
    """After the first structure: the second has one environment far away, 9 from the nearest; all of the third are 5 away."""
    environments = line([0.0, 2.0, 4.0, 6.0], [0.0, 0.0, 0.0, 15.0], [11.0, 11.0, 11.0, 11.0])
    for method, second in (("cover", 1), ("environment_fps", 1), ("novelty_mean", 2), ("fps", 2)):
        assert select(environments, 2, method, h=1.0).indices.tolist() == [0, second], method
    assert select(environments, 3, "entropy", h=1.0).indices.tolist() == [0, 1, 2]


def test_the_best_size_is_where_the_product_peaks_and_not_the_end_of_a_grid():
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((5, 6))
    copies = EnvironmentSet(kinds[np.r_[0:5, np.zeros(95, int)]], np.arange(100))
    assert best_size(copies, np.arange(100)) == 5  # H = D = log 5; later picks add copies, and H falls
    apart = EnvironmentSet(rng.standard_normal((20, 6)), np.arange(20))
    assert best_size(apart, np.arange(20)) == 20
    with pytest.raises(InputError, match="at least 3"):
        best_size(apart, np.arange(20), grid=2)


def test_elements_tell_apart_what_distances_do_not():
    salt, swapped = bulk("NaCl", "rocksalt", a=5.64, cubic=True), bulk("ClNa", "rocksalt", a=5.64, cubic=True)
    plain = [describe(each, 12) for each in (salt, swapped)]
    np.testing.assert_allclose(*plain, atol=1e-12)
    found = [describe(each, 12, elements=("Cl", "Na")) for each in (salt, swapped)]
    assert found[0].shape == (8, 3 * 23 + 2)
    np.testing.assert_allclose(found[0][:, :23], plain[0], atol=1e-12)
    assert np.linalg.norm(found[0] - found[1], axis=1).min() > 1
    # with one element's atoms alone as neighbours: those of the lattice without the other, for its own atoms
    alone = describe(salt[salt.symbols == "Na"], 12)
    np.testing.assert_allclose(found[0][salt.symbols == "Na"][:, 46:69], alone, atol=1e-12)
    np.testing.assert_array_equal(found[0][:, 69:], np.array([salt.symbols == "Cl", salt.symbols == "Na"]).T)
    hydrogen, nitrogen = molecule("H2"), molecule("H2")
    nitrogen.symbols[:] = "N"
    kinds = describe_all([hydrogen, nitrogen, hydrogen], elements=("H", "N"))
    np.testing.assert_allclose(diversity(kinds.X), np.log(2), atol=1e-12)
    assert select(kinds, 2).indices.tolist() in ([0, 1], [1, 0])
    with pytest.raises(InputError, match="structure 1 has \\['O'\\]"):
        describe_all([hydrogen, molecule("H2O")], elements=("H",))
    with pytest.raises(InputError, match="once"):
        describe(hydrogen, elements=("H", "H"))


def test_sums_over_more_than_one_block():
    Y, X = np.split(np.random.default_rng(0).standard_normal((1520, 4)), [20])
    square = ((Y[:, None] - X) ** 2).sum(axis=2)
    for h in (1.0, 0.01):
        np.testing.assert_allclose(log_density(Y, X, h), logsumexp(-square / (2 * h**2), axis=1), rtol=1e-9)


def test_bandwidths_at_known_volumes():
    np.testing.assert_allclose(bandwidth(1e9), 0.0119417)
    np.testing.assert_allclose(bandwidth(1.0, "cutoff"), 0.086164 + 0.016)


def test_bad_requests():
    environments = describe_all([molecule("H2O"), molecule("CO2")])
    with pytest.raises(InputError, match="3 of 2"):
        select(environments, 3)
    with pytest.raises(InputError, match="Only 'cover'"):
        select(environments, 1, "random", reference=environments.X)
    with pytest.raises(InputError, match="fraction"):
        compress([molecule("H2O")], 0.0)
    with pytest.raises(InputError, match="at least 2"):
        describe(molecule("H2O"), 1)
    with pytest.raises(InputError, match="must be finite"):
        novelty(environments.X * np.nan, environments.X)
    with pytest.raises(InputError, match="width"):
        entropy(environments.X, 0.0)


def apart(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def chosen_by_hand(method, parts, size, h, reference=None, cap=np.inf):
    """Indices and novelties, each pick from all distances again."""
    own = np.array([np.log(len(x)) - logsumexp(-(apart(x, x) ** 2) / (2 * h**2), axis=1).mean() for x in parts])
    picks, trace = ([int(own.argmax())], [np.inf]) if reference is None else ([], [])
    while len(picks) < size:
        seen = [*([] if reference is None else [reference]), *(parts[k] for k in picks)]
        if method in ("cover", "novelty_mean"):
            novelties = [-logsumexp(-(apart(x, np.concatenate(seen)) ** 2) / (2 * h**2), axis=1) for x in parts]
            score = np.array([each.max() if method == "cover" else each.mean() for each in novelties])
            score = np.where(score > cap, np.inf, score)
            value = score + own
        elif method == "environment_fps":
            score = value = np.array([apart(x, np.concatenate(seen)).min(axis=1).max() for x in parts])
        else:
            score = np.array([min(apart(x, each).mean() for each in seen) for x in parts])
            value = score * own if method == "cover_mean" else score
        value = np.where(np.isin(np.arange(len(parts)), picks), -np.inf, value)
        picks.append(int(value.argmax()))
        trace.append(score[picks[-1]])
    return picks, trace


@pytest.mark.parametrize("method", ["cover", "novelty_mean", "fps", "cover_mean", "environment_fps"])
def test_structures_of_any_size_are_chosen_as_by_hand(method):
    rng = np.random.default_rng(0)
    parts = [2 * rng.standard_normal((n, 2)) for n in rng.integers(1, 4, 72)]
    environments = EnvironmentSet(np.concatenate(parts), np.repeat(np.arange(72), [len(each) for each in parts]))
    told, size = [], 68 if method == "cover" else 12
    found = select(environments, size, method, h=0.6, report=told.append)
    picks, trace = chosen_by_hand(method, parts, size, 0.6)
    assert found.indices.tolist() == picks
    if method in ("cover", "novelty_mean"):
        np.testing.assert_allclose(found.novelty, trace, rtol=1e-9, atol=1e-9)
        assert told == [*([65 / 68] if size > 65 else []), 1.0]
    if method == "cover":
        known = rng.standard_normal((5, 2))
        found = select(environments, 6, reference=known, h=0.6)
        picks, trace = chosen_by_hand(method, parts, 6, 0.6, known)
        assert found.indices.tolist() == picks
        np.testing.assert_allclose(found.novelty, trace, rtol=1e-9)
        found = select(environments, 6, h=0.04, underflow=True)
        picks, trace = chosen_by_hand(method, parts, 6, 0.04, cap=745.1332191)
        assert found.indices.tolist() == picks
        assert np.isinf(trace[1:]).any()
        np.testing.assert_allclose(found.novelty, trace)


def test_means_that_are_far_and_one_of_each_cluster():
    means = np.array([[0.0], [1.0], [10.0], [11.0], [30.0], [31.5]])
    environments = line(*([x[0] - 0.1, x[0] + 0.1] for x in means))
    first = int(np.random.default_rng(7).integers(6))
    picks = [first]
    while len(picks) < 4:
        picks.append(int(apart(means, means[picks]).min(axis=1).argmax()))
    assert select(environments, 4, "mean_fps", seed=7).indices.tolist() == picks
    assert sorted(select(environments, 3, "k_means").indices // 2) == [0, 1, 2]
    same = line([0.0], [0.0], [5.0], [0.0], [5.0])
    assert sorted(select(same, 5, "k_means").indices) == [0, 1, 2, 3, 4]  # fewer kinds than are asked for
    for method in ("random", "mean_fps", "k_means"):
        np.testing.assert_array_equal(select(environments, 3, method).indices, select(environments, 3, method, seed=0).indices)


def test_parts_are_thinned_until_one_is_left():
    environments, told = line(*([float(k**2)] for k in range(12))), []
    found = select_in_parts(environments, 2, part=3, h=1.0, report=told.append)
    assert told == [1 / 6, 2 / 6, 3 / 6, 1.0]  # three parts keep six, of which two are chosen in one
    assert len(set(found.indices.tolist())) == 2
    assert found.novelty[0] == np.inf
    asked = []

    def mapped(function, tasks):
        asked.append([task[0].structures for task in tasks])
        return [function(task) for task in tasks]

    select_in_parts(environments, 1, part=3, h=1.0, mapped=mapped)
    assert asked == [[3, 3, 3, 3], [2, 2]]


def test_descriptors_as_they_come_see_32_neighbours_within_5_angstrom():
    for distance, seen in ((4.99, True), (5.01, False)):
        found = describe(Atoms("H2", [[0, 0, 0], [0, 0, distance]]))
        assert found.shape == (2, 63)
        assert found.any() == seen
    cross = Atoms("H5", [[0, 0, 0], [2, 0, 0], [-2, 0, 0], [0, 2, 0], [0, -2, 0]])
    weight = (1 - (2 / 5) ** 2) ** 2  # of four that are as near, all count, however few are asked for
    np.testing.assert_allclose(describe(cross, 2)[0], [weight / 2, weight / 2, weight / 8**0.5])
    two = describe(cross, 2, whole_shells=False)[0]
    np.testing.assert_allclose(two[:2], weight / 2)
    assert two[2] in (pytest.approx(weight / 8**0.5), pytest.approx(weight / 4))
    many = describe_all([cross] * 300, 2)
    assert many.structures == 300
    np.testing.assert_allclose(many.X, np.tile(describe(cross, 2), (300, 1)))
    assert many.of([7, 2]).owner.tolist() == [0] * 5 + [1] * 5


def test_bandwidths_between_their_limits():
    np.testing.assert_allclose(bandwidth(10.896 * 2**0.5), 0.0897141 / np.e + 0.0119417)
    np.testing.assert_allclose(bandwidth(np.exp((11.61172 / 2) ** 0.5), "cutoff"), 0.086164 * 0.75**2 + 0.016)
    np.testing.assert_allclose(bandwidth(1e3, "cutoff"), 0.016)


def test_entropies_and_overlaps_of_points_by_hand():
    X = np.array([[0.0], [0.015], [10.0]])
    near = 1 + np.exp(-0.5)
    assert entropy(X) == pytest.approx(np.log(3) - 2 * np.log(near) / 3)
    assert diversity(X) == pytest.approx(np.log(1 + 2 / near))
    np.testing.assert_allclose(novelty(X[1:], X[:1]), [0.5, (10 / 0.015) ** 2 / 2])
    just = np.sqrt(2e-5) * 0.015  # as far as the limit
    assert [overlap(np.array([[part * just]]), X[:1]) for part in (0.99, 1.01)] == [1, 0]
    np.testing.assert_allclose(structure_entropies(EnvironmentSet(X, np.array([0, 0, 1]))), [np.log(2 / near), 0], atol=1e-12)


def test_what_is_compressed_keeps_its_order_and_all_of_it_may_stay():
    cells = [bulk("Cu", cubic=True, a=3.5 + 0.02 * k) for k in range(6)]
    whole, some = compress(cells, 1.0, h=0.01), compress(cells, "auto", h=0.01)
    assert sorted(whole.indices) == list(range(6))
    assert whole.novelty.shape == (6,)
    assert some.indices.tolist() == whole.indices[: len(some.indices)].tolist()
    assert len(some.novelty) == len(some.indices)
    assert compress(cells, method="random").novelty is None
    for fraction in (0.0, 1.01):
        with pytest.raises(InputError, match="fraction"):
            compress(cells, fraction)
