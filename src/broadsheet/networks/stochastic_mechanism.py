"""How does a network that noise drives act like a chain of discrete states? What it does without noise, how long it stays
where, what is unstable there, how noise spreads, and which units open the way out.

The symbol that a state stands for is the one of its largest logit, and a transition is a change of that. After the analysis of
github.com/EliaTorre/hmmrnn. A network of rectifiers without biases is homogeneous: twice the noise gives twice the states, so
that transitions do not depend on the size of the noise at all, and at rest a state dies away or grows along its direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike

from broadsheet.dynamics.fixed_points import FixedPoints, find_fixed_points, spectra
from broadsheet.errors import InputError
from broadsheet.networks.noise_rnn import NoiseRNN
from broadsheet.numerics.random import generator

REGIONS = ("transition", "kick zone", "cluster", "between")
"""Where a state is, by how long its symbol lasts from there."""


class Run(NamedTuple):
    """One long run: noise, states, and the symbol of the largest logit, after a warm-up."""

    noise: np.ndarray
    h: np.ndarray
    symbols: np.ndarray

    @property
    def transitions(self) -> np.ndarray:
        """Steps at which the symbol is another than before."""
        return np.flatnonzero(np.diff(self.symbols)) + 1

    @property
    def dwells(self) -> np.ndarray:
        """Steps between transitions."""
        return np.diff(self.transitions)

    @property
    def rate(self) -> float:
        """Transitions a step."""
        return len(self.transitions) / (len(self.symbols) - 1)


def run(model: NoiseRNN, key: PRNGKeyArray, steps: int, warm_up: int = 50, sigma: float = 1.0) -> Run:
    """A run from h = 0.

    **Raises:** `InputError` where states grow beyond all bounds: the spectral radius is past what the rectifiers hold.
    """
    noise = sigma * generator(key).standard_normal((warm_up + steps, model.net.w_in.shape[1]), np.float32)
    h = _states(model, jnp.asarray(noise))[warm_up:]
    if not bool(jnp.isfinite(h).all()):
        radius = float(np.abs(np.linalg.eigvals(np.asarray(model.net.w_rec))).max())
        raise InputError(f"The network's states grow without bound within {steps} steps (spectral radius {radius:.3g}).")
    return Run(noise[warm_up:], np.asarray(h), np.asarray(model.net.output(h)).argmax(axis=1))


@eqx.filter_jit
def _states(model: NoiseRNN, noise: Float[Array, "length inputs"]) -> Float[Array, "length units"]:
    return model.net.states(noise)


def at_rest(model: NoiseRNN, key: PRNGKeyArray, starts: int = 20, steps: int = 500) -> Float[np.ndarray, "starts steps"]:
    """|h| of as many starts from N(0, 1), step by step without noise."""
    first = generator(key).standard_normal((starts, model.net.units), np.float32)
    return np.linalg.norm(np.asarray(_quiet(model, jnp.asarray(first), steps), np.float64), axis=2)


@eqx.filter_jit
def _quiet(model: NoiseRNN, first: Float[Array, "starts units"], steps: int) -> Float[Array, "starts steps units"]:
    nothing = jnp.zeros((steps, model.net.w_in.shape[1]))
    return jax.vmap(lambda h: model.net.states(nothing, h))(first)


def residency(
    model: NoiseRNN, key: PRNGKeyArray, states: ArrayLike, rollouts: int = 20, horizon: int = 50
) -> Float[np.ndarray, " states"]:
    """Mean number of steps, up to `horizon`, until the symbol of a state changes."""
    return np.asarray(_residency(model, key, jnp.asarray(states), rollouts, horizon))


@eqx.filter_jit
def _residency(model: NoiseRNN, key: PRNGKeyArray, states: Array, rollouts: int, horizon: int) -> Array:
    symbols = jnp.repeat(model.net.output(states).argmax(-1), rollouts)
    inputs = model.net.w_in.shape[1]

    def step(carry: tuple[Array, Array, Array], t: Array) -> tuple[tuple[Array, Array, Array], None]:
        h, left, spent = carry
        noise = jax.random.normal(jax.random.fold_in(key, t), (len(h), inputs))
        h = jax.vmap(model.net.update)(h, noise)
        spent = spent + jnp.where(left, 0, 1)
        return (h, left | (model.net.output(h).argmax(-1) != symbols), spent), None

    first = (jnp.repeat(states, rollouts, axis=0), jnp.zeros(len(symbols), bool), jnp.zeros(len(symbols), int))
    (_, _, spent), _ = jax.lax.scan(step, first, jnp.arange(horizon))
    return spent.reshape(len(states), rollouts).mean(axis=1)


def regions(
    residency: Float[np.ndarray, " states"], confidence: Float[np.ndarray, " states"], fast: float = 2.0, slow: float = 8.0,
    sure: float = 0.8,
) -> Int[np.ndarray, " states"]:  # fmt: skip
    """Index into `REGIONS`: transitions last less than `fast` steps, clusters more than `slow` with a probability of the symbol
    above `sure`, and kick zones are between in time."""
    out = np.full(len(residency), 3)
    out[(residency >= fast) & (residency <= slow)] = 1
    out[residency < fast] = 0
    out[(residency > slow) & (confidence > sure)] = 2
    return out


def critical_pairs(eigenvalues: np.ndarray, real: float = 0.1, imaginary: float = 0.06) -> np.ndarray:
    """Complex pairs near the unit circle: after `z -> (z - 1) / (z + 1)`, which takes the circle to the imaginary axis, the
    real part is below `real` in size and the imaginary part above `imaginary`."""
    mapped = (eigenvalues - 1) / (eigenvalues + 1 + 1e-8)
    return ((np.abs(mapped.real) < real) & (mapped.imag > imaginary)).sum(axis=-1)


class Spread(NamedTuple):
    """Of rollouts from one state: trace of their covariance and mean distance from their mean, after each step."""

    trace: np.ndarray
    distance: np.ndarray


def noise_spread(
    model: NoiseRNN, key: PRNGKeyArray, run: Run, at: Int[np.ndarray, " states"], mix: float = 1.0, steps: int = 6,
    rollouts: int = 100,
) -> Spread:  # fmt: skip
    """How far noise spreads from the states of a run: its noise is replayed as `(1 - mix) noise + mix fresh`.

    **Returns:** arrays (states, steps).

    **Raises:** `InputError` where the run ends before the replay does.
    """
    at = np.asarray(at)
    if len(at) == 0 or at.max() + steps >= len(run.h):
        raise InputError(f"{steps} steps after each of {len(at)} states are wanted, within a run of {len(run.h)}.")
    noise = run.noise[at[:, None] + 1 + np.arange(steps)]
    fresh = generator(key).standard_normal((len(at), rollouts, *noise.shape[1:]), np.float32)
    h = np.asarray(_replay(model, jnp.asarray(run.h[at]), jnp.asarray((1 - mix) * noise[:, None] + mix * fresh)))
    off = h - h.mean(axis=1, keepdims=True)
    return Spread((off**2).sum(axis=(1, 3)) / (rollouts - 1), np.linalg.norm(off, axis=3).mean(axis=1))


def spread_of(model: NoiseRNN, key: PRNGKeyArray, run: Run, states: Int[np.ndarray, " states"], most: int = 20) -> Spread:
    """`noise_spread` of fresh noise from `most` of the states, evenly chosen."""
    early = states[states + 7 < len(run.h)]
    return noise_spread(model, key, run, np.resize(early[:: max(1, len(early) // most)], most))


@eqx.filter_jit
def _replay(model: NoiseRNN, h: Float[Array, "states units"], noise: Float[Array, "states rollouts steps inputs"]) -> Array:
    return jax.vmap(lambda first, given: jax.vmap(lambda x: model.net.states(x, first))(given))(h, noise)


def kick_units(
    model: NoiseRNN, run: Run, labels: Int[np.ndarray, " states"], count: int = 3, before: int = 3
) -> dict[tuple[int, int], np.ndarray]:
    """For each direction (symbol before, symbol after): units that are silent in the cluster and cross their threshold in the
    steps before a transition, `count` at most, first those of most correlation with its onset times outgoing drive.

    The drive is the unit's part of the logit difference, after the step at which it fires and the one after that.

    **Arguments:** `labels`: the region of each state of the run.
    """
    w_rec, w_in, w_out = (np.asarray(each) for each in (model.net.w_rec, model.net.w_in, model.net.w_out))
    current = np.zeros_like(run.h)
    current[1:] = run.h[:-1] @ w_rec.T + run.noise[1:] @ w_in.T
    steps = run.transitions[run.transitions > before]
    found: dict[tuple[int, int], np.ndarray] = {}
    for source, target in {(int(run.symbols[t - 1]), int(run.symbols[t])) for t in steps}:
        onsets = [t for t in steps if run.symbols[t - 1] == source and run.symbols[t] == target]
        rest = (labels == 2) & (run.symbols == source)
        if len(onsets) < 2 or not rest.any():
            continue
        onset = np.zeros(len(run.h))
        near = np.unique(np.concatenate([np.arange(t - before, t) for t in onsets]))
        onset[near] = 1.0
        same = run.symbols == source
        silent = np.median(current[rest], axis=0) < 0
        crossing = (current[near] > 0).mean(axis=0) > 2 * (current[rest] > 0).mean(axis=0)
        given, firing = onset[same] - onset[same].mean(), run.h[same] - run.h[same].mean(axis=0)
        size = np.sqrt((firing**2).sum(axis=0) * (given**2).sum())
        correlation = np.where(size > 0, given @ firing / np.maximum(size, 1e-12), 0.0)
        difference = w_out[target] - w_out[source]
        drive = difference + difference @ w_rec
        score = np.where(silent & crossing & (drive > 0), np.abs(correlation) * drive, 0.0)
        order = np.argsort(-score)[:count]
        found[source, target] = order[score[order] > 0]
    return found


def scaled(model: NoiseRNN, units: Int[np.ndarray, " chosen"], gain: float) -> NoiseRNN:
    """The network with all that some units receive multiplied by a gain; 0 silences them."""
    factor = jnp.ones(model.net.units).at[jnp.asarray(units, int)].set(gain)[:, None]
    where = lambda made: (made.net.w_in, made.net.w_rec)  # noqa: E731
    return eqx.tree_at(where, model, (model.net.w_in * factor, model.net.w_rec * factor))


def transition_rate(model: NoiseRNN, key: PRNGKeyArray, sequences: int = 32, steps: int = 300, warm_up: int = 50) -> float:
    """Transitions a step, over runs side by side; where states grow without bound, as long as they are finite."""
    logits = np.asarray(model.rollout(key, sequences, steps, warm_up=warm_up).logits)
    finite = np.isfinite(logits).all(axis=-1)[:, 1:]
    changes = (np.diff(logits.argmax(axis=-1), axis=1) != 0) & finite
    return float(changes.sum() / max(finite.sum(), 1))


class Silenced(NamedTuple):
    """Transition rates, as shares of the untouched network's.

    - `kick`: without the kick units; `alike`: without as many others of the most similar mean activity; `random`: mean over
      draws of as many active units that are no kick units.
    """

    kick: float
    alike: float
    random: float


def silenced(
    model: NoiseRNN, key: PRNGKeyArray, run: Run, units: Int[np.ndarray, " chosen"], draws: int = 8, gain: float = 0.0
) -> Silenced:
    """What silencing units (or changing their gain) does to transitions, beside others of the same number."""
    units = np.asarray(units, int)
    if not len(units):
        return Silenced(1.0, 1.0, 1.0)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    mean = run.h.mean(axis=0)
    others = np.setdiff1d(np.flatnonzero(mean > 0), units)
    left = others.copy()
    alike = []
    for unit in units[: len(others)]:
        nearest = left[np.abs(mean[left] - mean[unit]).argmin()]
        alike.append(int(nearest))
        left = np.setdiff1d(left, nearest)
    nominal = max(transition_rate(model, key), 1e-9)

    def share(chosen: np.ndarray | list[int]) -> float:
        return transition_rate(scaled(model, np.asarray(chosen, int), gain), key) / nominal

    number = min(len(units), len(others))
    drawn = [share(rng.choice(others, number, replace=False)) for _ in range(draws)] if number else [1.0]
    return Silenced(share(units), share(alike), float(np.mean(drawn)))


@dataclass(frozen=True)
class Mechanism:
    """What `report` finds.

    - `norms`: |h| without noise, (starts, steps); `points`: fixed and slow points without input.
    - `run`, and for each of its states `residency` (steps) and `region` (index into `REGIONS`).
    - `eigenvalues`: of the Jacobian, without noise, at the states `at`.
    - `inside`: states of the run by the name of their region; where clusters or transitions are lacking, the tenth of states
      that stay longest or shortest.
    - `spread`: noise sensitivity from clusters and from transitions.
    - `kicks`: units by direction; `effect`: what silencing those of one direction does.
    """

    norms: np.ndarray
    points: FixedPoints
    run: Run
    residency: np.ndarray
    region: np.ndarray
    at: np.ndarray
    eigenvalues: np.ndarray
    inside: dict[str, np.ndarray]
    spread: dict[str, Spread]
    kicks: dict[tuple[int, int], np.ndarray]
    effect: dict[tuple[int, int], Silenced]

    def unstable(self, region: str) -> float:
        """Mean number of eigenvalues outside the unit circle, over the states of a region; 0 where it has none."""
        return self._mean((np.abs(self.eigenvalues) > 1).sum(axis=1), region)

    def critical(self, region: str) -> float:
        """Mean number of complex pairs near the unit circle, likewise."""
        return self._mean(critical_pairs(self.eigenvalues), region)

    def share(self, region: str) -> float:
        """Share of the run's states that are in a region."""
        return float((self.region == REGIONS.index(region)).mean())

    def _mean(self, values: np.ndarray, region: str) -> float:
        chosen = np.isin(self.at, self.inside[region])
        return float(values[chosen].mean()) if chosen.any() else 0.0


def report(
    model: NoiseRNN,
    key: PRNGKeyArray,
    *,
    states: int = 1000,
    rollouts: int = 20,
    horizon: int = 50,
    starts: int = 20,
    eigen: int = 250,
    count: int = 3,
    draws: int = 8,
) -> Mechanism:
    """Takes a trained network apart.

    **Arguments:** `states`: length of the run that is looked at; `rollouts`, `horizon`: of residency times; `starts`: without
    noise and for fixed points; `eigen`: states whose Jacobian is taken; `count`: kick units a direction; `draws`: of random
    units.

    **Raises:** `InputError` where the network's states grow without bound.
    """
    keys = jax.random.split(key, 5)
    made = run(model, keys[0], states)
    stays = residency(model, keys[1], made.h, rollouts, horizon)
    confidence = np.asarray(jax.nn.softmax(model.net.output(jnp.asarray(made.h)))).max(axis=1)
    labels = regions(stays, confidence)
    nothing = jnp.zeros(model.net.w_in.shape[1])
    at = np.linspace(0, states - 1, min(eigen, states)).astype(int)
    first = made.h[np.linspace(0, states - 1, min(starts, states)).astype(int)]
    inside = {name: np.flatnonzero(labels == k) for k, name in enumerate(REGIONS)}
    order, tenth = np.argsort(stays, kind="stable"), max(1, states // 10)
    for name, extreme in (("transition", order[:tenth]), ("cluster", order[-tenth:])):
        inside[name] = inside[name] if len(inside[name]) else np.sort(extreme)
    at = np.unique(np.concatenate([at, inside["transition"][:50]]))
    spread = {name: spread_of(model, keys[2], made, inside[name]) for name in ("cluster", "transition")}
    kicks = kick_units(model, made, labels, count)
    return Mechanism(
        norms=at_rest(model, keys[3], starts),
        points=find_fixed_points(model.net.update, first, nothing, steps=300),
        run=made,
        residency=stays,
        region=labels,
        at=at,
        inside=inside,
        eigenvalues=spectra(model.net.update, made.h[at], nothing),
        spread=spread,
        kicks=kicks,
        effect={way: silenced(model, keys[4], made, units, draws) for way, units in kicks.items()},
    )
