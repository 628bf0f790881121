"""Binary memories against plain loops and closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.networks.willshaw import (
    Willshaw,
    bit_density,
    largest_load,
    spurious_units,
    spurious_units_by_usage,
)
from broadsheet.numerics.sparse_codes import SparseCode

CODE = SparseCode(40, 4)


def pairs(count):
    return CODE.draw(jax.random.key(1), count), CODE.draw(jax.random.key(2), count)


def loop(x, y, auto=False):
    weights = np.zeros((40, 40), bool)
    for one, other in zip(np.asarray(x), np.asarray(y), strict=True):
        for i in one:
            for j in other:
                weights[i, j] |= not (auto and i == j)
    return weights


@pytest.mark.parametrize("auto", [False, True])
def test_storing_is_the_union_of_pairs(auto, monkeypatch):
    x, y = pairs(12)
    y = x if auto else y
    memory = Willshaw(40, 40, auto=auto)
    expected = loop(x, y, auto)
    stored = eqx.filter_jit(lambda memory: memory.store(x, y))(memory)
    assert np.array_equal(stored.weights, expected)
    monkeypatch.setattr("broadsheet.networks.willshaw.DENSE", 1)  # the same by a product of matrices
    dense, density = eqx.filter_jit(lambda memory: ((made := memory.store(x, y)).weights, made.density))(memory)
    assert np.array_equal(dense, expected)
    by_bits, store_bits = memory, eqx.filter_jit(lambda memory, *pair: memory.store_bits(*pair))
    for one, other in zip(x, CODE.bits(y), strict=True):
        by_bits = store_bits(by_bits, one, other)
    assert np.array_equal(by_bits.weights, expected)
    assert float(density) == pytest.approx(expected.sum() / (40 * 39 if auto else 1600))


def test_recall_both_ways_and_masks():
    x, y = pairs(6)

    @eqx.filter_jit
    def stored(memory):
        memory = memory.store(x, y)
        return memory.weights, memory.recall(x, 4), memory.drive_back(y[0])

    _, (found, drive), back = stored(Willshaw(40, 40))
    assert np.array_equal(np.sort(found), np.sort(y))
    assert (np.asarray(drive) == 4).all()
    assert np.array_equal(back, loop(x, y)[:, np.asarray(y[0])].sum(1))
    masked = Willshaw(40, 40, 0.5, key=jax.random.key(0))
    assert np.array_equal(stored(masked)[0], loop(x, y) & np.asarray(masked.mask))


def test_closed_forms_are_what_is_counted():
    size, active, count = 300, 6, 1500
    code = SparseCode(size, active)
    x, y = code.draw(jax.random.key(3), count), code.draw(jax.random.key(4), count)
    memory = eqx.filter_jit(lambda memory: memory.store(x, y))(Willshaw(size, size))
    density = np.asarray(memory.weights).mean()
    assert density == pytest.approx(float(bit_density(count, size, size, active, active)), rel=0.01)
    counts = code.bits(x).astype(int) @ np.asarray(memory.weights).astype(int)
    spurious = (counts == active).sum(1).mean() - active
    assert spurious_units_by_usage(count, size, size, active) == pytest.approx(spurious, rel=0.1)
    assert float(spurious_units(size, active, density)) < spurious  # as if synapses were independent
    assert float(bit_density(largest_load(1000, 10), 1000, 1000, 10, 10)) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Willshaw(0, 5), "0 outputs"),
        (lambda: Willshaw(5, 5, 0.5), "with a key"),
        (lambda: Willshaw(5, 5).store(jnp.array([0, 1])), "x and y"),
        (lambda: Willshaw(5, 5).store(jnp.array([0, 7]), jnp.array([0, 1])), "outside 0 to 4"),
    ],
)
def test_mistakes(make, says):
    with pytest.raises(InputError, match=says):
        make()
