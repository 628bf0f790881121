import numpy as np
import pytest
from scipy.special import softmax

from broadsheet.conversion import DynamicConfidence
from broadsheet.conversion.early_exit import calibration_error, fit_temperature
from broadsheet.errors import InputError


@pytest.fixture
def data():
    """Summed read-outs that drift towards the right class, with noise: some samples are clear at once, some never."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, 400)
    strength = rng.exponential(0.6, 400)
    steps = rng.standard_normal((400, 10, 5))
    steps[np.arange(400), :, y] += strength[:, None]
    return np.cumsum(steps, axis=1), y


def test_exit_times_follow_the_definition(data):
    logits, y = data
    policy = DynamicConfidence(alpha=2.0, threshold=0.8).fit(logits, y)
    p = softmax(logits / 2.0, axis=2).max(axis=2)
    for k, t in enumerate(policy.exit_times(logits)):
        assert (p[k, : t - 1] <= 0.8).all()
        assert p[k, t - 1] > 0.8 or t == 10
    np.testing.assert_allclose(policy.confidence(logits), p, rtol=1e-4)
    right = logits[np.arange(400), policy.exit_times(logits) - 1].argmax(axis=1) == y
    assert policy.score(logits, y) == right.mean()


def test_pareto_points_are_not_dominated_and_the_threshold_keeps_the_accuracy(data):
    logits, y = data
    policy = DynamicConfidence().fit(logits, y)
    points = np.array(policy.sweep(logits, y))
    for _, steps, accuracy in policy.front_:
        assert not ((points[:, 1] < steps - 1e-9) & (points[:, 2] >= accuracy)).any()
    last = (logits[:, -1].argmax(axis=1) == y).mean()
    assert policy.score(logits, y) >= last
    assert 1 < policy.exit_times(logits).mean() < 10


def test_the_papers_choice_is_the_fastest_point_of_the_front_that_keeps_the_accuracy(data):
    logits, y = data
    fastest = DynamicConfidence(choice="fastest", tolerance=0.01).fit(logits, y)
    wanted = (logits[:, -1].argmax(axis=1) == y).mean() - 0.01
    keeping = [point for point in fastest.sweep(logits, y) if point.accuracy >= wanted]
    at = next(point for point in keeping if point.threshold == fastest.threshold_)
    assert at.steps == min(point.steps for point in keeping)
    assert fastest.threshold_ <= DynamicConfidence(tolerance=0.01).fit(logits, y).threshold_


@pytest.mark.parametrize("choice", ["steady", "fastest"])
def test_where_no_threshold_keeps_the_accuracy_no_sample_leaves(choice):
    """Sure and wrong until the last step, which alone is right."""
    logits = np.zeros((30, 4, 2))
    logits[:, :3, 0], logits[:, 3, 1] = 50.0, 1.0
    policy = DynamicConfidence(alpha=1.0, choice=choice).fit(logits, np.ones(30, int))
    assert policy.threshold_ == 1.0
    assert (policy.exit_times(logits) == 4).all()


def test_the_oracle_bounds_every_threshold(data):
    logits, y = data
    policy = DynamicConfidence().fit(logits, y)
    steps, accuracy = policy.oracle(logits, y)
    for point in policy.sweep(logits, y):
        assert point.accuracy <= accuracy
    right = logits.argmax(axis=2) == y[:, None]
    assert all(right[k, t - 1] or not right[k].any() for k, t in enumerate(steps))


def test_temperature_recovers_the_scale_of_calibrated_logits():
    rng = np.random.default_rng(1)
    logits = 2 * rng.standard_normal((20_000, 4))
    y = np.array([rng.choice(4, p=p) for p in softmax(logits, axis=1)])
    np.testing.assert_allclose(fit_temperature(3 * logits, y), 3.0, rtol=0.05)
    confidence = softmax(logits, axis=1).max(axis=1)
    assert calibration_error(confidence, logits.argmax(axis=1) == y)[0] < 0.015
    assert calibration_error(softmax(3 * logits, axis=1).max(axis=1), logits.argmax(axis=1) == y)[0] > 0.1


@pytest.mark.parametrize("signal", ["margin", "entropy"])
def test_other_signals_lie_between_0_and_1_and_grow_with_evidence(data, signal):
    logits, y = data
    confidence = DynamicConfidence(signal=signal).fit(logits, y).confidence(logits)
    assert 0 <= confidence.min() <= confidence.max() <= 1 + 1e-6
    assert confidence[:, -1].mean() > confidence[:, 0].mean()


def test_mistakes_are_named(data):
    logits, y = data
    with pytest.raises(InputError, match="logits are"):
        DynamicConfidence().fit(logits[:, 0], y)
    with pytest.raises(InputError, match="alpha = -1"):
        DynamicConfidence(alpha=-1.0).fit(logits, y)
    with pytest.raises(InputError, match="NaN"):
        DynamicConfidence().fit(np.where(logits > 3, np.nan, logits), y)
