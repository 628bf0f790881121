"""Do two subjects err alike? Noise-corrected correlation of their residual errors, and a readout of yes or no.

The measures of Mental Pong's behaviour (github.com/RishiRajalingham/MPongBehavior_public) and of contact prediction
(arXiv 2305.11772).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from broadsheet.errors import InputError


def residual_errors(answers: Any, truth: Any) -> Float[np.ndarray, "..."]:
    """What is left of answers after a line in the truth is taken out, so that being right is no likeness.

    **Arguments:** `answers`: (…, conditions), NaN for none; `truth`: (conditions,). One line is fitted for each row.
    """
    answers, truth = np.asarray(answers, float), np.asarray(truth, float)
    if truth.ndim != 1 or answers.shape[-1:] != truth.shape or len(truth) < 3:
        raise InputError(
            f"Answers are {answers.shape} and the truth {truth.shape}; (…, conditions) and (conditions,) are wanted."
        )
    out = np.full(answers.shape, np.nan)
    for k in np.ndindex(answers.shape[:-1]):
        known = np.isfinite(answers[k]) & np.isfinite(truth)
        design = np.stack([truth[known], np.ones(known.sum())], axis=1)
        out[k][known] = answers[k][known] - design @ np.linalg.lstsq(design, answers[k][known], rcond=None)[0]
    return out


def behavioural_consistency(a_halves: Any, b_halves: Any) -> float:
    """`mean over i, j of r(a_i, b_j) / sqrt(r(a_1, a_2) r(b_1, b_2))`, averaged over ways to split the trials in halves.

    **Arguments:** (ways, 2, conditions) or (2, conditions) each; the ways of the one are paired with those of the other. A
    subject without noise has two equal halves.

    **Returns:** NaN where the halves of a subject are not alike at all.
    """
    a, b = (np.asarray(part, float) for part in (a_halves, b_halves))
    a, b = (part[None] if part.ndim == 2 else part for part in (a, b))
    if a.ndim != 3 or a.shape[1] != 2 or b.shape[1:] != a.shape[1:] or (len(a) != len(b) and 1 not in (len(a), len(b))):
        raise InputError(f"Halves are {a.shape} and {b.shape}; (ways, 2, conditions) is wanted of both.")
    ways = max(len(a), len(b))
    found = []
    for one, two in zip(np.broadcast_to(a, (ways, *a.shape[1:])), np.broadcast_to(b, (ways, *b.shape[1:])), strict=True):
        across = np.mean([_correlation(x, y) for x in one for y in two])
        within = _correlation(*one) * _correlation(*two)
        found.append(across / np.sqrt(within) if within > 0 else np.nan)
    known = np.isfinite(found)
    return float(np.mean(np.asarray(found)[known])) if known.any() else float("nan")


def halves_of(trials: Any, ways: int = 10, random_state: int = 0) -> Float[np.ndarray, "ways 2 conditions"]:
    """Means of random halves of single trials (trials, conditions)."""
    trials = np.asarray(trials, float)
    if trials.ndim != 2 or len(trials) < 2:
        raise InputError(f"Answers are {trials.shape}; (trials, conditions) with two trials or more is wanted.")
    rng = np.random.default_rng(random_state)
    orders = [rng.permutation(len(trials)) for _ in range(ways)]
    middle = len(trials) // 2
    return np.array([[np.nanmean(trials[part], axis=0) for part in (order[:middle], order[middle:])] for order in orders])


def contact_readout(folds: int = 5, random_state: int = 42) -> GridSearchCV:
    """The readout of contact prediction: standardised features, then logistic regression with a cross-validated penalty."""
    steps = [("scale", StandardScaler()), ("classify", LogisticRegression(max_iter=20_000))]
    folding = StratifiedKFold(folds, shuffle=True, random_state=random_state)
    return GridSearchCV(Pipeline(steps), {"classify__C": np.logspace(-8, 8, 17)}, cv=folding)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known] - x[known].mean(), y[known] - y[known].mean()
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 0 else 0.0
