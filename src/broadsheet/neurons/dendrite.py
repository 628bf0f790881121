"""A neuron with active dendrites that learns patterns online; a scikit-learn classifier of sparse binary inputs.

arXiv 1601.00720: one-shot storage, and the permanence rule of its authors' later experiments, from their description.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from broadsheet.errors import InputError
from broadsheet.numerics import generator


class Segments:
    """The dendrite of one neuron: `synapses` presynaptic cells and permanences on each of `n_segments` segments.

    An empty segment has permanence 0 everywhere, so that the rule "replace the weakest" takes it first.
    """

    def __init__(self, n: int, n_segments: int, synapses: int) -> None:
        self.n = n
        self.cells = np.full((n_segments, synapses), n, np.int64)  # cell n never fires
        self.permanence = np.zeros((n_segments, synapses))

    def overlap(self, active: np.ndarray) -> np.ndarray:
        """Synapses on active cells, for each segment (n_segments,); `active` is boolean (n,)."""
        return np.append(active, False)[self.cells].sum(axis=1)

    def overlaps(self, X: sparse.csr_array) -> np.ndarray:
        """The same for many patterns at once: (patterns, n_segments)."""
        used = self.cells < self.n
        rows = np.repeat(np.arange(len(self.cells)), used.sum(axis=1))
        ones = np.ones(int(used.sum()))
        matrix = sparse.csr_array((ones, (rows, self.cells[used])), shape=(len(self.cells), self.n))
        return np.asarray((X @ matrix.T).todense())

    def grow(self, segment: int, active: np.ndarray, rng: np.random.Generator, permanence: float) -> None:
        """Replaces a segment by one that samples the active cells."""
        cells = np.flatnonzero(active)
        size = min(self.cells.shape[1], len(cells))
        self.cells[segment] = self.n
        self.permanence[segment] = 0.0
        self.cells[segment, :size] = rng.choice(cells, size, replace=False)
        self.permanence[segment, :size] = permanence

    @property
    def used(self) -> int:
        """Number of segments that hold a synapse."""
        return int((self.cells < self.n).any(axis=1).sum())


class DendriticNeuron(ClassifierMixin, BaseEstimator):
    """One neuron per class (one alone for two classes); a neuron fires when a segment has `theta` synapses on active cells.

    Inputs are patterns (samples, n): an entry above 0 is an active cell; dense or sparse.

    **Parameters:**

    - `n_segments`, `synapses`, `theta`: segments, synapses on each, and the threshold of an NMDA spike.
    - `nonlinearity`: how a segment's overlap enters the neuron's activity: `"threshold"`, `"sigmoid"`
      (`1 / (1 + exp(5 (theta - 1/2 - o)))`) or `"power"` (`o^10`, scaled by theta).
    - `initial`, `connected`, `increment`, `decrement`: permanence of a new synapse, below which it is cut, and its changes.
    - `prune_on_negative`: cut synapses after a false match too; the original rule does so after right matches only.
    - `random_state`: integer or NumPy generator.

    **Attributes:** `classes_`, `neurons_` (a `Segments` each), `n_features_in_`.
    """

    def __init__(
        self,
        n_segments: int = 200,
        synapses: int = 20,
        theta: int = 10,
        *,
        nonlinearity: str = "threshold",
        initial: float = 0.5,
        connected: float = 0.15,
        increment: float = 0.02,
        decrement: float = 0.0125,
        prune_on_negative: bool = False,
        random_state: Any = None,
    ) -> None:
        self.n_segments = n_segments
        self.synapses = synapses
        self.theta = theta
        self.nonlinearity = nonlinearity
        self.initial = initial
        self.connected = connected
        self.increment = increment
        self.decrement = decrement
        self.prune_on_negative = prune_on_negative
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> DendriticNeuron:
        """Learns the samples in the order given, from nothing."""
        for name in ("classes_", "neurons_"):
            self.__dict__.pop(name, None)
        check_classification_targets(y)
        return self.partial_fit(X, y, classes=np.unique(np.asarray(y)))

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> DendriticNeuron:
        """Goes on learning; the first call needs all `classes`."""
        first = not hasattr(self, "neurons_")
        X, y = validate_data(self, X, y, accept_sparse="csr", reset=first)
        if first:
            self._start(np.unique(y if classes is None else np.asarray(classes)))
        patterns = _binary(X)
        for row, label in enumerate(y):
            active = np.zeros(self.n_features_in_, bool)
            active[patterns.indices[patterns.indptr[row] : patterns.indptr[row + 1]]] = True
            for neuron, own in zip(self.neurons_, self._own, strict=True):
                self._learn(neuron, active, bool(label == own))
        return self

    def store(self, X: Any) -> DendriticNeuron:
        """One-shot learning of positive patterns: a segment each; more patterns than segments are clustered first.

        A cluster's segment samples the cells that most of its members share. A neuron made by `store` alone has the
        classes 0 (unknown) and 1 (stored).
        """
        first = not hasattr(self, "neurons_")
        X = validate_data(self, X, accept_sparse="csr", reset=first)
        if first:
            self._start(np.array([0, 1]))
        patterns = _binary(X)
        neuron = self.neurons_[-1]
        if patterns.shape[0] <= self.n_segments:
            stored = patterns.toarray() > 0
        else:
            cluster = KMeans(self.n_segments, n_init=1, random_state=int(self._rng.integers(2**31)))
            labels = cluster.fit_predict(patterns)
            size = int(np.median(np.diff(patterns.indptr)))
            stored = np.zeros((self.n_segments, patterns.shape[1]), bool)
            for label in np.unique(labels):
                shared = np.asarray(patterns[np.flatnonzero(labels == label)].sum(axis=0)).ravel()
                stored[label, np.argsort(-shared, kind="stable")[:size]] = True
        free = np.argsort(neuron.permanence.sum(axis=1), kind="stable")
        for segment, active in zip(free, stored, strict=False):
            neuron.grow(int(segment), active, self._rng, self.initial)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Activity of the neuron (samples,), above 0 where it fires; for more classes of each neuron (samples, classes)."""
        check_is_fitted(self, "neurons_")
        X = validate_data(self, X, accept_sparse="csr", reset=False)
        patterns = _binary(X)
        activity = np.stack([self._activity(neuron.overlaps(patterns)) for neuron in self.neurons_], axis=1)
        return activity[:, 0] - self._firing if len(self.classes_) == 2 else activity

    def predict(self, X: Any) -> np.ndarray:
        """The class whose neuron is most active; for two classes, the second where the neuron fires."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return self.classes_[(scores > 0).astype(int)]
        return self.classes_[np.argmax(scores, axis=1)]

    def _start(self, classes: np.ndarray) -> None:
        if self.nonlinearity not in ("threshold", "sigmoid", "power"):
            raise InputError(f"nonlinearity is {self.nonlinearity!r}; threshold, sigmoid or power is wanted.")
        if not 1 <= self.theta <= self.synapses:
            raise InputError(f"theta is {self.theta}; it lies between 1 and the {self.synapses} synapses of a segment.")
        if len(classes) < 2:
            raise ValueError(f"A classifier needs two classes or more; got {len(classes)} class.")
        self.classes_ = classes
        self._rng = generator(self.random_state)
        self._own = classes[1:] if len(classes) == 2 else classes
        self.neurons_ = [Segments(self.n_features_in_, self.n_segments, self.synapses) for _ in self._own]

    @property
    def _firing(self) -> float:
        """The activity that one segment exactly at threshold has, less a little."""
        return {"threshold": 0.5, "sigmoid": 0.5, "power": 1.0 - 1e-9}[self.nonlinearity]

    def _activity(self, overlap: np.ndarray) -> np.ndarray:
        if self.nonlinearity == "sigmoid":
            return (1 / (1 + np.exp(5 * (self.theta - 0.5 - overlap)))).sum(axis=1)
        if self.nonlinearity == "power":
            return ((overlap / self.theta) ** 10).sum(axis=1)
        return (overlap >= self.theta).sum(axis=1).astype(float)

    def _learn(self, neuron: Segments, active: np.ndarray, positive: bool) -> None:
        overlap = neuron.overlap(active)
        best = int(np.argmax(overlap))
        if overlap[best] >= self.theta:
            on = np.append(active, False)[neuron.cells[best]]
            used = neuron.cells[best] < neuron.n
            if positive:
                neuron.permanence[best] += np.where(on, self.increment, -self.decrement) * used
            else:
                neuron.permanence[best] -= self.decrement * on
            if positive or self.prune_on_negative:
                self._prune(neuron, best, active, regrow=positive)
        elif positive:
            weakest = int(np.argmin(neuron.permanence.sum(axis=1)))
            if np.median(neuron.permanence[weakest]) < self.connected:
                neuron.grow(weakest, active, self._rng, self.initial)

    def _prune(self, neuron: Segments, segment: int, active: np.ndarray, regrow: bool) -> None:
        cut = (neuron.permanence[segment] < self.connected) & (neuron.cells[segment] < neuron.n)
        neuron.cells[segment, cut] = neuron.n
        neuron.permanence[segment, cut] = 0.0
        if regrow:
            candidates = np.setdiff1d(np.flatnonzero(active), neuron.cells[segment])
            places = np.flatnonzero(cut)[: len(candidates)]
            neuron.cells[segment, places] = self._rng.choice(candidates, len(places), replace=False)
            neuron.permanence[segment, places] = self.initial

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.poor_score = True  # it sees only which entries are above 0
        tags.non_deterministic = self.random_state is None
        return tags


def _binary(X: Any) -> sparse.csr_array:
    """Active cells as ones in a sparse matrix."""
    matrix = sparse.csr_array(X)
    active = sparse.csr_array((matrix > 0).astype(np.float64))
    active.sort_indices()
    active.indices, active.indptr = active.indices.astype(np.int32), active.indptr.astype(np.int32)  # as scikit-learn wants
    return active
