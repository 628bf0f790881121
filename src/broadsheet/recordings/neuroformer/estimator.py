"""Neuroformer as an estimator: trained to write spikes, with a head that decodes behaviour from few labels (arXiv
2311.00136)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.numerics import generator
from broadsheet.recordings.neuroformer.decoding import decode, fine_tune
from broadsheet.recordings.neuroformer.generation import generate, generate_freely
from broadsheet.recordings.neuroformer.model import Config, NeuroformerNet
from broadsheet.recordings.neuroformer.readouts import Attention, attention_connectivity, sensitivity
from broadsheet.recordings.neuroformer.tokens import SpikeTokenizer
from broadsheet.recordings.neuroformer.training import Data, evaluate, train
from broadsheet.recordings.neuroformer.windows import cut_windows, pack
from broadsheet.recordings.sequences import sequences

PACKED = 8


class Neuroformer(BaseEstimator):
    """A model of spikes in counts X: (bins, neurons) in bins of `dt`, (trials, bins, neurons), or a list of unequal sessions.

    `fit(X)` trains it to write each window's spikes from those before; `fit(X, y)` also a head for behaviour y, as many bins,
    NaN
    where there is no label: all spikes are for pretraining, the labelled windows for the head.

    **Parameters:**

    - `dt`: of the bins, s; `window`, `past`: of what is written and what is seen before it, s.
    - `width`, `heads`, `state`, `history`, `fusion`: of the network and its layers (see `Config`); `dropout`.
    - `steps`, `batch`, `rate`, `decay`: of training; `batch`: about how many windows a step sees.
    - `tuning_steps`, `tuning_rate`: of the head with the trunk; 0 steps: the trunk stays, and the head is ridge regression.
    - `block`: the most spikes of a window or its past that are kept, the last ones; by default all that were seen in training
      and
      half as many again.
    - `random_state`: integer.

    **Attributes:** `network_`; `decoder_` (after labels); `losses_`; `cut_`: windows of the training data that lost spikes;
    `n_features_in_`.
    """

    def __init__(
        self, dt: float = 0.01, window: float = 0.05, past: float = 0.05, *, width: int = 32, heads: int = 2, state: int = 1,
        history: int = 1, fusion: int = 1, dropout: float = 0.0, steps: int = 900, batch: int = 64, rate: float = 5e-3,
        decay: float = 0.1, tuning_steps: int = 100, tuning_rate: float = 1e-3, block: int | None = None, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.dt = dt
        self.window = window
        self.past = past
        self.width = width
        self.heads = heads
        self.state = state
        self.history = history
        self.fusion = fusion
        self.dropout = dropout
        self.steps = steps
        self.batch = batch
        self.rate = rate
        self.decay = decay
        self.tuning_steps = tuning_steps
        self.tuning_rate = tuning_rate
        self.block = block
        self.random_state = random_state

    def fit(
        self, X: Any, y: Any = None, *, report: Callable[[int, float], None] | None = None, checkpoint: str | Path | None = None
    ) -> Neuroformer:
        """Trains it. `report`: called with (steps, loss); `checkpoint`: a file from which an interrupted training goes on."""
        parts = sequences(X, counts=True)
        self.n_features_in_ = parts[0].shape[1]
        self._tokenizer = SpikeTokenizer(self.n_features_in_, self.dt, self.window)
        self._past = round(self.past / self.dt)
        if self._past < 1:
            raise InputError(f"past = {self.past} s; at least one bin of {self.dt} s is wanted.")
        labels = None if y is None else self._labels(parts, y)
        self._shape = self._blocks(parts)
        block, past_block = self._shape
        config = Config(
            self._tokenizer.n_ids, self._tokenizer.n_offsets, self._past, block, past_block, self.width, self.heads,
            state=self.state,
            history=self.history, fusion=self.fusion, dropout=self.dropout,
        )  # fmt: skip
        self._key = jax.random.key(self.random_state)
        data, _ = self._data(parts)
        self.cut_ = self._cut
        fitted = train(
            NeuroformerNet(config, generator(self.random_state)), data, steps=self.steps, batch=self.batch, rate=self.rate,
            decay=self.decay, key=self._key, report=report, checkpoint=checkpoint,
        )  # fmt: skip
        self.network_, self.losses_ = fitted.model, fitted.losses
        if labels is not None:
            self.tune(X, y)
        return self

    def tune(self, X: Any, y: Any) -> Neuroformer:
        """A new head on the trunk as it was pretrained, from labels y (NaN: none) of X."""
        check_is_fitted(self, "network_")
        parts = self._checked(X)
        labels = self._labels(parts, y)
        known = [np.flatnonzero(np.isfinite(each).all(axis=1)) for each in labels]
        data, windows = self._data(parts, known)
        targets = np.stack([labels[session][stop - 1] for session, stop in windows])
        self._single = np.asarray(y[0] if isinstance(y, list) else y).ndim == 1
        self.decoder_ = fine_tune(
            self.network_, data, targets, steps=self.tuning_steps, rate=self.tuning_rate, batch=self.batch, key=self._key,
            frozen=self.tuning_steps == 0,
        )  # fmt: skip
        return self

    def predict(self, X: Any) -> Any:
        """Behaviour in each bin of X: that of the window it lies in; where there is no past, that of the first one. A list
        where X is
        one."""
        check_is_fitted(self, "decoder_")
        parts = self._checked(X)
        data, windows = self._data(parts)
        told = decode(self.decoder_, data)
        out = []
        for session, part in enumerate(parts):
            mine = [k for k, (of, _) in enumerate(windows) if of == session]
            ends = np.array([windows[k][1] for k in mine])
            at = np.minimum(np.searchsorted(ends, np.arange(len(part)), side="right"), len(mine) - 1)
            values = told[np.array(mine)[at]]
            out.append(values[:, 0] if self._single else values)
        if isinstance(X, list):
            return out
        return out[0] if np.asarray(X).ndim == 2 else np.stack(out)

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the mean negative log-likelihood of X's windows, in nats a spike; y is not looked at."""
        check_is_fitted(self, "network_")
        parts = self._checked(X)
        data, _ = self._data(parts)
        ids, offsets, _, _ = evaluate(self.network_, data)
        return -float(ids.sum() + offsets.sum()) / max(self._spikes, 1)

    def transform(self, X: Any) -> Float[np.ndarray, "windows width"]:
        """The trunk's mean features of each window."""
        check_is_fitted(self, "network_")
        return evaluate(self.network_, self._data(self._checked(X))[0])[2]

    def generate(
        self, X: Any, *, temperature: float = 1.0, top_p: float = 1.0, random_state: int = 0
    ) -> Int[np.ndarray, "windows bins neurons"]:
        """Each window of X written anew from its true past."""
        check_is_fitted(self, "network_")
        data, _ = self._data(self._checked(X), packed=False)
        return generate(self.network_, data, jax.random.key(random_state), temperature=temperature, top_p=top_p)

    def sample(
        self, windows: int, start: Any = None, *, temperature: float = 1.0, top_p: float = 1.0, random_state: int = 0
    ) -> Int[np.ndarray, "bins neurons"]:
        """Windows in a row, each written from what was written before; `start`: counts (bins, neurons) before the first, by
        default
        silence."""
        check_is_fitted(self, "network_")
        before = np.zeros((self._past, self.n_features_in_)) if start is None else self._checked(start)[0]
        if len(before) < self._past:
            raise InputError(f"start has {len(before)} bins; the past has {self._past}.")
        return generate_freely(
            self.network_, before.astype(int), windows, jax.random.key(random_state), temperature=temperature, top_p=top_p
        )

    def attention_connectivity(self, X: Any) -> Attention:
        """Mean attention [target, source] to the past and within windows; see `readouts`."""
        check_is_fitted(self, "network_")
        return attention_connectivity(self.network_, self._data(self._checked(X))[0])

    def sensitivity(self, X: Any) -> Float[np.ndarray, "target source"]:
        """Mean slope of each neuron's logit by the presence of past spikes; see `readouts`."""
        check_is_fitted(self, "network_")
        return sensitivity(self.network_, self._data(self._checked(X))[0])

    def _checked(self, X: Any) -> list[np.ndarray]:
        parts = sequences(X, counts=True)
        if parts[0].shape[1] != self.n_features_in_:
            raise InputError(f"X has {parts[0].shape[1]} neurons; the model learned {self.n_features_in_}.")
        return parts

    def _labels(self, parts: list[np.ndarray], y: Any) -> list[np.ndarray]:
        given = (
            y
            if isinstance(y, list)
            else [y]
            if len(parts) == 1 and np.asarray(y).shape[0] == len(parts[0])
            else list(np.asarray(y))
        )
        labels = [np.asarray(each, float).reshape(len(each), -1) for each in given]
        if [len(each) for each in labels] != [len(each) for each in parts]:
            raise InputError("y has other bins than X; one label a bin is wanted, NaN where there is none.")
        if not any(np.isfinite(each).all(axis=1).any() for each in labels):
            raise InputError("y has no label; NaN is for bins without one.")
        return labels

    def _blocks(self, parts: list[np.ndarray]) -> tuple[int, int]:
        """Tokens of a row and of its past."""
        if self.block is not None:
            return self.block + 2, self.block
        widths = (self._tokenizer.bins, self._past)
        longest = []
        for width in widths:
            sums = [np.convolve(part.sum(axis=1), np.ones(width))[: len(part)].max() for part in parts]
            longest.append(int(1.5 * max(sums)) + 8)
        return longest[0] + 2, longest[1]

    def _data(
        self, parts: list[np.ndarray], known: list[np.ndarray] | None = None, packed: bool = True
    ) -> tuple[Data, list[tuple[int, int]]]:
        """Rows, and (session, end) of each window; `known`: only windows whose last bin is among these."""
        block, past_block = self._shape
        windows = cut_windows(
            [part.astype(int) for part in parts], self._tokenizer, self._past, block=block, past_block=past_block
        )
        if known is not None:
            labelled = [
                k for k, (of, stop) in enumerate(zip(windows.session, windows.stop, strict=True)) if stop - 1 in known[of]
            ]
            if not labelled:
                raise InputError("No window ends in a bin with a label; label its last bin.")
            windows = windows.choose(np.array(labelled))
        self._cut, self._spikes = windows.cut + windows.past_cut, windows.spikes
        rows = pack(windows, self._tokenizer, block=block if not packed else max(block, 96),
                    past_block=past_block if not packed else max(past_block, 96), segments=PACKED if packed else 1)  # fmt: skip
        return Data(rows), list(zip(windows.session.tolist(), windows.stop.tolist(), strict=True))
