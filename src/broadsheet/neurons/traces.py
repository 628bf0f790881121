"""Exponentially filtered inputs: what a synapse keeps, before any interaction of inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.signal import lfilter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def synaptic_traces(
    inputs: Float[np.ndarray, "time channels"], tau: Sequence[float] = (5.0, 20.0, 60.0), dt: float = 1.0
) -> Float[np.ndarray, "time features"]:
    """Each channel low-passed at each time constant (ms): `s_t = exp(-dt / tau) s_{t-1} + x_t`; channels within taus."""
    decays = np.exp(-dt / np.asarray(tau))
    return np.concatenate([lfilter([1.0], [1.0, -a], inputs, axis=0) for a in decays], axis=1).astype(np.float32)


def logistic_on_traces(
    tau: Sequence[float],
    inputs: Float[np.ndarray, "recordings time channels"],
    spikes: Float[np.ndarray, "recordings time"],
    test_inputs: Float[np.ndarray, "tests test_time channels"],
    test_spikes: Float[np.ndarray, "tests test_time"],
) -> float:
    """AUC on the test recordings of logistic regression on synaptic traces: what needs no interaction of inputs."""

    def features(recordings: np.ndarray) -> np.ndarray:
        return np.concatenate([synaptic_traces(recording, tau) for recording in recordings])

    train, truth = features(inputs), spikes.ravel()
    kept = (truth > 0) | (np.arange(len(truth)) % 4 == 0)  # silence is plentiful
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=60)).fit(train[kept], truth[kept])
    return float(roc_auc_score(test_spikes.ravel(), model.decision_function(features(test_inputs))))
