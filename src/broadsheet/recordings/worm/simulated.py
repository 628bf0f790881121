"""Simulated recordings of worms on a real wiring: a rate network with calcium, seen through the habits of laboratories.

No package ships calcium traces; these stand in for them, and say so wherever they are shown.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from broadsheet.errors import InputError
from broadsheet.numerics import generator
from broadsheet.recordings.worm.connectomes import Connectome
from broadsheet.recordings.worm.names import GABA, canonical_names, canonicalise, neuron_class, neuron_type, slots
from broadsheet.recordings.worm.pipeline import Raw


@dataclass(frozen=True)
class Stimulus:
    """A drive of some neurons from `start` on for `seconds`; `strength` in units of the activity."""

    start: float
    seconds: float
    neurons: tuple[str, ...]
    strength: float = 2.0


class WormNetwork(eqx.Module):
    """`tau dv/dt = -v + g_c tanh(v) C + g_g (v G - d v) + u + sigma xi`, and calcium `tau_c dc/dt = -c + relu(v)`.

    C (pre, post) has each column divided by its sum of weights, with a minus for cells that release GABA; G likewise by gap
    junctions, d is 1 where a cell has any. Times in s.
    """

    chem: Float[Array, "pre post"]
    gap: Float[Array, "pre post"]
    tau: float = 0.5
    g_chem: float = 0.9
    g_gap: float = 0.5
    sigma: float = 0.5
    tau_calcium: float = 1.5

    def __init__(self, wiring: Connectome, **settings: float):
        sign = np.array([-1.0 if neuron_class(name) in GABA else 1.0 for name in wiring.names])
        self.chem = jnp.asarray(sign[:, None] * _by_column(wiring.chem), jnp.float32)
        self.gap = jnp.asarray(_by_column(wiring.gap), jnp.float32)
        for name, value in settings.items():
            if name not in ("tau", "g_chem", "g_gap", "sigma", "tau_calcium"):
                raise InputError(f"{name} is no setting of the worm's network.")
            setattr(self, name, float(value))


def _by_column(weights: np.ndarray) -> np.ndarray:
    total = weights.sum(0)
    return weights / np.where(total > 0, total, 1.0)


@functools.partial(jax.jit, static_argnames=("steps", "every"))
def _run(net: WormNetwork, key: Array, drive: Array, worms: Array, steps: int, every: int, dt: Array) -> tuple[Array, Array]:
    """(samples, worms, 300) of v and calcium; `drive` is (steps, 300)."""
    size = net.chem.shape[0]
    leak = (net.gap.sum(0) > 0).astype(net.gap.dtype)

    def step(carry: tuple, given: tuple) -> tuple[tuple, None]:
        v, c = carry
        u, t = given
        noise = jax.random.normal(jax.random.fold_in(key, t), (len(worms), size))
        flow = -v + net.g_chem * (jnp.tanh(v) @ net.chem) + net.g_gap * (v @ net.gap - leak * v) + u
        v_next = v + dt / net.tau * flow + jnp.sqrt(dt) / net.tau * net.sigma * noise
        return (v_next, c + dt / net.tau_calcium * (jax.nn.relu(v) - c)), None

    def sample(carry: tuple, given: tuple) -> tuple[tuple, tuple]:
        carry, _ = jax.lax.scan(step, carry, given)
        return carry, carry

    start = (jnp.zeros((len(worms), size)), jnp.zeros((len(worms), size)))
    times = jnp.arange(steps).reshape(-1, every)
    _, (v, c) = jax.lax.scan(sample, start, (drive.reshape(-1, every, size), times))
    return v, c


def activity(
    wiring: Connectome,
    seconds: float,
    worms: int = 1,
    *,
    key: Any = 0,
    stimuli: Sequence[Stimulus] = (),
    every: int = 1,
    warm_up: float = 20.0,
    dt: float = 0.05,
    **settings: float,
) -> tuple[Float[np.ndarray, "samples"], Float[np.ndarray, "worms samples 300"], Float[np.ndarray, "worms samples 300"]]:
    """Times (s, from 0 on), activity v and calcium of `worms` animals with the same wiring and noise of their own.

    **Arguments:** `every`: steps of `dt` s between samples; `warm_up`: s that run before time 0; `settings`: of `WormNetwork`.
    """
    if not (seconds > 0 and worms >= 1 and every >= 1 and dt > 0):
        raise InputError(f"{worms} worms for {seconds} s at every {every} steps of {dt} s cannot be simulated.")
    before, after = (int(np.ceil(span / dt / every)) * every for span in (warm_up, seconds))
    steps = before + after
    drive = np.zeros((steps, len(slots())), np.float32)
    for each in stimuli:
        cells = [canonicalise(name) for name in each.neurons]
        if None in cells:
            raise InputError(f"A stimulus names {each.neurons[cells.index(None)]!r}, which is no neuron of the list.")
        first, last = (before + round(t / dt) for t in (each.start, each.start + each.seconds))
        drive[max(first, 0) : max(last, 0), [slots()[name] for name in cells if name]] += each.strength
    key = jax.random.key(int(generator(key).integers(2**31)))
    v, c = _run(WormNetwork(wiring, **settings), key, jnp.asarray(drive), jnp.arange(worms), steps, every, jnp.float32(dt))
    kept = slice(before // every, None)
    times = np.arange(after // every) * every * dt
    return times, np.asarray(v, float)[kept].transpose(1, 0, 2), np.asarray(c, float)[kept].transpose(1, 0, 2)


@dataclass(frozen=True)
class Lab:
    """How a laboratory records: frame step and its jitter (share), length, cells it identifies, spelling, units."""

    name: str
    dt: float = 0.25  # s
    jitter: float = 0.02
    seconds: float = 300.0
    labelled: int | None = 100  # None: all 300
    unlabelled: int = 0
    dialect: str = "canonical"  # or padded, lower, separated
    unit: str = "ratio"  # or counts, ΔF/F
    head_only: bool = True
    noise: float = 0.02  # of the baseline
    bleach: float = 3000.0  # s


LABS = (
    Lab("lab-a", 0.25, seconds=300.0, labelled=110, unlabelled=20, dialect="canonical", unit="ΔF/F"),
    Lab("lab-b", 0.33, seconds=400.0, labelled=60, unlabelled=40, dialect="padded", unit="counts"),
    Lab("lab-c", 0.6, seconds=500.0, labelled=180, dialect="lower", unit="ratio"),
    Lab("lab-d", 1.0, seconds=900.0, labelled=30, unlabelled=90, dialect="separated", unit="counts"),
)


def spelled(name: str, dialect: str) -> str:
    """A canonical name in a laboratory's dialect."""
    if dialect == "padded":
        kind = neuron_class(name)
        return f"{kind}{int(name[len(kind) :]):02d}" if name[len(kind) :].isdigit() else name
    if dialect == "lower":
        return name.lower()
    if dialect == "separated":
        return f"{name[:-1]}_{name[-1]}" if name[-1] in "LR" and len(name) > 3 else name
    if dialect != "canonical":
        raise InputError(f"{dialect!r} is no dialect; canonical, padded, lower and separated are.")
    return name


def record(times: np.ndarray, calcium: np.ndarray, lab: Lab, rng: np.random.Generator, worm: str = "") -> Raw:
    """What a laboratory's microscope makes of one worm's calcium (samples, 300) at times (s)."""
    names = canonical_names()
    body = [k for k, name in enumerate(names) if neuron_type(name) != "pharynx" and not name[-1].isdigit()]
    seen = rng.permutation(body if lab.head_only and lab.labelled is not None else len(names))
    count = len(names) if lab.labelled is None else min(lab.labelled, len(seen))
    cells = np.sort(seen[:count])
    nameless = np.sort(seen[count : count + lab.unlabelled])
    span = min(lab.seconds, times[-1])
    frames = np.arange(int(span / lab.dt)) * lab.dt
    frames = np.clip(frames + lab.dt * lab.jitter * rng.standard_normal(len(frames)), 0, times[-1])
    frames = np.sort(frames)
    picked = np.concatenate([cells, nameless]).astype(int)
    at = np.searchsorted(times, frames, side="right").clip(1, len(times) - 1)
    share = ((frames - times[at - 1]) / (times[at] - times[at - 1]))[:, None]
    clean = calcium[at - 1][:, picked] * (1 - share) + calcium[at][:, picked] * share
    baseline = {"counts": rng.uniform(200, 800, len(picked)), "ratio": rng.uniform(0.5, 2, len(picked))}.get(lab.unit, 1.0)
    trace = (1 + 0.8 * clean) * np.exp(-frames / lab.bleach)[:, None] + lab.noise * rng.standard_normal(clean.shape)
    traces = trace * baseline - (1.0 if lab.unit == "ΔF/F" else 0.0)
    spelled_names = [spelled(names[k], lab.dialect) for k in cells] + [None] * len(nameless)
    order = rng.permutation(len(picked))
    return Raw(traces[:, order], frames, tuple(spelled_names[k] for k in order), lab.name, worm)


def simulate(
    wiring: Connectome,
    seconds: float,
    labs: Sequence[Lab] = LABS,
    *,
    worms: int = 2,
    key: Any = 0,
    stimuli: Sequence[Stimulus] = (),
    **settings: Any,
) -> list[Raw]:
    """Raw recordings of `worms` animals a laboratory, each at most `seconds` long, all on one wiring."""
    rng = generator(key)
    times, _, calcium = activity(wiring, seconds, worms * len(labs), key=rng, stimuli=stimuli, **settings)
    return [
        record(times, calcium[k * worms + w], lab, rng, f"worm{k * worms + w}")
        for k, lab in enumerate(labs)
        for w in range(worms)
    ]
