"""What the paper's controls are given: memory, rules and tasks."""

import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.papers.hlop import PMNIST, LateralSubspace, Permuted, _as_large, _by_itself, _learn, permuted_tasks


def test_replay_takes_as_many_bytes_as_the_rows():
    """220 rows of 784 numbers, and 160 of 200 for each of two layers: 945 920 bytes, or 24 images for each of 50 classes."""
    assert 4 * (220 * 784 + 2 * 160 * 200) == 945_920
    for config in (Permuted(), PMNIST):
        rows = np.array([config.rows[min(k, len(config.rows) - 1)] for k in range(config.tasks)])
        held = 4 * sum(int(m) * n for m, n in zip(rows.sum(axis=0), (784, *config.hidden), strict=True))
        images = _as_large(config, 784) * 10 * config.tasks
        assert held - 10 * config.tasks * 784 < images * 784 <= held
    assert _as_large(Permuted(), 784) == 24


def test_rows_by_themselves_all_learn_the_strongest_direction_and_together_do_not():
    deviations = jnp.asarray([4.0, 3.0, 2.0, *[0.5] * 7])
    start = LateralSubspace(10, rate=0.005, iterations=1).grow(3, jax.random.key(0))
    size = {"updates": 2000, "batch": 32}
    together, moment, _ = _learn(start, LateralSubspace.update, jax.random.key(1), jnp.eye(10), deviations, **size)
    alone, again, _ = _learn(start, _by_itself, jax.random.key(1), jnp.eye(10), deviations, **size)
    np.testing.assert_array_equal(moment, again)  # the same batches
    np.testing.assert_allclose(np.diag(moment) / (2000 * 32), deviations**2, rtol=0.05)
    np.testing.assert_allclose(np.abs(np.asarray(alone.H)[:, 0]), 1.0, atol=0.05)
    np.testing.assert_allclose(np.linalg.norm(np.asarray(together.H)[:, :3], axis=1), 1.0, atol=0.02)
    assert np.linalg.svd(np.asarray(together.H)[:, :3])[1].min() > 0.95


def test_tasks_are_one_set_of_images_with_their_pixels_in_other_places():
    first, second = permuted_tasks(Permuted(tasks=2), jax.random.key(3))
    for part in (0, 2):
        np.testing.assert_array_equal(np.sort(first[part], axis=1), np.sort(second[part], axis=1))
        assert not np.array_equal(first[part], second[part])
    np.testing.assert_array_equal(first[1], second[1])
    assert abs(first[0].mean()) < 1e-4
    assert abs(first[0].std() - 1) < 1e-4
