"""Motion from counts of events without their times: what a layer of delays has to beat (see `delay_layer`)."""

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

    **Parameters:** `window`: ms; `side`: px of the square around an event; `samples`: events drawn from each movie; `C`:
    inverse strength of the penalty on weights; `iterations`: of L-BFGS; `random_state`: integer.

    **Attributes:** `weights_` (classes, 2 side²), `bias_` (classes,), `classes_`.
    """

    def __init__(
        self,
        window: int = 9,
        side: int = 7,
        *,
        samples: int = 200,
        C: float = 0.05,
        iterations: int = 80,
        random_state: int = 0,
    ) -> None:
        self.window = window
        self.side = side
        self.samples = samples
        self.C = C
        self.iterations = iterations
        self.random_state = random_state

    def fit(self, movies: Iterable[Movie], y: None = None) -> CountDetector:
        """Fits the weights to movies of events with their labels."""
        if self.window < 1 or self.side < 1 or self.side % 2 == 0:
            raise InputError(f"window = {self.window} and side = {self.side}; at least 1 and an odd number are wanted.")
        rng = np.random.default_rng(self.random_state)
        X, labels = [], []
        for movie in movies:
            where = self.usable_events(movie.events)
            chosen = rng.permutation(len(where[0]))[: self.samples]
            where = tuple(part[chosen] for part in where)
            X.append(self._around(counted(movie.events, self.window), where))
            labels.append(movie.labels[where[1]])
        self.classes_, self.weights_, self.bias_ = logistic(np.concatenate(X), np.concatenate(labels), self.C, self.iterations)
        return self

    def answers(self, A: Bool[np.ndarray, "2 time x y"]) -> tuple[Int[np.ndarray, " time"], Bool[np.ndarray, " time"]]:
        """The class of each bin, by the largest mean log-probability over its events; and which bins have usable events."""
        check_is_fitted(self, "weights_")
        counts, where = counted(A, self.window), self.usable_events(A)
        seen = np.bincount(where[1], minlength=A.shape[1]) > 0
        found = np.zeros(A.shape[1], int)
        for t in np.flatnonzero(seen):
            rows = self._around(counts, tuple(part[where[1] == t] for part in where))
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

    def _around(self, counts: np.ndarray, where: tuple[np.ndarray, ...]) -> Float[np.ndarray, "events inputs"]:
        return contexts(counts, where, 1, self.side).reshape(len(where[0]), -1).astype(np.float32)


def counted(A: Bool[np.ndarray, "2 time x y"], window: int) -> Int[np.ndarray, "2 time x y"]:
    """Events of each pixel in the last `window` bins, the present one included."""
    total = np.cumsum(A, axis=1, dtype=np.int32)
    total[:, window:] -= total[:, :-window].copy()
    return total
