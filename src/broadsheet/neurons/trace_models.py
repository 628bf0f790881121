"""Spikes and voltage of a neuron from synaptic traces alone: what needs no memory units, as a null model of fitted cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from broadsheet.errors import InputError
from broadsheet.neurons.surrogate import scale_voltage
from broadsheet.neurons.traces import synaptic_traces

Recordings = Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]
"""(inputs (time, channels), voltage (time,) in mV, spikes (time,)), one recording after the other."""


class TraceModel:
    """Logistic regression of spikes and ridge regression of voltage on synaptic traces of the inputs.

    **Arguments:** `tau`: time constants, ms; `branches`: (channels, branches), which channels a branch sums, excitatory and
    inhibitory ones apart, by default no sums; `squares`: also all products of two traces of one branch, so that a branch is a
    quadratic function of what it receives; `C`: of scikit-learn's logistic regression.

    **Attributes:** `features_`: how many there are.
    """

    def __init__(
        self,
        tau: Sequence[float] = (5.0, 20.0, 60.0),
        branches: Float[np.ndarray, "channels branches"] | None = None,
        *,
        squares: bool = False,
        C: float = 0.01,
    ) -> None:
        if squares and branches is None:
            raise InputError("TraceModel: squares are of the traces of a branch; give branches.")
        self.tau, self.branches, self.squares, self.C = tuple(tau), branches, squares, C

    def features(self, inputs: Float[np.ndarray, "time channels"]) -> Float[np.ndarray, "time features"]:
        """The traces of each channel, or the sums of a branch, and their products."""
        if self.branches is None:
            return synaptic_traces(inputs, self.tau)
        half = inputs.shape[1] // 2
        sums = np.concatenate([inputs[:, :half] @ self.branches[:half], inputs[:, half:] @ self.branches[half:]], axis=1)
        traces = synaptic_traces(sums, self.tau)
        if not self.squares:
            return traces
        by_branch = traces.reshape(len(traces), -1, self.branches.shape[1])
        one, other = np.triu_indices(by_branch.shape[1])
        products = by_branch[:, one] * by_branch[:, other]
        return np.concatenate([traces, products.reshape(len(traces), -1)], axis=1)

    def fit(self, recordings: Recordings, *, bins: int = 30_000, seed: int = 0) -> TraceModel:
        """Fits to at most `bins` time bins of each recording: all with a spike, up to half of them, and others at random."""
        rng = np.random.default_rng(seed)
        rows, spikes, voltages, weights = [], [], [], []
        for inputs, voltage, fired in recordings:
            with_spike, silent = np.flatnonzero(fired > 0), np.flatnonzero(fired <= 0)
            chosen = [
                rng.choice(every, min(len(every), count), replace=False)
                for every, count in ((with_spike, bins // 2), (silent, bins - min(len(with_spike), bins // 2)))
            ]
            kept = np.concatenate(chosen)
            rows.append(self.features(inputs)[kept])
            spikes.append(fired[kept] > 0)
            voltages.append(scale_voltage(voltage[kept]))
            weights += [
                np.full(len(some), len(every) / max(1, len(some)))
                for some, every in zip(chosen, (with_spike, silent), strict=True)
            ]
        x, y, v, w = map(np.concatenate, (rows, spikes, voltages, weights))
        if not 0 < y.sum() < len(y):
            raise InputError("TraceModel: the recordings have no output spike, or nothing else.")
        self.features_ = x.shape[1]
        self._spikes = make_pipeline(StandardScaler(), LogisticRegression(C=self.C, max_iter=100)).fit(x, y)
        self._voltage = make_pipeline(StandardScaler(), Ridge(1.0)).fit(x, v, ridge__sample_weight=w)
        return self

    def predict(self, inputs: Float[np.ndarray, "time channels"]) -> Float[np.ndarray, "time 2"]:
        """Logits of spikes, and scaled voltage."""
        x = self.features(inputs)
        return np.stack([self._spikes.decision_function(x), self._voltage.predict(x)], axis=1)
