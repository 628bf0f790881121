"""A layer of spiking neurons whose synapses have a weight and a delay each, shared over space (arXiv 2307.14077).

Delays bring the spikes of a motif together at the soma. Over space and time such a layer is a causal three-dimensional
convolution of the event stream, so that weights for all delays can be learned; few of them are needed afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped
from scipy.fft import next_fast_len
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from broadsheet.dynamics.delay import RingBuffer
from broadsheet.dynamics.rollout import rollout
from broadsheet.dynamics.system import System
from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.neurons.integrate_and_fire import LIF
from broadsheet.vision.event_movies import Movie

Stream = Float[Array, "polarities time x y"]

FEW = 0.02
"""Share of bins with an event below which events are walked: an addition there costs some fifty times one in a row."""
TAPS = 4
"""Synapses that are summed at a time."""


class DelayConv(System):
    """Evidence of each class at each place: `sum K[c, p, d, i, j] A[p, t - d, x - i + r, y - j + r]`, r the kernel's radius.

    As a system: events of one bin (polarities, x, y) to evidence (classes, x, y). A tap of delay 0 answers in the same bin.

    **Arguments:** `K` (classes, polarities, delays, kx, ky), kx and ky odd; `bias` (classes,); `size`: (x, y) of the stream,
    needed to step.
    """

    K: Float[Array, "classes polarities delays kx ky"]
    bias: Float[Array, " classes"]
    size: tuple[int, int] = eqx.field(static=True)

    def __init__(self, K: Any, bias: Any | None = None, *, size: tuple[int, int] = (1, 1)) -> None:
        self.K = jnp.asarray(K)
        if self.K.ndim != 5 or self.K.shape[3] % 2 == 0 or self.K.shape[4] % 2 == 0:
            raise InputError(f"K is {self.K.shape}; (classes, polarities, delays, kx, ky) with odd kx and ky is wanted.")
        self.bias = jnp.zeros(self.K.shape[0]) if bias is None else jnp.asarray(bias)
        self.size = (int(size[0]), int(size[1]))

    def init(self, key: PRNGKeyArray) -> RingBuffer:
        return RingBuffer.filled(jnp.zeros((self.K.shape[1], *self.size)), self.K.shape[2])

    def step(
        self, state: RingBuffer, inputs: Float[Array, "polarities x y"], key: PRNGKeyArray | None = None
    ) -> tuple[RingBuffer, Float[Array, "classes x y"]]:
        state = state.push(inputs)
        past = jnp.stack([state.ago(1 + d) for d in range(self.K.shape[2])], axis=1)
        planes = past.reshape(1, -1, *self.size)
        kernel = jnp.flip(self.K, (3, 4)).reshape(self.K.shape[0], -1, *self.K.shape[3:])
        evidence = jax.lax.conv_general_dilated(planes, kernel, (1, 1), "SAME")[0]
        return state, evidence + self.bias[:, None, None]

    def evidence(self, A: Any, method: Literal["direct", "fft"] = "direct") -> Float[Array, "classes time x y"]:
        """Of a whole stream (polarities, time, x, y) at once; the first bins see a past without events.

        `method`: "fft" multiplies spectra, whose cost hardly grows with the kernels; its rounding, some 1e-7 of the largest
        evidence in float32, reaches bins before an event as well.
        """
        if method not in ("direct", "fft"):
            raise InputError(f"method = {method!r}; 'direct' or 'fft' is wanted.")
        A = jnp.asarray(A, self.K.dtype)
        return (_convolve if method == "direct" else _multiply_spectra)(A, self.K) + self.bias[:, None, None, None]

    def prune(self, fraction: float, *, key: PRNGKeyArray | None = None) -> DelayConv:
        """Keeps this fraction of the weights, the largest; with a key random ones instead (a control)."""
        if not 0 < fraction <= 1:
            raise InputError(f"fraction = {fraction}; a share above 0, up to 1, is wanted.")
        flat = jnp.abs(self.K).ravel() if key is None else jax.random.uniform(key, (self.K.size,))
        count = max(1, round(fraction * self.K.size))
        kept = jnp.zeros(self.K.size, bool).at[jnp.argsort(-flat)[:count]].set(True)
        return eqx.tree_at(lambda layer: layer.K, self, jnp.where(kept.reshape(self.K.shape), self.K, 0.0))

    def shorten(self, delays: int) -> DelayConv:
        """Keeps the weights of the shortest delays."""
        if not 1 <= delays <= self.K.shape[2]:
            raise InputError(f"delays = {delays}; from 1 to {self.K.shape[2]} are possible.")
        return eqx.tree_at(lambda layer: layer.K, self, self.K.at[:, :, delays:].set(0.0))

    def mirror(self) -> DelayConv:
        """Every kernel turned by half a turn in space."""
        return eqx.tree_at(lambda layer: layer.K, self, jnp.flip(self.K, (3, 4)))

    def shuffle_delays(self, key: PRNGKeyArray) -> DelayConv:
        """Delays dealt out anew among the synapses of each address: the motif's times are lost, its places are not."""
        return eqx.tree_at(lambda layer: layer.K, self, jax.random.permutation(key, self.K, axis=2, independent=True))

    def to_synapses(self, threshold: float = 0.0) -> SynapseTable:
        """The synapses whose weight is larger than a threshold."""
        K = np.asarray(self.K)
        classes, polarity, delay, i, j = np.nonzero(np.abs(K) > threshold)
        offsets = np.stack([i - K.shape[3] // 2, j - K.shape[4] // 2], axis=1)
        return SynapseTable(classes, polarity, offsets, K[classes, polarity, delay, i, j], delay, np.asarray(self.bias))


@jax.jit
def _convolve(A: Array, K: Array) -> Array:
    """The delays as channels of a convolution over space, for all bins at once: much faster on a CPU than one over time too."""
    classes, polarities, delays, kx, ky = K.shape
    steps = A.shape[1]
    past = jnp.pad(A, ((0, 0), (delays - 1, 0), (0, 0), (0, 0)))
    planes = jnp.stack([past[:, delays - 1 - d : delays - 1 - d + steps] for d in range(delays)], axis=1)
    images = planes.transpose(2, 3, 4, 0, 1).reshape(steps, *A.shape[2:], polarities * delays)
    kernel = jnp.flip(K, (3, 4)).transpose(3, 4, 1, 2, 0).reshape(kx, ky, polarities * delays, classes)
    found = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return found.transpose(3, 0, 1, 2)


@jax.jit
def _multiply_spectra(A: Array, K: Array) -> Array:
    """Convolution as a product of spectra, whose cost hardly grows with the kernels. An axis at a time, time last: what is
    small stays so until then.
    """
    _, steps, nx, ny = A.shape
    _, _, delays, kx, ky = K.shape
    sizes = (steps + delays - 1, nx + kx - 1, ny + ky - 1)
    long_t, long_x, long_y = (next_fast_len(size, real=True) for size in sizes)

    def spectrum(of: Array) -> Array:  # (…, time, x, y) to (…, y, x, time)
        over_y = jnp.fft.rfft(of, long_y)
        over_x = jnp.fft.fft(jnp.swapaxes(over_y, -1, -2), long_x)
        return jnp.fft.fft(jnp.moveaxis(over_x, -3, -1), long_t)

    found = jnp.fft.ifft(jnp.sum(spectrum(K) * spectrum(A), axis=1))[..., :steps]
    found = jnp.fft.ifft(jnp.moveaxis(found, -1, -3))[..., kx // 2 : kx // 2 + nx]
    return jnp.fft.irfft(jnp.swapaxes(found, -1, -2), long_y)[..., ky // 2 : ky // 2 + ny]


class SynapseTable(NamedTuple):
    """Synapses of neurons that are repeated at every place: class, presynaptic polarity, offset of the neuron from its
    input in space, weight and delay (steps); and the classes' bias."""

    post: Int[np.ndarray, " synapses"]
    polarity: Int[np.ndarray, " synapses"]
    offset: Int[np.ndarray, "synapses 2"]
    weight: Float[np.ndarray, " synapses"]
    delay: Int[np.ndarray, " synapses"]
    bias: Float[np.ndarray, " classes"]

    def run(
        self, events: Bool[np.ndarray, "polarities time x y"] | tuple, shape: tuple[int, int, int, int] | None = None
    ) -> Float[np.ndarray, "classes time x y"]:
        """Evidence by walking the events, or, where there are many, by a sum of the stream shifted for each synapse.

        **Arguments:** `events`: a stream, or (polarity, time, x, y) of each event with the `shape` of the stream.
        """
        if not isinstance(events, tuple):
            many = np.count_nonzero(events) >= FEW * events.size
            return self._shifted(events) if many else self._walked(np.nonzero(events), events.shape)
        if shape is None:
            raise InputError("Events as a list need the shape of their stream: (polarities, time, x, y).")
        where = tuple(np.asarray(part) for part in events)
        inside = np.logical_and.reduce([(part >= 0) & (part < size) for part, size in zip(where, shape, strict=True)])
        if not inside.all():
            raise InputError(f"{(~inside).sum()} events lie outside the stream of the shape {shape}.")
        if len(inside) < FEW * np.prod(shape):
            return self._walked(where, shape)
        np.add.at(stream := np.zeros(shape, np.float32), where, 1)
        return self._shifted(stream)

    def _walked(self, events: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> np.ndarray:
        """Work is the number of events times that of synapses."""
        p, t, x, y = events
        polarities, steps, nx, ny = shape
        reach = int(np.abs(self.offset).max(initial=0))
        depth, wide, high = steps + int(self.delay.max(initial=0)), nx + 2 * reach, ny + 2 * reach
        volume = np.repeat(self.bias.astype(np.float32), depth * wide * high)
        for polarity in range(polarities):
            own, mine = p == polarity, self.polarity == polarity
            base = (t[own] * wide + x[own] + reach) * high + y[own] + reach
            step = (self.post * depth + self.delay) * wide * high + self.offset[:, 0] * high + self.offset[:, 1]
            if own.any() and mine.any():
                volume = _scatter(volume, base, step[mine], self.weight[mine].astype(np.float32))
        found = np.asarray(volume).reshape(len(self.bias), depth, wide, high)
        return found[:, :steps, reach : reach + nx, reach : reach + ny]

    def _shifted(self, stream: np.ndarray) -> np.ndarray:
        """Work is the number of places and bins times that of synapses, but with whole rows of memory at a time."""
        _, steps, nx, ny = stream.shape
        reach, late = int(np.abs(self.offset).max(initial=0)), int(self.delay.max(initial=0))
        depth, wide, high = steps + late, nx + reach, ny + reach
        slack = reach * (high + 1)
        shift = ((self.polarity * depth + late - self.delay) * wide - self.offset[:, 0]) * high - self.offset[:, 1]
        groups = [np.flatnonzero(self.post == k) for k in range(len(self.bias))]
        parts = [(k, group[n : n + TAPS]) for k, group in enumerate(groups) for n in range(0, len(group), TAPS)]
        starts, weights = np.zeros((len(parts), TAPS), np.int32), np.zeros((len(parts), TAPS), np.float32)
        for n, (_, some) in enumerate(parts):
            starts[n, : len(some)], weights[n, : len(some)] = slack + shift[some], self.weight[some]
        post = np.array([k for k, _ in parts], np.int32)
        return np.asarray(_sum_shifted(stream, starts, weights, post, self.bias.astype(np.float32), late, reach))

    def spikes(
        self, events: Bool[np.ndarray, "polarities time x y"], cell: Callable[[int], LIF]
    ) -> Float[np.ndarray, "classes time x y"]:
        """Output spikes of neurons `cell(size)` that the synapses drive, in mV a weight."""
        drive = self.run(events) - self.bias[:, None, None, None]
        classes, steps, nx, ny = drive.shape
        flat = jnp.asarray(drive.transpose(1, 0, 2, 3).reshape(steps, -1))
        _, out = rollout(cell(flat.shape[1]), flat)
        return np.asarray(out).reshape(steps, classes, nx, ny).transpose(1, 0, 2, 3)


@partial(jax.jit, donate_argnums=0)
def _scatter(volume: Array, base: Array, step: Array, weight: Array) -> Array:
    """Adds the weights at `base + step` for every event."""

    def add(volume: Array, start: Array) -> tuple[Array, None]:
        return volume.at[start + step].add(weight, mode="promise_in_bounds", unique_indices=True), None

    return jax.lax.scan(add, volume, base)[0]


@partial(jax.jit, static_argnames=("late", "reach"))
def _sum_shifted(
    stream: Array, starts: Array, weights: Array, post: Array, bias: Array, late: int, reach: int
) -> Float[Array, "classes time x y"]:
    """The bias and sums of the stream, as a row, from each start on, a few synapses of one class at a time.

    Its lines, planes and polarities have zeros between them, so that what leaves one meets none of the next, and its ends have
    what the longest shift needs.
    """
    _, steps, nx, ny = stream.shape
    shape = (steps, nx + reach, ny + reach)
    padded = jnp.pad(stream.astype(bias.dtype), ((0, 0), (late, 0), (0, reach), (0, reach)))
    row, length = jnp.pad(padded.ravel(), reach * (shape[2] + 1)), int(np.prod(shape))

    def add(sums: Array, part: tuple[Array, Array, Array]) -> tuple[Array, None]:
        start, weight, k = part
        terms = (weight[n] * jax.lax.dynamic_slice(row, (start[n],), (length,)) for n in range(TAPS))
        return sums.at[k].add(sum(terms)), None

    sums = jnp.broadcast_to(bias[:, None], (len(bias), length))
    return jax.lax.scan(add, sums, (starts, weights, post))[0].reshape(len(bias), *shape)[:, :, :nx, :ny]


def contexts(
    A: Shaped[np.ndarray, "2 time x y"], where: tuple[np.ndarray, ...], delays: int, side: int
) -> Shaped[np.ndarray, "events 2 delays side side"]:
    """The past (events, or counts of them) around each event (polarity, time, x, y), so that entry [p, d, i, j] meets
    `K[c, p, d, i, j]`.

    Polarities are swapped where the event is OFF: the centre is always ON.
    """
    radius = side // 2
    padded = np.pad(A, ((0, 0), (delays - 1, 0), (radius, radius), (radius, radius)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (delays, side, side), axis=(1, 2, 3))
    p, t, x, y = where
    found = windows[:, t, x, y].transpose(1, 0, 2, 3, 4)[:, :, ::-1, ::-1, ::-1]
    return np.where((p == 1)[:, None, None, None, None], found[:, ::-1], found)[:, ::-1]


class MotionDetector(BaseEstimator):
    """Which motion is in an event stream at each ms? A delay layer fitted by logistic regression on the past of events.

    The evidence at an event whose past is aligned to ON is linear; a frame's answer is the class with the largest mean
    log-probability over its events.

    **Parameters:** `delays`, `side`: of the kernels; `samples`: events drawn from each movie; `C`: inverse strength of the
    penalty on weights; `iterations`: of L-BFGS; `random_state`: integer.

    **Attributes:** `layer_`, the `DelayConv`; `classes_`.
    """

    def __init__(
        self,
        delays: int = 9,
        side: int = 7,
        *,
        samples: int = 200,
        C: float = 0.05,
        iterations: int = 80,
        random_state: int = 0,
    ) -> None:
        self.delays = delays
        self.side = side
        self.samples = samples
        self.C = C
        self.iterations = iterations
        self.random_state = random_state

    def fit(self, movies: Sequence[Movie], y: None = None) -> MotionDetector:
        """Fits kernels to movies of events with their labels."""
        if self.delays < 1 or self.side < 1 or self.side % 2 == 0:
            raise InputError(f"delays = {self.delays} and side = {self.side}; at least 1 and an odd number are wanted.")
        past, labels = self.drawn(movies)
        X = past.reshape(len(past), -1).astype(np.float32)
        self.classes_, weights, bias = logistic(X, labels, self.C, self.iterations)
        K = weights.reshape(len(self.classes_), 2, self.delays, self.side, self.side)
        self.layer_ = DelayConv(jnp.asarray(K, jnp.float32), jnp.asarray(bias, jnp.float32))
        return self

    def drawn(
        self, movies: Sequence[Movie]
    ) -> tuple[Bool[np.ndarray, "events 2 delays side side"], Int[np.ndarray, " events"]]:
        """The pasts and the labels of the events that it learns from."""
        rng = np.random.default_rng(self.random_state)
        past, labels = [], []
        for movie in movies:
            where = self.usable_events(movie.events)
            chosen = rng.permutation(len(where[0]))[: self.samples]
            where = tuple(part[chosen] for part in where)
            past.append(contexts(movie.events, where, self.delays, self.side))
            labels.append(movie.labels[where[1]])
        return np.concatenate(past), np.concatenate(labels)

    def evidence(self, A: Bool[np.ndarray, "2 time x y"]) -> Float[np.ndarray, "classes time x y"]:
        """Evidence of each class at each place: the larger of the stream's and of the stream with polarities swapped."""
        check_is_fitted(self, "layer_")
        return np.maximum(*(np.asarray(self.layer_.evidence(part)) for part in (A, A[::-1])))

    def predict(self, A: Bool[np.ndarray, "2 time x y"]) -> Int[np.ndarray, " time"]:
        """Class of each bin; of a bin without events, that of the bin before."""
        answers, seen = self._answers(A)
        return answers[np.maximum.accumulate(np.where(seen, np.arange(len(seen)), 0))]

    def score(self, movies: Sequence[Movie], y: None = None) -> float:
        """Share of bins with events, from the kernel's length on, whose class is right; NaN where there are none."""
        right = []
        for movie in movies:
            answers, seen = self._answers(movie.events)
            right.append((answers == movie.labels)[seen])
        every = np.concatenate(right)
        return float(every.mean()) if every.size else float("nan")

    def _answers(self, A: Bool[np.ndarray, "2 time x y"]) -> tuple[np.ndarray, Bool[np.ndarray, " time"]]:
        """The class of each bin, and which bins have usable events, without which it means nothing."""
        check_is_fitted(self, "layer_")
        where = self.usable_events(A)
        answers, seen = decide(contexts(A, where, self.delays, self.side), where[1], A.shape[1], [self.layer_])
        return self.classes_[answers[0]], seen

    def spikes(self, A: Bool[np.ndarray, "2 time x y"], rate: float = 1.0) -> Bool[np.ndarray, "classes time x y"]:
        """Output spikes: the strongest class at each place, where its evidence passes a threshold that makes the mean rate
        of a neuron `rate` a second (bins of 1 ms)."""
        evidence = self.evidence(A)
        best = evidence == evidence.max(axis=0)
        share = rate / 1000 * evidence.shape[0]
        if not 0 < share <= 1:
            raise InputError(f"rate = {rate} a second; above 0, and at most one spike a place and bin, is wanted.")
        return best & (evidence > np.quantile(evidence.max(axis=0), 1 - share))

    def usable_events(self, A: np.ndarray) -> tuple[np.ndarray, ...]:
        """(polarity, time, x, y) of the events of a stream (2, time, x, y) whose whole past lies in it."""
        if A.ndim != 4 or A.shape[0] != 2:
            raise InputError(f"The stream is {A.shape}; (2, time, x, y) is wanted.")
        where = np.nonzero(A)
        late = where[1] >= self.delays - 1
        return tuple(part[late] for part in where)


def logistic(
    X: Float[np.ndarray, "events inputs"], labels: Int[np.ndarray, " events"], C: float, iterations: int
) -> tuple[Int[np.ndarray, " classes"], Float[np.ndarray, "classes inputs"], Float[np.ndarray, " classes"]]:
    """(classes, weights, bias) of a logistic regression by L-BFGS, one row for each class, of two classes too."""
    model = LogisticRegression(C=C, max_iter=iterations, tol=1e-3)
    with np.errstate(all="ignore"):
        model.fit(X, labels)
    weights, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return model.classes_, weights, bias


def linear_logits(
    X: Float[np.ndarray, "events inputs"], weights: Float[np.ndarray, "classes inputs"], bias: Float[np.ndarray, " classes"]
) -> Float[np.ndarray, "events classes"]:
    """Log-probability of each class at each event."""
    return _log_softmax(X @ weights.T.astype(np.float32) + bias)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def decide(
    past: Bool[np.ndarray, "events 2 delays side side"],
    bins: Int[np.ndarray, " events"],
    steps: int,
    layers: Sequence[DelayConv],
) -> tuple[list[Int[np.ndarray, " time"]], Bool[np.ndarray, " time"]]:
    """Answers of several layers for each bin, from the pasts of all its events; and which bins have any."""
    K = np.stack([np.asarray(layer.K).reshape(len(layer.K), -1) for layer in layers])
    bias = np.stack([np.asarray(layer.bias) for layer in layers])
    classes = K.shape[1]
    totals = np.zeros((len(layers), steps, classes), np.float32)
    columns = K.reshape(-1, K.shape[2]).T.astype(np.float32)
    for start in range(0, len(past), 20_000):
        rows = past[start : start + 20_000].reshape(len(past[start : start + 20_000]), -1).astype(np.float32)
        logits = _log_softmax((rows @ columns).reshape(len(rows), len(layers), classes) + bias)
        for k in range(len(layers)):
            for c in range(classes):
                totals[k, :, c] += np.bincount(bins[start : start + 20_000], weights=logits[:, k, c], minlength=steps)
    seen = np.bincount(bins, minlength=steps) > 0
    return [total.argmax(axis=1) for total in totals], seen


def cone_mask(delays: int, side: int, fastest: float = 2.5, radius: float = 0.05) -> Float[np.ndarray, "delays side side"]:
    """Where weights may lie: near the centre at short delays, further out at longer ones (delay 0 first)."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, side + 2)[1:-1]] * 2, indexing="ij")
    r = np.hypot(x, y)
    t = np.linspace(0, 1, delays)[:, None, None]
    round_ = np.where(r < 1, (np.cos(np.pi * np.minimum(r, 1)) + 1) / 2, 0.0) ** 0.25
    return round_ * np.exp(-0.5 * r**2 / (fastest * t + radius) ** 2)


def fit_dense(
    movies: Iterable[Movie], classes: int, *, delays: int = 21, side: int = 17, rate: float = 2e-4, steps: int = 400,
    key: PRNGKeyArray, centre: bool = True, flips: bool = True, report: Callable[[int, float], None] | None = None,
    checkpoint: str | Path | None = None,
) -> DelayConv:  # fmt: skip
    """Trains a layer on all places of movies, as the authors' program does: softmax cross-entropy of the larger evidence of
    the stream and of the stream with polarities swapped, Adam, one movie a step, kernels clipped to a mask's box.

    The larger of two evidences is not linear in the events; the mean over all places of what is linear holds no motion at all.
    The centre weights at delay 0 start at +4 (ON) and -4 (OFF), so that evidence is about events of known polarity from the
    start. `centre=False` starts without them, `flips=False` takes the evidence of the stream alone.
    """
    loss = _DenseLoss(jnp.asarray(cone_mask(delays, side), jnp.float32), flips)
    K = 0.01 * jax.random.normal(key, (classes, 2, delays, side, side)) * loss.mask
    if centre:
        middle = side // 2
        K = K.at[:, 1, 0, middle, middle].set(4.0).at[:, 0, 0, middle, middle].set(-4.0)

    batches = ((jnp.asarray(m.events, jnp.float32), jnp.asarray(m.labels)) for m in movies)
    trained = fit(
        DelayConv(K),
        loss,
        batches,
        optimiser=_adam(rate),
        steps=steps,
        key=key,
        chunk=10,
        report=report,
        checkpoint=checkpoint,
    )
    return loss.boxed(trained.model)


class _DenseLoss(eqx.Module):
    """Cross-entropy at all places whose past lies in the movie, of kernels clipped to the mask's box."""

    mask: Float[Array, "delays side side"]
    flips: bool = eqx.field(static=True)

    def boxed(self, layer: DelayConv) -> DelayConv:
        box = self.mask * jnp.max(jnp.abs(layer.K))
        return eqx.tree_at(lambda one: one.K, layer, jnp.clip(layer.K, -box, box))

    def __call__(self, layer: DelayConv, movie: tuple, key: PRNGKeyArray) -> Array:
        A, labels = movie
        first = len(self.mask) - 1
        evidence = dense_evidence(self.boxed(layer), A, self.flips)[:, first:]
        target = labels[first:, None, None]
        return optax.softmax_cross_entropy_with_integer_labels(jnp.moveaxis(evidence, 0, -1), target).mean()


@cache
def _adam(rate: float) -> optax.GradientTransformation:
    """One object for each rate, so that trainings share their program."""
    return optax.adam(rate)


def dense_evidence(layer: DelayConv, A: Stream, flips: bool = True) -> Float[Array, "classes time x y"]:
    """The larger evidence of a stream and of the same stream with ON and OFF swapped; that of the stream without `flips`."""
    if not flips:
        return layer.evidence(A, "fft")
    return jnp.maximum(layer.evidence(A, "fft"), layer.evidence(A[::-1], "fft"))
