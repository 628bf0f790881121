"""Free features under a linear read-out, against gradient steps written out by hand."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from broadsheet.language.free_features import FreeFeatures, descend, start, word_law

SMALL = FreeFeatures(width=3, words=5, contexts=400, scale=0.3, steps=8)


def test_targets_mix_words_with_the_law_that_they_are_drawn_by():
    law = np.array([60, 30, 20, 15, 12]) / 137
    assert_allclose(word_law(5, 1.0), law, rtol=1e-6)
    assert_allclose(word_law(5, 0.0), 0.2, rtol=1e-6)
    targets = np.asarray(start(jax.random.key(0), SMALL).targets)
    words = targets.argmax(axis=1)
    assert_allclose(targets - 0.5 * np.eye(5)[words], np.tile(0.5 * law, (400, 1)), atol=1e-6)
    assert_allclose(np.bincount(words) / 400, law, atol=4 * np.sqrt(0.25 / 400))


@pytest.mark.parametrize("loss", ["cross-entropy", "squared-error"])
@pytest.mark.parametrize("learns", [True, False])
def test_steps_are_those_of_the_gradient_by_hand(loss, learns):
    begin = start(jax.random.key(1), SMALL)
    features, read_out, targets = (np.asarray(part, np.float64) for part in begin)
    found = descend(begin, SMALL, loss=loss, read_out_learns=learns)
    for step in range(2 * len(found.features)):
        if step % 2 == 0:
            assert_allclose(found.features[step // 2], features, rtol=1e-4, atol=1e-6)
        logits = features @ read_out.T
        guess = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) if loss == "cross-entropy" else logits
        slope = (guess - targets) / 16
        features, read_out = features - 0.5 * slope @ read_out, read_out - 0.5 * learns * slope.T @ features
    assert_allclose(found.read_out, read_out, rtol=1e-4, atol=1e-6)


def test_squared_error_ends_at_the_best_low_rank_targets():
    """The largest singular directions of the targets, by NumPy."""
    sizes = FreeFeatures(width=2, words=5, contexts=400, steps=3000, scale=0.3)
    begin = start(jax.random.key(2), sizes)
    found = descend(begin, sizes, loss="squared-error")
    left, values, right = np.linalg.svd(np.asarray(begin.targets), full_matrices=False)
    assert_allclose(found.features[-1] @ found.read_out.T, (left[:, :2] * values[:2]) @ right[:2], atol=2e-3)
