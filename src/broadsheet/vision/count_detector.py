"""Motion from counts of events without their times, or from traces that they leave: what a layer of delays has to beat (see
`delay_layer`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.vision.delay_layer import contexts, linear_logits, logistic
from broadsheet.vision.event_movies import Movie


class CountDetector(BaseEstimator):
    """Which motion is in an event stream at each ms? Told from how many events each pixel around an event had in the last
    `window` ms, by logistic regression on as many events as `MotionDetector` draws, from the same bins.

    With other `taus` each pixel has traces that events raise and that decay, one for each: what synapses without delays, which
    forget at different rates, bring to the soma.

    **Parameters:** `window`: ms; `side`: px of the square around an event; `samples`: events drawn from each movie; `C`:
    inverse strength of the penalty on weights; `iterations`: of L-BFGS; `taus`: ms in which each trace falls to 1/e, infinite
    for a count; `random_state`: integer.

    **Attributes:** `weights_` (classes, taus 2 side²), `bias_` (classes,), `classes_`.
    """

    def __init__(
        self,
        window: int = 9,
        side: int = 7,
        *,
        samples: int = 200,
        C: float = 0.05,
        iterations: int = 80,
        taus: tuple[float, ...] = (np.inf,),
        random_state: int = 0,
    ) -> None:
        self.window = window
        self.side = side
        self.samples = samples
        self.C = C
        self.iterations = iterations
        self.taus = taus
        self.random_state = random_state

    def fit(self, movies: Iterable[Movie], y: None = None) -> CountDetector:
        """Fits the weights to movies of events with their labels."""
        if self.window < 1 or self.side < 1 or self.side % 2 == 0:
            raise InputError(f"window = {self.window} and side = {self.side}; at least 1 and an odd number are wanted.")
        if not self.taus or not all(tau > 0 for tau in self.taus):
            raise InputError(f"taus = {self.taus}; one or more, above 0 ms, are wanted.")
        rng = np.random.default_rng(self.random_state)
        X, labels = [], []
        for movie in movies:
            where = self.usable_events(movie.events)
            chosen = rng.permutation(len(where[0]))[: self.samples]
            where = tuple(part[chosen] for part in where)
            X.append(self._around(self._traces(movie.events), where))
            labels.append(movie.labels[where[1]])
        self.classes_, self.weights_, self.bias_ = logistic(np.concatenate(X), np.concatenate(labels), self.C, self.iterations)
        return self

    def answers(self, A: Bool[np.ndarray, "2 time x y"]) -> tuple[Int[np.ndarray, " time"], Bool[np.ndarray, " time"]]:
        """The class of each bin, by the largest mean log-probability over its events; and which bins have usable events."""
        check_is_fitted(self, "weights_")
        traces, where = self._traces(A), self.usable_events(A)
        seen = np.bincount(where[1], minlength=A.shape[1]) > 0
        found = np.zeros(A.shape[1], int)
        for t in np.flatnonzero(seen):
            rows = self._around(traces, tuple(part[where[1] == t] for part in where))
            found[t] = linear_logits(rows, self.weights_, self.bias_).sum(axis=0).argmax()
        return self.classes_[found], seen

    def score(self, movies: Iterable[Movie], y: None = None) -> float:
        """Share of bins with usable events whose class is right; NaN where there are none."""
        right = []
        for movie in movies:
            answers, seen = self.answers(movie.events)
            right.append((answers == movie.labels)[seen])
        every = np.concatenate(right)
        return float(every.mean()) if every.size else float("nan")

    def usable_events(self, A: np.ndarray) -> tuple[np.ndarray, ...]:
        """(polarity, time, x, y) of the events of a stream (2, time, x, y) whose whole window lies in it."""
        if A.ndim != 4 or A.shape[0] != 2:
            raise InputError(f"The stream is {A.shape}; (2, time, x, y) is wanted.")
        where = np.nonzero(A)
        late = where[1] >= self.window - 1
        return tuple(part[late] for part in where)

    def _traces(self, A: np.ndarray) -> list[np.ndarray]:
        return [traced(A, self.window, tau) for tau in self.taus]

    def _around(self, traces: list[np.ndarray], where: tuple[np.ndarray, ...]) -> Float[np.ndarray, "events inputs"]:
        return np.concatenate([contexts(trace, where, 1, self.side).reshape(len(where[0]), -1) for trace in traces], axis=1)


def traced(A: Bool[np.ndarray, "2 time x y"], window: int, tau: float = np.inf) -> Float[np.ndarray, "2 time x y"]:
    """Events of each pixel in the last `window` bins, the present one included, each worth `exp(-age / tau)`."""
    total = A.astype(np.float32)
    for age in range(1, min(window, A.shape[1])):
        total[:, age:] += np.float32(np.exp(-age / tau)) * A[:, :-age]
    return total
