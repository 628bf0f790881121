"""k-of-N codes and k winners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.numerics.sparse_codes import SparseCode, k_winners, shared


def test_codes_have_k_different_units_and_overlap_by_chance():
    code = SparseCode(200, 10)
    drawn = code.draw(jax.random.key(0), 400)
    bits = code.bits(drawn)
    assert (bits.sum(axis=1) == 10).all()
    one_by_one = np.asarray(drawn)
    common = np.asarray(jax.jit(shared)(one_by_one[:-1], one_by_one[1:]))
    assert common.mean() == pytest.approx(10 * 10 / 200, abs=0.15)  # hypergeometric mean
    assert (common == (bits[:-1] & bits[1:]).sum(axis=1)).all()


def test_a_noisy_code_keeps_all_but_the_wrong_units():
    code = SparseCode(50, 8)
    item = code.draw(jax.random.key(1), 1)[0]
    for wrong in (1, 3):
        noisy = set(code.noisy(jax.random.key(2), item, wrong).tolist())
        assert len(noisy) == 8
        assert len(noisy & set(item.tolist())) == 8 - wrong


def test_winners_are_those_of_a_sort_and_ties_follow_the_key():
    drive = np.random.default_rng(3).standard_normal(100).astype(np.float32)
    winners = jax.jit(k_winners, static_argnums=1)
    assert sorted(winners(drive, 4).tolist()) == sorted(np.argsort(drive)[-4:].tolist())
    flat = np.zeros(100, np.float32)
    assert winners(flat, 4).tolist() == [0, 1, 2, 3]
    keyed = [tuple(winners(flat, 4, jax.random.key(seed)).tolist()) for seed in (0, 1)]
    assert keyed[0] != keyed[1]
    apart = np.where(np.arange(100) < 4, [0.0, 5.0, 1.0, 2.0] * 25, -1.0).astype(np.float32)
    assert winners(apart, 4, jax.random.key(0)).tolist() == [1, 3, 2, 0]


def test_projected_rows_that_are_alike_share_units():
    code = SparseCode(400, 20)
    rows = np.random.default_rng(0).normal(size=(3, 30))
    rows[1] = rows[0] + 0.1 * rows[1]
    one, near, far = (set(units) for units in np.asarray(jax.jit(code.project)(jax.random.key(0), rows)).tolist())
    assert len(one & near) > len(one & far)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SparseCode(10, 10), "between 1 and 9"),
        (lambda: k_winners(jnp.zeros(4), 5), "between 1 and 4"),
        (lambda: SparseCode(10, 2).project(jax.random.key(0), jnp.array([[np.nan, 1.0]])), "not finite"),
    ],
)
def test_mistakes(make, says):
    with pytest.raises(InputError, match=says):
        make()
