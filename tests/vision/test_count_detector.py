"""Counts of events against loops, and against a layer of delays whose weights are the same at each delay."""

import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.vision import DelayConv
from broadsheet.vision.count_detector import CountDetector, traced
from broadsheet.vision.delay_layer import contexts, decide, linear_logits, logistic
from broadsheet.vision.event_movies import Movie


def test_counts_are_those_of_the_last_bins():
    A = np.random.default_rng(0).random((2, 12, 3, 4)) < 0.3
    for window in (1, 4, 20):
        expected = [A[:, max(0, t - window + 1) : t + 1].sum(axis=1) for t in range(12)]
        np.testing.assert_array_equal(traced(A, window), np.stack(expected, axis=1))


def test_traces_decay_and_are_raised_by_events():
    A = np.random.default_rng(3).random((2, 40, 3, 4)) < 0.3
    trace, expected = np.zeros((2, 3, 4)), []
    for t in range(40):
        trace = trace * np.exp(-1 / 2.0) + A[:, t]
        expected.append(trace)
    np.testing.assert_allclose(traced(A, 40, 2.0), np.stack(expected, axis=1), atol=1e-5)


@pytest.mark.parametrize("taus", [(np.inf,), (3.0,), (1.0, np.inf)])
def test_it_answers_as_a_layer_whose_weights_are_the_same_or_decay_over_delays(taus):
    rng = np.random.default_rng(1)
    movies = [Movie(rng.random((2, 30, 8, 8)) < 0.1, rng.integers(0, 3, 30)) for _ in range(3)]
    detector = CountDetector(4, 3, samples=60, iterations=40, taus=taus).fit(movies)
    decay = np.exp(-np.arange(4) / np.array(taus)[:, None])
    K = np.einsum("cnpij,nd->cpdij", detector.weights_.reshape(3, len(taus), 2, 3, 3), decay)
    layer = DelayConv(jnp.asarray(K, jnp.float32), detector.bias_)
    right = []
    for movie in movies:
        where = detector.usable_events(movie.events)
        (found,), seen = decide(contexts(movie.events, where, 4, 3), where[1], 30, [layer])
        answers, also = detector.answers(movie.events)
        np.testing.assert_array_equal(seen, also)
        np.testing.assert_array_equal(detector.classes_[found][seen], answers[seen])
        right.append((answers == movie.labels)[seen])
    assert detector.score(movies) == pytest.approx(np.concatenate(right).mean())


def test_a_logistic_regression_of_two_classes_has_a_row_for_each():
    """The difference of the rows' log-probabilities is the evidence that scikit-learn's one row gives."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(2)
    X = rng.standard_normal((80, 5)).astype(np.float32)
    labels = (X[:, 0] + 0.3 * rng.standard_normal(80) > 0).astype(int)
    classes, weights, bias = logistic(X, labels, 1.0, 200)
    assert classes.tolist() == [0, 1]
    logits = linear_logits(X, weights, bias)
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1.0, rtol=1e-5)
    known = LogisticRegression(C=1.0, tol=1e-3, max_iter=200).fit(X, labels).decision_function(X)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], known, atol=1e-4)


def test_mistakes_are_named():
    with pytest.raises(InputError, match="window = 0"):
        CountDetector(0).fit([])
    for taus in ((), (0.0,)):
        with pytest.raises(InputError, match="taus = "):
            CountDetector(taus=taus).fit([])
    with pytest.raises(InputError, match="The stream is"):
        CountDetector().usable_events(np.zeros((3, 4)))
