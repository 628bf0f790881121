"""Ranges, steps, codes and packing: against sums over all candidates, closed forms, and NumPy's own integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.errors import InputError
from broadsheet.numerics.gptq import gptq
from broadsheet.numerics.quantisation import (
    code_range,
    from_codes,
    pack,
    packed_bytes,
    search_grid,
    to_codes,
    unpack,
    whole_grid,
)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([2, 3, 4]), st.booleans(), st.booleans(), st.sampled_from([2.0, 2.4]),
    st.sampled_from([(3, 5), (2, 3, 2, 2)]), st.sampled_from([-2.0, 0.0, 3.0]),
)  # fmt: skip
def test_the_search_finds_what_trying_all_candidates_finds(seed, bits, symmetric, per_channel, power, shape, offset):
    w = np.random.default_rng(seed).normal(offset, 1, shape)
    grid = search_grid(w, bits, symmetric=symmetric, per_channel=per_channel, power=power, shares=20)
    last = 2**bits - 1
    for k, row in enumerate(w.reshape(shape[0], -1) if per_channel else w.reshape(1, -1)):
        low, high = min(row.min(), 0), max(row.max(), 0)
        whole = 2 * max(-low, high) if symmetric else high - low
        least = np.inf
        for share in range(1, 21):
            step = whole * share / 20 / last
            for zero in [2 ** (bits - 1)] if symmetric else range(last + 1):
                levels = (np.arange(last + 1) - zero) * step
                nearest = np.abs(row[:, None] - levels).min(axis=1)
                least = min(least, np.sum(nearest**power))
        mine = grid._replace(step=grid.step.reshape(-1)[k : k + 1], zero=grid.zero.reshape(-1)[k : k + 1])
        found = np.sum(np.abs(row - from_codes(to_codes(row, mine), mine)) ** power)
        assert found == pytest.approx(least, rel=1e-9, abs=1e-12)


def test_the_whole_range_is_kept_to_half_a_step():
    w = np.random.default_rng(0).normal(size=(4, 50))
    for bits in (2, 4, 8):
        grid = whole_grid(w, bits, symmetric=False, per_channel=True)
        assert grid.step.shape == (4, 1)
        assert np.all(np.abs(w - from_codes(to_codes(w, grid), grid)) <= grid.step * (1 + 1e-9))
    grid = whole_grid(np.array([-1.5, 0.3, 3.0]), 2, symmetric=False, per_channel=False)
    assert (grid.step, grid.zero) == (1.5, 1.0)
    grid = whole_grid(np.array([-1.5, 0.3, 3.0]), 2, symmetric=True, per_channel=False)
    assert (grid.step, grid.zero, grid.ends[0], grid.ends[1]) == (2.0, 0.0, -2, 1)


def test_halves_go_to_the_even_code():
    grid = whole_grid(np.array([-3.5, 3.5]), 3, symmetric=True, per_channel=False)._replace(step=np.array(1.0))
    assert to_codes(np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 9.0, -9.0]), grid).tolist() == [-2, -2, 0, 0, 2, 2, 3, -4]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.booleans(), st.lists(st.integers(0, 255), max_size=70))
def test_packed_codes_come_back(bits, symmetric, values):
    low, high = code_range(bits, symmetric)
    codes = low + np.array(values, int) % (high - low + 1)
    packed = pack(codes, bits, symmetric)
    assert packed.dtype == np.uint8
    assert len(packed) == packed_bytes(len(codes), bits) == -(-len(codes) * bits // 8)
    back = unpack(packed, codes.shape, bits, symmetric)
    assert back.dtype == (np.int8 if symmetric else np.uint8)
    assert np.array_equal(back, codes)


def test_the_layout_of_packed_codes_is_the_lowest_bits_first():
    assert pack(np.array([1, 15, 2, 3]), 4, False).tolist() == [1 + 16 * 15, 2 + 16 * 3]
    assert pack(np.array([1, 2, 3, 0]), 2, False).tolist() == [1 + 4 * 2 + 16 * 3]
    assert pack(np.arange(8), 3, False).tolist() == list(sum(k << 3 * k for k in range(8)).to_bytes(3, "little"))
    assert pack(np.array([-8, 7]), 4, True).tolist() == [16 * 15]
    assert np.array_equal(pack(np.array([-128, 127, 0]), 8, True), np.array([0, 255, 128]))


def test_what_cannot_be_quantised_is_refused():
    with pytest.raises(InputError, match="9 bits"):
        code_range(9, True)
    with pytest.raises(InputError, match="not finite"):
        search_grid(np.array([[1.0, np.nan]]), 4, symmetric=True, per_channel=False)
    with pytest.raises(InputError, match="empty"):
        whole_grid(np.zeros((0, 3)), 4, symmetric=True, per_channel=False)
    with pytest.raises(InputError, match="4 bits lies in"):
        pack(np.array([16]), 4, False)
    with pytest.raises(InputError, match="2 bytes hold no"):
        unpack(np.zeros(2, np.uint8), (5,), 4, False)


def _column_by_column(w, h, step, low, high, damping):
    """Optimal brain surgery written out: after each column the inverse of the Hessian that is left is made anew."""
    w, h = w.copy(), h + damping * np.mean(np.diag(h)) * np.eye(len(h))
    codes = np.zeros(w.shape, int)
    for k in range(w.shape[1]):
        inverse = np.linalg.inv(h[k:, k:])
        codes[:, k] = np.clip(np.round(w[:, k] / step), low, high)
        w[:, k:] -= np.outer(w[:, k] - step * codes[:, k], inverse[0] / inverse[0, 0])
    return codes


@pytest.mark.parametrize("block", [1, 4, 128])
def test_gptq_is_optimal_brain_surgery_in_a_fixed_order(block):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 11)) @ rng.normal(size=(11, 11))
    w = rng.normal(size=(5, 11))
    grid = search_grid(w, 3, symmetric=True, per_channel=False)
    codes = gptq(w, x.T @ x, grid, block=block)
    assert np.array_equal(codes, _column_by_column(w, x.T @ x, grid.step, -4, 3, 0.01))


def test_gptq_beats_rounding_on_its_inputs_and_leaves_silent_inputs_alone():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(500, 32)) @ rng.normal(size=(32, 32))
    x[:, 3] = 0.0
    w = rng.normal(size=(20, 32))
    grid = search_grid(w, 3, symmetric=False, per_channel=True)
    errors = [
        np.sum((x @ (from_codes(codes, grid) - w).T) ** 2)
        for codes in (to_codes(w, grid), gptq(w, x.T @ x, grid), gptq(w, x.T @ x, grid, by_size=True))
    ]
    assert errors[1] < 0.7 * errors[0]
    assert errors[2] < 0.7 * errors[0]
    assert np.all(from_codes(gptq(w, x.T @ x, grid), grid)[:, 3] == 0)
    with pytest.raises(InputError, match="second moment"):
        gptq(w, np.full((32, 32), np.nan), grid)


def test_gptq_takes_each_columns_own_group():
    rng = np.random.default_rng(5)
    w, x = rng.standard_normal((6, 12)), rng.standard_normal((40, 12)).cumsum(axis=1)
    groups = search_grid(w.reshape(18, 4), 3, symmetric=False, per_channel=True)
    groups = groups._replace(step=groups.step.reshape(6, 3), zero=groups.zero.reshape(6, 3))
    spread = groups._replace(step=np.repeat(groups.step, 4, axis=1), zero=np.repeat(groups.zero, 4, axis=1))
    alone = gptq(w, np.eye(12), groups, by_size=True)  # inputs without correlation: nothing to make good
    np.testing.assert_array_equal(alone, to_codes(w, spread))
    found = from_codes(gptq(w, x.T @ x, groups, by_size=True), spread)
    assert np.square(x @ (found - w).T).sum() < np.square(x @ (from_codes(alone, spread) - w).T).sum()
