import numpy as np
import pytest
from scipy import sparse
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.estimator_checks import check_estimator

from broadsheet.errors import InputError
from broadsheet.neurons import DendriticNeuron, sdr

N, A = 600, 20


def neuron(**options):
    return DendriticNeuron(40, 12, 6, random_state=0, **options)


def test_passes_scikit_learns_checks():
    typed = "our run-time type checks, on in tests only, refuse the wrong types that it passes"
    check_estimator(
        DendriticNeuron(n_segments=10, synapses=2, theta=1, random_state=0),
        expected_failed_checks={"check_do_not_raise_errors_in_init_or_set_params": typed},
    )


def test_recall_under_noise_equals_the_formula():
    patterns = sdr.random_sdrs(0, N, A, 2000)
    misses = []
    for start in range(0, 2000, 40):
        batch = patterns[start : start + 40]
        cell = neuron().partial_fit(sdr.to_csr(N, batch), np.ones(40, int), classes=[0, 1])
        misses.append(1 - cell.predict(sdr.to_csr(N, sdr.noise(start, batch, 0.5, N))).mean())
    expected = float(sdr.false_negative(A, 12, 6, 10))
    assert np.mean(misses) == pytest.approx(expected, abs=0.04)


def test_one_shot_storage_equals_one_pass_of_learning_for_new_patterns():
    patterns = sdr.to_csr(N, sdr.random_sdrs(1, N, A, 30))
    stored = neuron().store(patterns)
    assert stored.predict(patterns).all()
    assert stored.neurons_[0].used == 30
    assert not stored.predict(sdr.to_csr(N, sdr.random_sdrs(2, N, A, 200))).any()


def test_more_patterns_than_segments_are_clustered():
    centres = sdr.random_sdrs(3, N, A, 40)
    noisy = np.concatenate([sdr.noise(k, centres, 0.1, N) for k in range(3)])
    assert neuron().store(sdr.to_csr(N, noisy)).predict(sdr.to_csr(N, noisy)).mean() > 0.9


def test_permanences_follow_the_rule():
    cell = DendriticNeuron(1, 4, 2, random_state=0)
    x = np.zeros((1, 20))
    x[0, :4] = 1
    cell.partial_fit(x, [1], classes=[0, 1])
    np.testing.assert_allclose(cell.neurons_[0].permanence, 0.5)
    y = np.zeros((1, 20))
    y[0, [0, 1, 10, 11]] = 1  # two of four synapses see it: it fires
    cell.partial_fit(y, [1])
    kept = np.isin(cell.neurons_[0].cells[0], [0, 1])
    np.testing.assert_allclose(cell.neurons_[0].permanence[0][kept], 0.52)
    np.testing.assert_allclose(cell.neurons_[0].permanence[0][~kept], 0.4875)
    for _ in range(27):
        cell.partial_fit(y, [1])
    assert np.isin(cell.neurons_[0].cells[0], [0, 1, 10, 11]).all()  # cut below 0.15 and grown on active cells
    before = cell.neurons_[0].permanence.copy()
    cell.partial_fit(y, [0])
    np.testing.assert_allclose(cell.neurons_[0].permanence, before - 0.0125)


def test_pruning_on_negatives_is_an_option():
    x = np.zeros((1, 20))
    x[0, :4] = 1
    for prune, expected in ((False, 1), (True, 0)):
        cell = DendriticNeuron(1, 4, 2, prune_on_negative=prune, random_state=0).partial_fit(x, [1], classes=[0, 1])
        cell.partial_fit(np.repeat(x, 40, axis=0), np.zeros(40, int))
        assert cell.predict(x)[0] == expected


def test_nonlinearities_and_mistakes():
    x = sparse.csr_array(np.eye(8) + np.eye(8, k=1))
    y = np.arange(8) % 2
    for kind in ("threshold", "sigmoid", "power"):
        model = make_pipeline(MaxAbsScaler(), DendriticNeuron(20, 2, 2, nonlinearity=kind, random_state=0))
        assert model.fit(x, y).score(x, y) > 0.6
    with pytest.raises(InputError, match="theta is 9"):
        DendriticNeuron(4, 4, 9).fit(x, y)
    with pytest.raises(InputError, match="nonlinearity"):
        DendriticNeuron(4, 4, 2, nonlinearity="cubic").fit(x, y)


def test_places_that_were_never_grown_stay_empty():
    """A segment sampled from two active cells has two synapses; later patterns strengthen these and add none."""
    x, y = np.zeros((1, 20)), np.zeros((1, 20))
    x[0, :2] = y[0, :4] = 1
    cell = DendriticNeuron(1, 4, 2, random_state=0).partial_fit(x, [1], classes=[0, 1])
    cell.partial_fit(y, [1])
    segment = cell.neurons_[0]
    assert sorted(segment.cells[0]) == [0, 1, 20, 20]
    np.testing.assert_allclose(np.sort(segment.permanence[0]), [0, 0, 0.52, 0.52])
    assert segment.used == 1


def test_a_synapse_is_cut_once_its_permanence_is_below_that_of_a_connected_one():
    """From 0.5 down by 0.0125 a match, it takes 28 matches to 0.15; what is cut grows again on active cells."""
    cell = DendriticNeuron(1, 4, 2, random_state=0)
    whole, half = np.zeros((2, 1, 20))
    whole[0, :4] = half[0, [0, 1, 10, 11]] = 1
    cell.partial_fit(whole, [1], classes=[0, 1])
    for _ in range(27):
        cell.partial_fit(half, [1])
    assert sorted(cell.neurons_[0].cells[0]) == [0, 1, 2, 3]
    for _ in range(2):
        cell.partial_fit(half, [1])
    assert sorted(cell.neurons_[0].cells[0]) == [0, 1, 10, 11]


@pytest.mark.parametrize("kind", ["threshold", "sigmoid", "power"])
def test_scores_of_overlaps_by_hand(kind):
    """Two segments that see three and one of the active cells, with a threshold of two."""
    rows = np.zeros((6, 20))
    rows[:3], rows[3:, 10:14] = np.eye(20)[[0, 1, 2]].sum(axis=0), 1
    overlap = np.array([3.0, 1.0])
    wanted = {
        "threshold": (overlap >= 2).sum() - 0.5, "sigmoid": (1 / (1 + np.exp(5 * (1.5 - overlap)))).sum() - 0.5,
        "power": ((overlap / 2) ** 10).sum() - 1.0,
    }[kind]  # fmt: skip
    cell = DendriticNeuron(2, 4, 2, nonlinearity=kind, random_state=0).partial_fit(rows, [1, 1, 1, 0, 0, 0])
    cell.neurons_[0].cells[:] = [[0, 1, 2, 20], [2, 15, 16, 20]]
    np.testing.assert_allclose(cell.decision_function(rows[:1]), [wanted], atol=1e-8)
    many = DendriticNeuron(2, 4, 2, nonlinearity=kind, random_state=0).partial_fit(rows, [0, 1, 2, 0, 1, 2])
    for own in many.neurons_:
        own.cells[:] = 20
    many.neurons_[1].cells[:] = cell.neurons_[0].cells
    found = many.decision_function(rows[:1])
    np.testing.assert_allclose(
        found[0] - found[0, 0], [0, wanted + (1.0 if kind == "power" else 0.5) - found[0, 0], 0], atol=1e-6
    )
    assert many.predict(rows[:1])[0] == 1


def test_a_weak_segment_gives_way_to_a_new_pattern_and_a_strong_one_does_not():
    first, second = np.zeros((2, 1, 20))
    first[0, :4] = second[0, 10:14] = 1
    for permanence, gives in ((0.14, True), (0.16, False)):
        cell = DendriticNeuron(1, 4, 2, random_state=0).partial_fit(first, [1], classes=[0, 1])
        cell.neurons_[0].permanence[:] = permanence
        cell.partial_fit(second, [0])
        assert cell.predict(first)[0] == 1
        cell.partial_fit(second, [1])
        assert bool(cell.predict(second)[0]) is gives
        if gives:
            np.testing.assert_allclose(cell.neurons_[0].permanence, 0.5)
    tied = DendriticNeuron(3, 4, 2, random_state=0)
    tied.store(np.concatenate([first, second]))
    assert tied.neurons_[0].used == 2
    assert (tied.classes_.tolist(), tied.predict(np.concatenate([first, second, 0 * first])).tolist()) == ([0, 1], [1, 1, 0])


def test_a_neuron_as_it_comes_has_the_sizes_of_the_paper():
    made = DendriticNeuron()
    assert (made.n_segments, made.synapses, made.theta) == (200, 20, 10)
    assert (made.initial, made.connected, made.increment, made.decrement) == (0.5, 0.15, 0.02, 0.0125)
    with pytest.raises(InputError, match="theta is 0"):
        DendriticNeuron(4, 4, 0).fit(np.eye(4), [0, 1, 0, 1])
    DendriticNeuron(4, 4, 4, random_state=0).fit(np.eye(4), [0, 1, 0, 1])
