"""A classifier that learns one task after another and forgets nothing, since it learns nothing but read-outs.

What a continual learner is set beside: spiking neurons with random weights that never change, and least squares from their
rates for each task. Which task an input belongs to is told by the nearest mean of a task's inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.networks.continual import SpikingMLP, in_parts


class RandomReadouts(BaseEstimator):
    """A read-out for each task by ridge regression over random spiking neurons: `fit_task(X, y)`, then `predict`.

    **Parameters:** `neurons`: with random weights; `classes`: outputs; `steps`: of simulation, input repeated at each;
    `ridge`: penalty, as a share of the mean power of a rate; `random_state`: integer.

    **Attributes:** `means_` (tasks, features), `readouts_` (tasks, neurons + 1, classes), `heads_`: the classes of each task.
    """

    means_: list[np.ndarray]
    readouts_: list[np.ndarray]
    heads_: list[tuple[int, ...] | None]

    def __init__(
        self, neurons: int = 400, classes: int = 10, *, steps: int = 10, ridge: float = 0.01, random_state: int = 0
    ) -> None:
        self.neurons = neurons
        self.classes = classes
        self.steps = steps
        self.ridge = ridge
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> RandomReadouts:
        """Forgets everything and learns one task."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        return self.fit_task(X, y)

    def fit_task(self, X: Any, y: Any, classes: Sequence[int] | None = None) -> RandomReadouts:
        """Learns the next task; `classes` names those of the task, by which its read-out is found again (several heads)."""
        X, y = np.asarray(X, np.float32), np.asarray(y)
        if X.ndim != 2 or y.shape != X.shape[:1] or not np.isin(y, np.arange(self.classes)).all():
            raise InputError(
                f"X has the shape {X.shape}, y {y.shape}; (samples, features) and as many labels from 0 to "
                f"{self.classes - 1} are wanted."
            )
        if not hasattr(self, "net_"):
            key = jax.random.key(self.random_state)
            self.net_ = SpikingMLP((X.shape[1], self.neurons, self.classes), steps=self.steps, key=key)
            self.means_, self.readouts_, self.heads_ = [], [], []
        rates = self._rates(X)
        penalty = self.ridge * len(X) * np.mean(rates**2) * np.eye(rates.shape[1])
        self.readouts_.append(np.linalg.solve(rates.T @ rates + penalty, rates.T @ np.eye(self.classes)[y]))
        self.means_.append(X.mean(axis=0))
        self.heads_.append(None if classes is None else tuple(classes))
        return self

    def task_of(self, X: Float[np.ndarray, "samples features"]) -> np.ndarray:
        """The task whose mean input is nearest to each input, from 0."""
        check_is_fitted(self, "net_")
        means = np.stack(self.means_)
        return np.argmin((means**2).sum(axis=1) - 2 * np.asarray(X, np.float32) @ means.T, axis=1)

    def predict(self, X: Any, classes: Sequence[int] | None = None) -> np.ndarray:
        """Labels; where `classes` are those of a task, that task's read-out answers, among them alone."""
        check_is_fitted(self, "net_")
        head = None if classes is None else tuple(classes)
        told = head is not None and head in self.heads_
        task = np.full(len(X), self.heads_.index(head)) if told else self.task_of(X)
        rates = self._rates(np.asarray(X, np.float32))
        answers = np.stack([rates @ readout for readout in self.readouts_])[task, np.arange(len(task))]
        if head is not None:
            answers[:, np.setdiff1d(np.arange(self.classes), head)] = -np.inf
        return answers.argmax(axis=1)

    def score(self, X: Any, y: Any, classes: Sequence[int] | None = None) -> float:
        """Share of right answers."""
        return float(np.mean(self.predict(X, classes) == np.asarray(y)))

    def _rates(self, X: np.ndarray) -> np.ndarray:
        """Weighted rates of the neurons, and a constant."""
        rates = np.concatenate([np.asarray(activity[1], float) for _, activity in in_parts(self.net_, X)])
        return np.concatenate([rates, np.ones((len(rates), 1))], axis=1)
