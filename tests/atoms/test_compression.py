"""Descriptors, entropies and choices, against the authors' program and closed forms."""

import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.atoms.compression import compress, select, structure_entropies
from broadsheet.atoms.environments import bandwidth, describe, describe_all, diversity, entropy, novelty, overlap
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
    for method in ("cover", "random", "mean_fps", "k_means", "fps", "cover_mean"):
        found = select(environments, 5, method, seed=3).indices
        assert len(set(found.tolist())) == 5
        assert (found == select(environments, 5, method, seed=3).indices).all()
    assert len(compress(cells, 0.3).indices) == 4
    assert 1 <= len(compress(cells).indices) <= 12


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
