"""How well features predict neurons, corrected for noise in both: ridge regression, split-halves, Spearman and Brown.

For a split into training and test samples, and a split of the trials into halves, a ridge is fitted to the mean response and to
the mean of each half. On the test samples, for each unit,

    rho = r(P, Y) / sqrt(SB(r(P1, P2)) SB(r(Y1, Y2))),    SB(r) = 2r / (1 + r)

with responses Y and predictions P: the measure of arXiv 2305.11772. Neighbouring moments of one trial are nearly the same
sample, so that whole conditions go to one side of a split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from broadsheet.errors import InputError
from broadsheet.numerics.blas import one_thread

ALPHAS = np.sort(np.concatenate([np.geomspace(1e-9, 1e5, 15), 5 * np.geomspace(1e-4, 1e4, 9)]))
"""Penalties that are tried, those of the paper."""

WELL_POSED = 1e4
"""Up to this entry of `(I - H_gg)^-1` its square is told from rounding."""

SMALL = 1e8
"""Multiplications below which a product has one thread: two wait for each other when others work too. Chosen on two cores."""

Split = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Predictivity:
    """Of each unit, for each split and each pair of halves.

    - `r`: correlation of prediction and response on the test samples.
    - `prediction_reliability`, `response_reliability`: correlation between halves, of the predictions and of the responses.
    - `alphas`: (splits,) penalty of the fit to all trials.

    A unit that is no more alike in two halves than by chance has no number: `reliable` says which ones have.
    """

    r: Float[np.ndarray, "splits halves units"]
    prediction_reliability: Float[np.ndarray, "splits halves units"]
    response_reliability: Float[np.ndarray, "splits halves units"]
    reliable: np.ndarray
    alphas: np.ndarray

    @property
    def each(self) -> Float[np.ndarray, "splits halves units"]:
        """The corrected correlation before any average; NaN where a corrected reliability is below zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            product = spearman_brown(self.prediction_reliability) * spearman_brown(self.response_reliability)
            out = self.r / np.sqrt(product)
        return np.where((self.r == 0) & (self.prediction_reliability == 0), 0.0, out)  # a constant predicts nothing

    @property
    def rho(self) -> Float[np.ndarray, " units"]:
        """The mean over halves and splits; NaN for units that are not reliable."""
        return np.where(self.reliable, _mean(_mean(self.each, 1), 0), np.nan)

    @property
    def raw(self) -> Float[np.ndarray, " units"]:
        """The mean of the correlation itself, not corrected for noise."""
        return np.where(self.reliable, self.r.mean(axis=(0, 1)), np.nan)

    @property
    def median(self) -> float:
        """Over the reliable units."""
        return float(np.nanmedian(self.rho)) if np.isfinite(self.rho).any() else float("nan")

    @property
    def sem(self) -> float:
        """Standard error over the units, not over animals or conditions."""
        kept = self.rho[np.isfinite(self.rho)]
        return float(kept.std(ddof=1) / np.sqrt(kept.size)) if kept.size > 1 else float("nan")


def neural_predictivity(
    X: Any,
    Y: Any,
    *,
    groups: Any = None,
    splits: int | Sequence[tuple[Any, Any]] = 5,
    train_fraction: float = 0.8,
    halves: int | np.ndarray | tuple[Any, Any] = 20,
    alphas: Sequence[float] | np.ndarray = ALPHAS,
    leave_out: str = "groups",
    random_state: int = 0,
) -> Predictivity:
    """Noise-corrected correlation between neurons and what a ridge predicts of them from features.

    **Arguments:**

    - `X`: features, (samples, features) or (conditions, time, features). A sample without a finite number is left out.
    - `Y`: single trials, (trials, samples, units) or (trials, conditions, time, units), NaN where a unit has no such trial; or
      means over trials without the first axis, where `halves` has the halves.
    - `groups`: (samples,), samples that stay together in a split. By default the condition, where X has conditions, else none
      does.
    - `splits`: how many, or a list of (train, test) indices of samples, counted after samples were left out; `train_fraction`:
      the share of groups in training.
    - `halves`: how many ways to split the trials; or booleans (ways, trials), True for the first half; or the two means of the
      halves of one split, shaped as Y.
    - `alphas`: penalties; one for all units is chosen in each fit by the error of leaving one group out, or one sample
      (`leave_out="samples"`, as scikit-learn's RidgeCV does). Samples of one group are alike: to leave out one while its twins
      stay is to choose no penalty at all.

    **Raises:** `InputError`.

    **Example:**

        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> features = rng.normal(size=(30, 20, 8))                     # conditions, time, features
        >>> rates = features @ rng.normal(size=(8, 50))
        >>> trials = rates + rng.normal(size=(12, *rates.shape))        # trials, conditions, time, units
        >>> found = neural_predictivity(features, trials)
        >>> bool(abs(found.median - 1) < 0.02), bool(np.median(found.raw) < found.median)
        (True, True)
    """
    features, whole, pairs, group, _ = _aligned(X, Y, groups, halves, random_state)
    parted = _splits(splits, group, train_fraction, random_state)
    return _consistency(features, None, whole, pairs, parted, alphas, _left_out(leave_out, group))


def inter_animal_consistency(
    X: Any,
    Y: Any,
    *,
    groups: Any = None,
    splits: int | Sequence[tuple[Any, Any]] = 5,
    train_fraction: float = 0.8,
    halves: int | tuple[tuple[Any, Any], tuple[Any, Any]] = 20,
    alphas: Sequence[float] | np.ndarray = ALPHAS,
    leave_out: str = "groups",
    random_state: int = 0,
) -> Predictivity:
    """How well one animal's neurons predict another's: what a model can be expected to reach.

    `X` are single trials of the source, shaped as those of the target `Y` (the number of trials may differ); the source has
    halves as well. Where only means over trials are known, they are given as `X` and `Y`, and `halves` as
    `((X_1, X_2), (Y_1, Y_2))`. The rest is as in `neural_predictivity`.
    """
    given = isinstance(halves, tuple)
    source = np.asarray(X, float)
    if source.ndim not in ((2, 3) if given else (3, 4)):
        raise InputError(
            f"The source is {source.shape}; (trials, samples, units) or (trials, conditions, time, units) is wanted, without "
            "the trials where halves are given."
        )
    mean = source if given else _mean(source, 0)
    known = np.isfinite(mean).all(axis=-1)
    if given:
        own_halves, halves = halves
        known &= np.all([np.isfinite(np.asarray(half, float)).all(axis=-1) for half in own_halves], axis=0)
    features = np.where(known[..., None], mean, np.nan)
    features, whole, pairs, group, kept = _aligned(features, Y, groups, halves, random_state)
    if given:
        own = [tuple(np.asarray(half, float).reshape(-1, mean.shape[-1])[kept] for half in own_halves)]
    else:
        flat = source.reshape(len(source), -1, source.shape[-1])[:, kept]
        own = _halved(flat, _assignments(len(pairs), len(flat), random_state + 1))
    ways = min(len(own), len(pairs))
    if not ways:
        raise InputError("In every split of the trials some unit has a half without a response; more trials are wanted.")
    parted = _splits(splits, group, train_fraction, random_state)
    return _consistency(features, own[:ways], whole, pairs[:ways], parted, alphas, _left_out(leave_out, group))


def spearman_brown(r: np.ndarray) -> np.ndarray:
    """Reliability of the whole from the correlation between its halves."""
    return 2 * r / (1 + r)


class Ridge(NamedTuple):
    """A singular value decomposition of centred training features, from which every ridge on them follows.

    A target's fit is `left (s / (s^2 + alpha)) left' y` in the right basis; the decomposition does not know the targets: one
    serves all halves and all penalties. So does what the choice of a penalty needs, None where there is but one: `lost`, the
    share of each direction that a penalty takes away; `weights` of samples left out one by one, or `blocks` of those left out
    together, with `(I - H_gg)^-1` for each penalty and its square; and their sums `crossed` and `grams`, see `choose`.
    """

    mean: np.ndarray
    left: Float[np.ndarray, "samples rank"]
    s: Float[np.ndarray, " rank"]
    right: Float[np.ndarray, "rank features"]
    alphas: np.ndarray
    lost: Float[np.ndarray, "alphas rank"]
    weights: Float[np.ndarray, "alphas samples"] | None = None
    blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] | None = None
    crossed: Float[np.ndarray, "alphas samples rank"] | None = None
    grams: Float[np.ndarray, "alphas rank rank"] | None = None

    @classmethod
    def of(cls, X: Float[np.ndarray, "samples features"], alphas: np.ndarray, group: np.ndarray | None = None) -> Ridge:
        """Of training features; `group`: samples that are left out together (None: each by itself)."""
        mean, alphas = X.mean(axis=0), np.asarray(alphas, float)
        with one_thread(when=X.size * min(X.shape) < SMALL):
            left, s, right = np.linalg.svd(X - mean, full_matrices=False)
            kept = s > s[:1] * max(X.shape) * np.finfo(float).eps
            left, s, right = left[:, kept], s[kept], right[kept]
            lost = np.maximum(alphas[:, None] / (s**2 + alphas[:, None]), 1e-12)  # less could not be told from rounding
            ridge = cls(mean, left, s, right, alphas, lost)
            if len(alphas) == 1:
                return ridge
            if group is None or len(np.unique(group)) == len(group):
                return ridge._leaving_samples_out()
            return ridge._leaving_groups_out(group)

    def _leaving_samples_out(self) -> Ridge:
        square = self.left**2
        beyond = np.maximum(1 - 1 / len(self.left) - square.sum(axis=1), 0)  # what no fit to the features can reach
        weights = (beyond + self.lost @ square.T) ** -2
        grams = np.empty((len(weights), *2 * self.s.shape))
        for gram, scale, lost in zip(grams, np.sqrt(weights), self.lost, strict=True):
            own = scale[:, None] * self.left * lost
            gram[:] = own.T @ own
        return self._replace(weights=weights, grams=grams)

    def _leaving_groups_out(self, group: np.ndarray) -> Ridge:
        blocks, shape = [], (len(self.lost), *self.left.shape)
        moved, crossed = np.empty(shape), np.empty(shape)
        for name in np.unique(group):
            rows = np.flatnonzero(group == name)
            own = self.left[rows]
            inverse = np.linalg.inv(np.eye(len(rows)) - 1 / len(group) - own @ own.T + (self.lost[:, None] * own) @ own.T)
            moved[:, rows] = made = inverse @ own * self.lost[:, None]
            crossed[:, rows] = inverse @ made
            blocks.append((rows, inverse, inverse @ inverse if abs(inverse).max() < WELL_POSED else None))
        return self._replace(blocks=blocks, crossed=crossed, grams=moved.swapaxes(1, 2) @ moved)

    def choose(self, Y: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The penalty with the least squared error of leaving samples or groups out; the projected targets; their mean.

        With the hat matrix H and residuals R that error is the sum over groups of `|(I - H_gg)^-1 R_g|^2`. As
        `R = E + left lost P`, with P the projected targets and E what is left of them without a penalty, it takes `E E'`,
        `E P'` and `P P'` alone, which know of no penalty; all that they are multiplied by knows of no target.
        """
        mean = Y.mean(axis=0)
        centred = Y - mean
        projected = self.left.T @ centred
        if self.grams is None:
            return float(self.alphas[0]), projected, mean
        centred -= self.left @ projected
        common = centred @ projected.T
        errors = self.grams.reshape(len(self.alphas), -1) @ (projected @ projected.T).ravel()
        if self.weights is not None:
            errors += self.weights @ np.einsum("iu,iu->i", centred, centred)
            errors += 2 * np.einsum("ak,ak->a", self.lost, self.weights @ (self.left * common))
        if self.crossed is not None and self.blocks is not None:
            errors += 2 * self.crossed.reshape(len(self.alphas), -1) @ common.ravel()
            for rows, inverse, square in self.blocks:
                own = centred[rows]
                errors += ((inverse @ own) ** 2).sum(axis=(1, 2)) if square is None else np.tensordot(square, own @ own.T)
        return float(self.alphas[int(np.argmin(errors))]), projected, mean

    def predict(self, X: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, float]:
        """Fits the targets and predicts them for other samples; also the penalty."""
        with one_thread(when=self.left.size * Y.shape[1] < SMALL):
            alpha, projected, mean = self.choose(Y)
            return ((X - self.mean) @ self.right.T * (self.s / (self.s**2 + alpha))) @ projected + mean, alpha


def _consistency(
    features: np.ndarray,
    own: list[tuple[np.ndarray, ...]] | None,
    whole: np.ndarray,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    splits: list[Split],
    alphas: Any,
    left_out: np.ndarray | None,
) -> Predictivity:
    """`own`: the halves of the features, where these are recorded too; `left_out`: groups for the choice of a penalty."""
    alphas = _penalties(alphas)
    shape = (len(splits), len(pairs), whole.shape[1])
    r, of_prediction, of_response, trained = (np.zeros(shape) for _ in range(4))
    chosen = np.zeros(len(splits))
    for k, (train, test) in enumerate(splits):
        out = None if left_out is None else left_out[train]
        ridge = Ridge.of(features[train], alphas, out)
        predicted, chosen[k] = ridge.predict(features[test], whole[train])
        r[k] = correlation(predicted, whole[test])
        for j, halves in enumerate(pairs):
            guesses = []
            for side, half in enumerate(halves):
                X = features if own is None else own[j][side]
                fitted = ridge if own is None else Ridge.of(X[train], alphas, out)
                guesses.append(fitted.predict(X[test], half[train])[0])
            of_prediction[k, j] = correlation(*guesses)
            of_response[k, j] = correlation(halves[0][test], halves[1][test])
            trained[k, j] = correlation(halves[0][train], halves[1][train])
    return Predictivity(r, of_prediction, of_response, trained.mean(axis=(0, 1)) > 0, chosen)


def _penalties(alphas: Any) -> np.ndarray:
    alphas = np.atleast_1d(np.asarray(alphas, float))
    if alphas.ndim != 1 or not alphas.size or not np.isfinite(alphas).all() or alphas.min() <= 0:
        raise InputError("alphas must be finite numbers above 0.")
    return alphas


def correlation(a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, " units"]:
    """Pearson's r of each column; 0 where one of the two is constant."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    na, nb, ab = (np.einsum("iu,iu->u", p, q) for p, q in ((a, a), (b, b), (a, b)))
    with np.errstate(divide="ignore", invalid="ignore"):
        r = ab / np.sqrt(na * nb)
    return np.where((na > 0) & (nb > 0), r, 0.0)


def _aligned(
    X: Any, Y: Any, groups: Any, halves: Any, random_state: int
) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
    """Features, mean responses, halves and groups of the samples that have them all, and which these are."""
    X = np.asarray(X, float)
    if X.ndim not in (2, 3):
        raise InputError(f"X is {X.shape}; (samples, features) or (conditions, time, features) is wanted.")
    given = isinstance(halves, tuple)
    parts = [np.asarray(part, float) for part in ((Y, *halves) if given else (Y,))]
    wanted = X.shape[:-1] if given else ("trials", *X.shape[:-1])
    for part in parts:
        if part.ndim != len(wanted) + 1 or part.shape[-X.ndim : -1] != X.shape[:-1] or part.shape != parts[0].shape:
            shape = ", ".join(map(str, (*wanted, "units")))
            raise InputError(f"Responses are {part.shape} and the features {X.shape}; ({shape}) is wanted.")
    flat = X.reshape(-1, X.shape[-1])
    if groups is None:
        group = np.repeat(np.arange(X.shape[0]), X.shape[1]) if X.ndim == 3 else np.arange(len(flat))
    else:
        group = np.asarray(groups).ravel()
        if group.shape != (len(flat),):
            raise InputError(f"groups has {group.size} entries; there are {len(flat)} samples.")
    kept = np.isfinite(flat).all(axis=1)
    if given:
        means = [part.reshape(len(flat), -1) for part in parts]
        kept &= np.all([np.isfinite(mean).all(axis=1) for mean in means], axis=0)
        whole, first, second = (mean[kept] for mean in means)
        pairs = [(first, second)]
    else:
        kept &= _finite_samples(parts[0])
        trials = parts[0].reshape(len(parts[0]), len(flat), -1)
        trials = trials if kept.all() else trials[:, kept]
        if len(trials) < 2:
            raise InputError(f"{len(trials)} trials cannot be split in halves; 2 or more are wanted.")
        if isinstance(halves, int):
            ways = _assignments(halves, len(trials), random_state)
        else:
            ways = np.asarray(halves, bool)
            if ways.ndim != 2 or ways.shape[1] != len(trials) or (ways.all(axis=1) | ~ways.any(axis=1)).any():
                raise InputError(f"halves is {ways.shape}; (ways, {len(trials)}) with both halves filled is wanted.")
        whole = _mean(trials, 0)
        pairs = _halved(trials, ways)
        if not pairs:
            raise InputError("In every split of the trials some unit has a half without a response; more trials are wanted.")
    if kept.sum() < 3:
        raise InputError(f"{kept.sum()} samples have finite features and responses; 3 or more are wanted.")
    return flat[kept], whole, pairs, group[kept], kept


def _finite_samples(Y: Any) -> np.ndarray:
    """Samples in which every unit has a response in one trial at least."""
    Y = np.asarray(Y, float)
    return np.isfinite(Y).any(axis=0).reshape(-1, Y.shape[-1]).all(axis=1)


def _assignments(ways: int, trials: int, random_state: int) -> np.ndarray:
    """(ways, trials) booleans: the first halves."""
    if ways < 1:
        raise InputError(f"{ways} splits of the trials; 1 or more are wanted.")
    rng = np.random.default_rng(random_state)
    return np.array([rng.permutation(trials) < trials // 2 for _ in range(ways)])


def _halved(trials: Float[np.ndarray, "trials samples units"], ways: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean responses of the two halves for each way; a way with an empty half is left out.

    A mean is a linear map of the trials, so that all ways are one matrix product.
    """
    flat = trials.reshape(len(trials), -1)
    seen = np.isfinite(flat)
    weights = np.concatenate([ways, ~ways]).astype(float)
    with one_thread(when=len(weights) * flat.size < SMALL):
        if seen.all():
            means = (weights / weights.sum(axis=1, keepdims=True)) @ flat
        else:
            with np.errstate(invalid="ignore"):
                means = weights @ np.where(seen, flat, 0) / (weights @ seen)
    first, second = means.reshape(2, len(ways), *trials.shape[1:])
    return [(a, b) for a, b in zip(first, second, strict=True) if np.isfinite(a).all() and np.isfinite(b).all()]


def _left_out(leave_out: str, group: np.ndarray) -> np.ndarray | None:
    if leave_out not in ("groups", "samples"):
        raise InputError(f"leave_out is {leave_out!r}; groups and samples are possible.")
    return group if leave_out == "groups" else None


def _splits(
    splits: int | Sequence[tuple[Any, Any]], group: np.ndarray, train_fraction: float, random_state: int
) -> list[Split]:
    if not isinstance(splits, int):
        made = [(np.asarray(train), np.asarray(test)) for train, test in splits]
    else:
        made = list(group_splits(group, splits, train_fraction, random_state))
    if not made or any(len(train) < 2 or len(test) < 2 for train, test in made):
        raise InputError("Each split needs two samples or more in training and in test.")
    return made


def group_splits(group: np.ndarray, splits: int, train_fraction: float = 0.8, random_state: int = 0) -> Iterator[Split]:
    """Random splits that keep groups whole: indices of training and of test samples."""
    if not 0 < train_fraction < 1:
        raise InputError(f"train_fraction is {train_fraction}; a number between 0 and 1 is wanted.")
    names, at = np.unique(group, return_inverse=True)
    if len(names) < 2:
        raise InputError("All samples are of one group; two or more are wanted.")
    rng = np.random.default_rng(random_state)
    count = min(int(np.ceil(train_fraction * len(names))), len(names) - 1)
    for _ in range(splits):
        chosen = np.zeros(len(names), bool)
        chosen[rng.permutation(len(names))[:count]] = True
        yield np.flatnonzero(chosen[at]), np.flatnonzero(~chosen[at])


def _mean(x: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is finite; NaN where nothing is."""
    seen = np.isfinite(x)
    if seen.all():
        return x.mean(axis=axis)
    with np.errstate(invalid="ignore"):
        return np.where(seen, x, 0).sum(axis=axis) / seen.sum(axis=axis)


class Decoded(NamedTuple):
    """How well variables are read out of features.

    - `r`, `error`: Pearson's r and mean absolute error, (variables,), means over splits.
    - `made`: (conditions, time, variables) what is read out of conditions in the test, mean over splits; NaN where nothing is.
    """

    r: np.ndarray
    error: np.ndarray
    made: np.ndarray


def decode_state(
    X: Any,
    state: Any,
    *,
    learned_from: tuple[Any, Any] | None = None,
    splits: int | Sequence[tuple[Any, Any]] = 5,
    train_fraction: float = 0.5,
    alphas: Sequence[float] | np.ndarray = ALPHAS,
    random_state: int = 0,
) -> Decoded:
    """A ridge from features to each variable of a state, tested on conditions that it did not see.

    A penalty is chosen by leaving one condition out.

    **Arguments:**

    - `X`: (conditions, time, features); `state`: (conditions, time, variables). Moments that are not finite are left out.
    - `learned_from`: other features and states of the same conditions that the map is learned from (a decoder of the visible
      ball, tried on the hidden one).
    - `splits`: how many, or a list of (train, test) indices of conditions; `train_fraction`, `alphas`: as in
      `neural_predictivity`.
    """
    alphas = _penalties(alphas)
    tested = tuple(np.asarray(part, float) for part in (X, state))
    learned = tested if learned_from is None else tuple(np.asarray(part, float) for part in learned_from)
    for features, truth in (tested, learned):
        if features.ndim != 3 or truth.ndim != 3 or features.shape[:2] != truth.shape[:2] or len(features) != len(tested[0]):
            raise InputError(
                f"Features are {features.shape} and states {truth.shape}; (conditions, time, …) is wanted of both, with the "
                "same conditions."
            )
    known, usable = (np.isfinite(np.concatenate(pair, axis=-1)).all(axis=-1) for pair in (tested, learned))
    read, times = np.zeros(tested[1].shape), np.zeros(len(tested[0]))
    found = []
    names = np.arange(len(tested[0]))
    for train, test in _splits(splits, names, train_fraction, random_state):
        features, truth = (part[train][usable[train]] for part in learned)
        others, answers = (part[test][known[test]] for part in tested)
        if len(features) < 2 or len(others) < 2:
            raise InputError("A split has fewer than two moments with finite features and states; more are wanted.")
        ridge = Ridge.of(features, alphas, np.repeat(train, usable[train].sum(axis=1)))
        made = np.stack([ridge.predict(others, truth[:, [k]])[0][:, 0] for k in range(truth.shape[1])], axis=1)
        found.append((correlation(made, answers), np.abs(made - answers).mean(axis=0)))
        which, when = np.nonzero(known[test])
        read[test[which], when] += made
        times[test] += 1
    r, error = (np.mean(part, axis=0) for part in zip(*found, strict=True))
    with np.errstate(invalid="ignore"):
        read = np.where(known[..., None] & (times > 0)[:, None, None], read / times[:, None, None], np.nan)
    return Decoded(r, error, read)
