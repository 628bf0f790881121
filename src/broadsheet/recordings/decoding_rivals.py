"""Decoders of behaviour side by side on one recording: the same labels, the same blocks of held-out time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from broadsheet.cache import unfinished
from broadsheet.errors import InputError
from broadsheet.recordings import decoders
from broadsheet.recordings.alignment import Aligned, blocked_split
from broadsheet.recordings.connectivity import past_sums
from broadsheet.recordings.neuroformer.estimator import Neuroformer

BINS = 5
"""Of a window."""


class Rivals(NamedTuple):
    """What `compare` found.

    - `scores`: channel -> decoder -> `r`, `r2` and `error` (mean, absolute) on the test windows.
    - `times`, `true`, `counts`: (windows,) s, (windows, channels) and (windows, units) of held-out time; `decoded`: by decoder.
    - `likelihood`: of held-out spikes under Neuroformer, nats a spike.
    """

    scores: dict[str, dict[str, dict[str, float]]]
    channels: tuple[str, ...]
    trained: int
    labelled: int
    tested: int
    cut: int
    likelihood: float
    times: np.ndarray
    true: np.ndarray
    counts: np.ndarray
    decoded: dict[str, np.ndarray]

    def as_json(self) -> dict[str, Any]:
        """Scores and sizes, and true and decoded values."""
        values = {"times": self.times, "true": self.true, **self.decoded}
        return {
            "decoders": self.scores, "training_windows": self.trained, "labelled_windows": self.labelled,
            "test_windows": self.tested, "windows_cut": self.cut, "nats_a_spike": self.likelihood,
            "held_out": {name: np.asarray(part).round(6).tolist() for name, part in values.items()},
        }  # fmt: skip


def compare(
    bins: Aligned, *, labels: float, past: float, history: float, steps: int, tuning: int, blocks: int, gap: float, seed: int =
    0,
    tick: Callable[[float, str], None] = lambda share, said: None,
) -> Rivals:  # fmt: skip
    """Neuroformer and plain decoders of `bins.values`, trained and tested on blocks of windows of five bins.

    **Arguments:** as of `broadsheet recordings decode`; `tick`: called with (share done, what is done).

    **Raises:** `InputError` where there are too few bins or labels, or a target that never changes.
    """
    runs = [run for run in bins.runs() if run.stop - run.start >= 2 * BINS]
    windows = [(run.start + BINS * k, of) for of, run in enumerate(runs) for k in range((run.stop - run.start) // BINS)]
    if len(windows) < 10 * blocks:
        raise InputError(
            f"{len(bins.counts)} bins of {bins.dt:g} s give {len(windows)} windows; {10 * blocks} or more are wanted."
        )
    starts, of = (np.array(part) for part in zip(*windows, strict=True))
    counts = np.asarray(bins.counts).astype(np.int32)
    values = np.stack([bins.values[start : start + BINS].mean(axis=0) for start in starts])
    if (still := np.flatnonzero(values.std(axis=0) == 0)).size:
        raise InputError(f"{bins.channels[still[0]]} never changes, so that there is nothing to decode.")
    train, test = blocked_split(len(starts), blocks=blocks, gap=int(np.ceil(gap / (BINS * bins.dt))))
    chosen = np.sort(np.random.default_rng(seed).permutation(train)[: round(labels * len(train))])
    if len(chosen) < 12:
        raise InputError(
            f"{len(chosen)} of {len(train)} training windows would have a label; 12 or more are wanted (--labels)."
        )
    model = Neuroformer(dt=bins.dt, window=BINS * bins.dt, past=past, steps=steps, tuning_steps=tuning, random_state=seed)
    sides = {name: _stretches(which, starts, of) for name, which in (("train", train), ("test", test))}
    marked = np.full((len(counts), values.shape[1]), np.nan)
    marked[starts[chosen] + BINS - 1] = values[chosen]
    given = [part for part in sides["train"] if part.stop - part.start >= BINS + round(past / bins.dt)]
    settings = {
        "counts": hashlib.sha256(counts.tobytes()).hexdigest(), "gap": gap, "blocks": blocks,
        **{name: value for name, value in model.get_params().items() if not name.startswith("tuning")},
    }  # fmt: skip
    with unfinished("decode", settings) as folder:
        model.fit(
            [counts[part] for part in given], report=lambda step, loss: tick(0.7 * step / steps, f"loss {loss:.3f}"),
            checkpoint=folder / "training",
        )  # fmt: skip
    model.tune([counts[part] for part in given], [marked[part] for part in given])
    tick(0.8, "plain decoders")
    long = [part for part in sides["test"] if part.stop - part.start >= BINS + round(past / bins.dt)]
    likelihood = -model.score([counts[part] for part in long])
    told = np.full((len(counts), values.shape[1]), np.nan)
    for part, made in zip(long, model.predict([counts[part] for part in long]), strict=True):
        told[part] = np.asarray(made).reshape(len(made), -1)
    tested = test[np.isfinite(told[starts[test]]).all(axis=1)]
    decoded = {"neuroformer": told[starts[tested] + BINS - 1]}
    decoded |= _plain(counts, starts, of, values, chosen, tested, round(history / (BINS * bins.dt)), seed)
    decoded["constant"] = np.broadcast_to(values[chosen].mean(axis=0), values[tested].shape)
    tick(1.0, "")
    true = values[tested]
    scores = {
        channel: {name: _scores(made[:, k], true[:, k]) for name, made in decoded.items()}
        for k, channel in enumerate(bins.channels)
    }
    return Rivals(
        scores, bins.channels, len(train), len(chosen), len(tested), model.cut_, likelihood, bins.times[starts[tested] + BINS
        // 2],
        true, np.stack([counts[start : start + BINS].sum(axis=0) for start in starts[tested]]), decoded,
    )  # fmt: skip


def _stretches(which: np.ndarray, starts: np.ndarray, of: np.ndarray) -> list[slice]:
    """Bins of windows that follow each other."""
    cuts = np.flatnonzero((np.diff(which) != 1) | (np.diff(of[which]) != 0)) + 1
    return [slice(int(starts[part[0]]), int(starts[part[-1]]) + BINS) for part in np.split(which, cuts)]


def _plain(
    counts: np.ndarray, starts: np.ndarray, of: np.ndarray, values: np.ndarray, chosen: np.ndarray, tested: np.ndarray, lags:
    int,
    seed: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Decoded values of the tested windows. Linear decoders see sums over growing stretches, so that an hour of a thousand
    units fits;
    the recurrent unit sees each window."""
    edges = tuple(sorted({edge for edge in (0, 1, 2, 3, 5, 8, 12, 20) if edge < lags} | {lags}))
    binned = np.stack([counts[start : start + BINS].sum(axis=0) for start in starts]).astype(np.float32)
    asked = np.concatenate([chosen, tested])
    x = np.empty((len(asked), (len(edges) - 1) * binned.shape[1]), np.float32)
    steps = np.empty((len(asked), lags, binned.shape[1]), np.float32)
    for run in np.unique(of):
        here = np.flatnonzero(of == run)
        mine = np.flatnonzero(of[asked] == run)
        at = asked[mine] - here[0]
        padded = np.concatenate([binned[here], np.zeros((1, binned.shape[1]))])  # sums before a bin: those before the next one
        x[mine] = past_sums(padded, edges)[at + 1].reshape(len(mine), -1)
        steps[mine] = decoders.history(binned[here], lags)[at]
    n, found = len(chosen), {}
    kinds: tuple[decoders.Kind, ...] = ("ridge", "lasso", "mlp")
    for kind in kinds:
        fitted = [decoders.plain_decoder(kind, seed).fit(x[:n], each) for each in values[chosen].T]
        columns = [each.predict(x[n:]) for each in fitted]
        found[kind] = np.stack(columns, axis=1)
    gru = decoders.fit_gru(steps[:n], values[chosen], key=jax.random.key(seed))
    return found | {"gru": gru(steps[n:])}


def _scores(made: np.ndarray, true: np.ndarray) -> dict[str, float]:
    error = made - true
    r = float(np.corrcoef(made, true)[0, 1]) if made.std() > 1e-12 * max(1.0, abs(made).max()) else 0.0
    return {"r": r, "r2": float(1 - (error**2).mean() / true.var()), "error": float(np.abs(error).mean())}
