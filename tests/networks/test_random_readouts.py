import numpy as np
import pytest
from sklearn.linear_model import Ridge

from broadsheet.errors import InputError
from broadsheet.networks.continual import in_parts
from broadsheet.networks.random_readouts import RandomReadouts


def three_tasks(samples=60):
    """Three classes around other centres in each task, and the tasks apart from one another."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), samples // 3)
    centres = 2 * rng.standard_normal((3, 1, 20)) + rng.standard_normal((3, 3, 20))
    return [((centres[k, y] + 0.3 * rng.standard_normal((samples, 20))).astype(np.float32), y) for k in range(3)]


def test_tasks_are_told_apart_and_none_is_forgotten():
    learner, tasks = RandomReadouts(40, 3), three_tasks()
    first = None
    for k, (X, y) in enumerate(tasks):
        learner.fit_task(X, y)
        np.testing.assert_array_equal(learner.task_of(X), k)
        first = learner.predict(tasks[0][0]) if first is None else first
    assert all(learner.score(X, y) > 0.9 for X, y in tasks)
    np.testing.assert_array_equal(learner.predict(tasks[0][0]), first)


def test_a_readout_is_scikit_learns_ridge_regression():
    """On the rates of the random neurons; there the constant is penalised too, as one more input."""
    (X, y), *_ = three_tasks()
    learner = RandomReadouts(15, 3, ridge=0.1).fit(X, y)
    rates = np.concatenate([activity[1] for _, activity in in_parts(learner.net_, X)]).astype(float)
    rates = np.concatenate([rates, np.ones((len(X), 1))], axis=1)
    ridge = Ridge(0.1 * len(X) * np.mean(rates**2), fit_intercept=False).fit(rates, np.eye(3)[y])
    np.testing.assert_allclose(learner.readouts_[0], ridge.coef_.T, rtol=1e-6, atol=1e-9)


def test_a_known_head_is_used_whatever_the_input_looks_like():
    (X, y), (other, _), _ = three_tasks()
    learner = RandomReadouts(40, 6).fit_task(X, y, classes=(0, 1, 2)).fit_task(other, y + 3, classes=(3, 4, 5))
    assert set(learner.predict(X, classes=(3, 4, 5))) <= {3, 4, 5}
    assert learner.score(X, y, classes=(0, 1, 2)) > 0.9
    assert learner.score(other, y + 3) > 0.9
    with pytest.raises(InputError, match="labels from 0 to 5"):
        learner.fit_task(X, y + 9)
