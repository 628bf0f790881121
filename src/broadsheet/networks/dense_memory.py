"""Dense Hebbian memories: N spins with couplings of P neurons each, learned from archetypes or from noisy examples of them.

The couplings are never built. With u = x sigma (one pattern x, neuron by neuron) the energy is a sum over patterns of the
elementary symmetric polynomial e_P(u), and the field on neuron i needs e_(P-1) of all others. Newton's identities give these
from power sums, so that a field is a few products of the patterns with vectors: its cost is linear in K, N and P, its memory
that of the patterns.

    H = - N^-(P-1) sum_mu sum_(i1 < ... < iP) x_i1 ... x_iP sigma_i1 ... sigma_iP
    h_i = (P-1)! N^-(P-1) sum_mu x_i e_(P-1)(u without i),   P(sigma_i = 1) = (1 + tanh((P/2) h_i / T')) / 2

All sums are over distinct neurons unless `distinct=False`; T' = P! / (2 beta). Theory: `broadsheet.networks.replica`. After the
idea of arXiv 2212.00606 and its unsupervised twin, arXiv 2211.14067.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8, PRNGKeyArray
from scipy.stats import binom

from broadsheet.dynamics.kernels import one_kernel
from broadsheet.dynamics.system import System, as_array, fixed
from broadsheet.errors import InputError
from broadsheet.networks.replica import check_order, dataset_entropy
from broadsheet.numerics import generator
from broadsheet.numerics.checks import concrete

BLOCK = 2**16
"""Numbers of a block of patterns, of which powers are taken at a time."""

LANES = 64
"""Sums over patterns that are added up side by side."""

LARGEST_TENSOR = 60_000_000
"""Couplings that `coupling_noise` holds at most."""


def archetypes(key: Any, count: int, neurons: int) -> Int8[np.ndarray, "count neurons"]:
    """Fair coins, -1 or 1."""
    return (2 * generator(key).integers(0, 2, (count, neurons), dtype=np.int8) - 1).astype(np.int8)


@dataclass(frozen=True)
class ExampleSet:
    """`examples` (M) noisy copies of each archetype, of which each entry is right with probability (1 + quality) / 2."""

    archetypes: Int8[np.ndarray, "count neurons"]
    quality: float
    examples: int

    @property
    def entropy(self) -> float:
        """rho = (1 - r²) / (M r²)."""
        return dataset_entropy(self.quality, self.examples)

    def means(self, key: Any) -> Float[np.ndarray, "count neurons"]:
        """What a teacher's averages are, of variance 1: (sum of the M copies) / (M sqrt(R)), R = r² + (1 - r²) / M.

        Drawn as binomial counts, which is the same as M copies and needs no room for them.
        """
        right = generator(key).binomial(self.examples, (1 + self.quality) / 2, self.archetypes.shape)
        scale = self.examples * self.quality * math.sqrt(1 + self.entropy)
        return self.archetypes * (2 * right - self.examples) / scale

    def copies(self, key: Any) -> Int8[np.ndarray, "count examples neurons"]:
        """The copies themselves."""
        count, neurons = self.archetypes.shape
        right = generator(key).random((count, self.examples, neurons)) < (1 + self.quality) / 2
        return np.where(right, self.archetypes[:, None], -self.archetypes[:, None])


def sign_overlap(quality: float, examples: int) -> float:
    """Overlap of the sign of a teacher's average with the archetype, exact over the binomial counts; ties count for nothing.

    What one archetype alone is retrieved to without thermal noise; erf(1 / sqrt(2 rho)) for many examples.
    """
    right = np.arange(examples + 1)
    return float(binom.pmf(right, examples, (1 + quality) / 2) @ np.sign(2 * right - examples))


def corrupted(key: Any, patterns: Any, overlap: float) -> np.ndarray:
    """Patterns (…, neurons) with as many entries flipped, at random places, as leave this overlap."""
    rng, patterns = generator(key), np.array(patterns)
    flips = round((1 - overlap) / 2 * patterns.shape[-1])
    places = np.argsort(rng.random(patterns.shape), axis=-1) < flips
    return np.where(places, -patterns, patterns)


def stored_numbers(neurons: int, order: int) -> int:
    """Couplings of a memory: one for each set of `order` neurons."""
    return math.comb(neurons, order)


def coupling_noise(key: Any, neurons: int, order: int, dtype: Any = np.float32) -> np.ndarray:
    """Standard normal noise, one number for each set of `order` neurons, as a symmetric tensor (neurons, …) that is zero where
    two indices agree. N^P numbers: for small networks."""
    if neurons**order > LARGEST_TENSOR:
        raise InputError(f"A tensor of {neurons}^{order} couplings is too large; at most {LARGEST_TENSOR:,} are held.")
    index = np.array(list(combinations(range(neurons), order))).T
    values = generator(key).standard_normal(index[0].shape)
    tensor = np.zeros((neurons,) * order, dtype)
    for each in permutations(range(order)):
        tensor[tuple(index[list(each)])] = values
    return tensor


class DenseHebbian(System):
    """A memory of `patterns` (K, neurons) with couplings of `order` neurons, at a temperature T'.

    A step is one sweep: each neuron once in random order, or all at once (`sequential=False`); its input is an external field
    on top of h (neurons,), or None. Patterns are archetypes, teacher's averages (`ExampleSet.means`) or single examples
    (`unsupervised`). `noise` is what learning left in the couplings (`coupling_noise`) and `noise_scale` its size.

    **Raises:** `InputError` for an order below 2, fewer neurons than the order, patterns that are not finite.
    """

    patterns: Float[Array, "count neurons"] = fixed()
    temperature: Float[Array, ""]
    scale: Float[Array, ""]
    noise: Array | None = fixed()
    noise_scale: Float[Array, ""]
    order: int = eqx.field(static=True)
    distinct: bool = eqx.field(static=True)
    sequential: bool = eqx.field(static=True)
    signs: bool = eqx.field(static=True)

    def __init__(
        self,
        patterns: Any,
        order: int = 4,
        *,
        temperature: Any = 0.0,
        distinct: bool = True,
        sequential: bool = True,
        scale: Any = 1.0,
        noise: Any = None,
        noise_scale: Any = 0.0,
    ):
        check_order(order, least=2)
        self.patterns = jnp.asarray(patterns, jnp.result_type(float))
        known = concrete(patterns)
        if self.patterns.ndim != 2 or not self.patterns.size:
            raise InputError(
                f"patterns have the shape {self.patterns.shape}; (patterns, neurons) is wanted, with one at least."
            )
        if self.patterns.shape[1] < order:
            raise InputError(f"{self.patterns.shape[1]} neurons cannot couple in groups of {order}: the order must be smaller.")
        if known is not None and not np.isfinite(known).all():
            raise InputError("patterns hold numbers that are not finite.")
        hot = concrete(temperature)
        if hot is not None and not np.all(hot >= 0):
            raise InputError(f"temperature is {temperature}; a number from 0 on is wanted.")
        self.temperature, self.scale = as_array(temperature), as_array(scale)
        self.noise = None if noise is None else jnp.asarray(noise, self.patterns.dtype)
        self.noise_scale = as_array(noise_scale)
        self.order, self.distinct, self.sequential = order, distinct, sequential
        self.signs = known is not None and bool((np.abs(known) == 1).all())

    @classmethod
    def unsupervised(cls, copies: Any, order: int = 4, **options: Any) -> DenseHebbian:
        """Learned without a teacher: the mean over single examples (K, M, neurons) of their products."""
        copies = np.asarray(copies)
        return cls(copies.reshape(-1, copies.shape[-1]), order, scale=1 / copies.shape[1], **options)

    @property
    def neurons(self) -> int:
        return self.patterns.shape[1]

    def init(self, key: PRNGKeyArray) -> Float[Array, " neurons"]:
        """Spins at random."""
        return jax.random.rademacher(key, (self.neurons,)).astype(self.patterns.dtype)

    def step(self, state: Array, inputs: Array | None = None, key: PRNGKeyArray | None = None) -> tuple[Array, Array]:
        """One sweep; the spins are state and output."""
        external = jnp.zeros(self.neurons, self.patterns.dtype) if inputs is None else inputs
        key = jax.random.key(0) if key is None else key
        draws = jax.random.uniform(key, (2, self.neurons), self.patterns.dtype)
        state = self._moved(state, external, draws, self.patterns.T)
        return state, state

    def field(self, sigma: Any) -> Float[Array, " neurons"]:
        """h on each neuron, for spins (neurons,) or for their means between -1 and 1."""
        u = jnp.asarray(sigma, self.patterns.dtype) / self.neurons
        return self._noise_field(u) + self.scale * self._over_patterns(lambda rows: self._pattern_field(rows, u))

    def energy(self, sigma: Any) -> Float[Array, ""]:
        """H of spins (neurons,), or of their means."""
        u = jnp.asarray(sigma, self.patterns.dtype) / self.neurons
        learned = self.scale * self._over_patterns(lambda rows: self._pattern_energy(rows, u))
        return learned - self.neurons * jnp.sum(u * self._noise_field(u)) / math.factorial(self.order)

    def glauber(self, key: PRNGKeyArray | int, sigma: Any, sweeps: int) -> Float[Array, "*replicas neurons"]:
        """The spins after so many sweeps from `sigma` (…, neurons), each replica with noise of its own; without thermal noise
        they stop once they stand still. A seed stands for its `jax.random.key`, whose making can take longer than a recall."""
        sigma = sigma if isinstance(sigma, jax.Array) else np.asarray(sigma, self.patterns.dtype)
        if sigma.shape[-1:] != (self.neurons,):
            raise InputError(f"The spins have the shape {sigma.shape}; {self.neurons} neurons are wanted, last.")
        return _run(self, sigma, np.uint32(key) if isinstance(key, int | np.integer) else key, np.int32(sweeps))

    def plefka(self, mean: Any, sweeps: int = 200, *, load: Any = None, damping: Any = 0.5) -> Float[Array, " neurons"]:
        """Means of the spins by iteration of m = tanh((P/2) h(m) / T' - reaction), from `mean`, at a temperature above 0.

        The reaction is that of the interference at large N, m (alpha P! P (P-1) / 4) q^(P-2) (1 - q) / T'², with q the mean of
        m² and alpha the `load`, by default K / N^(P-1); at 0 this is the naive mean field.
        """
        hot = concrete(self.temperature)
        if hot is not None and not hot > 0:
            raise InputError("temperature is 0; the means of spins need one above 0.")
        load = len(self.patterns) / self.neurons ** (self.order - 1) if load is None else load
        mean = jnp.asarray(mean, self.patterns.dtype)
        return _plefka(self, mean, jnp.asarray(sweeps), as_array(load), as_array(damping))

    def _over_patterns(self, function: Callable[[Array], Array]) -> Array:
        """The sum of a function of some patterns (rows, neurons) over all, block by block where it takes powers of them."""
        count = len(self.patterns)
        rows = count if self.signs else max(1, min(count, BLOCK // self.neurons))
        whole = count // rows
        total = function(self.patterns[whole * rows :]) if count % rows else 0.0

        def add(block: Any, total: Any) -> Array:
            return total + function(jax.lax.dynamic_slice_in_dim(self.patterns, block * rows, rows))

        return add(0, total) if whole == 1 else jax.lax.fori_loop(1, whole, add, add(0, total))

    def _pattern_field(self, rows: Array, u: Array) -> Array:
        """Sum over patterns of (P-1)! x e_(P-1) of the others, with u = sigma / N: e without i is sum_j (-x u)^j e_(P-1-j), so
        that each power of x is one product with the patterns."""
        e = self._elementary(rows, u, self.order - 1)
        if not self.distinct:
            return rows.T @ e[1] ** (self.order - 1)
        powers = range(1, self.order + 1)
        ones = jnp.ones(len(rows), u.dtype)
        back = self._products(rows, [e[self.order - k] * ones for k in powers])
        signed = [(-u) ** (k - 1) * each for k, each in zip(powers, back, strict=True)]
        return math.factorial(self.order - 1) * jnp.sum(jnp.stack(signed), axis=0)

    def _pattern_energy(self, rows: Array, u: Array) -> Array:
        e = self._elementary(rows, u, self.order)
        each = e[self.order] if self.distinct else e[1] ** self.order / math.factorial(self.order)
        return -self.neurons * each.sum()

    def _elementary(self, rows: Array, u: Array, most: int) -> list[Array]:
        """e_0 … e_most of x u, for each of some patterns."""
        if self.signs:  # x^k is x or 1
            return elementary([rows @ u**k if k % 2 else jnp.sum(u**k) for k in range(1, most + 1)])
        return elementary([rows**k @ u**k for k in range(1, most + 1)])

    def _products(self, rows: Array, values: list[Array]) -> list[Array]:
        """(x^k)^T values[k - 1] for k = 1, 2, …"""
        if self.signs:
            odd = iter(jnp.moveaxis(rows.T @ jnp.stack(values[::2], axis=1), 1, 0))
            return [jnp.sum(each) if k % 2 else next(odd) for k, each in enumerate(values)]
        return [(rows ** (k + 1)).T @ each for k, each in enumerate(values)]

    def _noise_field(self, u: Array, neuron: Array | None = None) -> Array:
        """Field of the noise in the couplings, on all neurons or on one."""
        if self.noise is None:
            return jnp.zeros((), u.dtype)
        rest = self.noise if neuron is None else self.noise[neuron]
        for _ in range(self.order - 1):
            rest = rest @ u
        return self.noise_scale * rest

    def _up(self, h: Array, sigma: Array) -> Array:
        """Probability of 1; without thermal noise the sign of the field, and no change where that is 0."""
        cold = jnp.where(h == 0, (sigma + 1) / 2, jnp.where(h > 0, 1.0, 0.0))
        hot = jax.nn.sigmoid(self.order * h / jnp.where(self.temperature > 0, self.temperature, 1.0))
        return jnp.where(self.temperature > 0, hot, cold)

    def _moved(self, sigma: Array, external: Array, draws: Array, columns: Array) -> Array:
        """One sweep with uniform draws (2, neurons), of which the first row orders the neurons; `columns`: `patterns.T`."""
        if self.sequential:
            return _swept(self, sigma, external, draws, columns)
        return self._wanted(sigma, external, draws[1])

    def _wanted(self, sigma: Array, external: Array | float, draws: Array) -> Array:
        """Where each neuron would move now."""
        return jnp.where(draws < self._up(self.field(sigma) + external, sigma), 1.0, -1.0).astype(sigma.dtype)

    def _sweep(self, sigma: Array, external: Array, draws: Array, columns: Array) -> Array:
        """Each neuron once in random order; e_1 … e_(P-1) of each pattern follow every flip."""
        size, degree = self.neurons, self.order - 1
        unit = 2.0 ** -math.ceil(math.log2(size))  # near 1 / N and a power of two: sums of signs are exact, a field of 0 is 0
        weight = self.scale * (math.factorial(degree) if self.distinct else 1) / (size * unit) ** degree
        turns, ones = random_order(draws[0]), jnp.ones_like(columns[0])
        e = self._elementary(self.patterns, sigma * unit, degree if self.distinct else 1)[1:]

        def others(x: Array, old: Array, e: Sequence[Array]) -> list[Array]:
            """e_0, e_1, … of all neurons but this."""
            rest = [jnp.ones_like(x)]
            for each in e:
                rest.append(each - x * old * unit * rest[-1])
            return rest

        def turn(t: Array, carry: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, ...]]:
            sigma, e = carry
            i = turns[t]
            x, old = columns[i], sigma[i]
            drive = lane_sum(lambda x, *e: x * (others(x, old, e)[-1] if self.distinct else e[0] ** degree), x, *e)
            h = weight * drive + self._noise_field(sigma / size, i) + external[i]
            new = jnp.where(draws[1, t] < self._up(h, old), 1.0, -1.0).astype(sigma.dtype)

            def flipped(e: tuple[Array, ...]) -> tuple[Array, ...]:
                rest = others(x, old, e)
                return tuple(each + x * new * unit * less for each, less in zip(rest[1:], rest, strict=False))

            return put(sigma, new, i), jax.lax.cond(new != old, flipped, lambda e: e, e)

        return jax.lax.fori_loop(0, size, turn, (sigma, tuple(each * ones for each in e)))[0]


_swept = one_kernel(DenseHebbian._sweep)


def put(array: Array, value: Array, place: Array) -> Array:
    """The array with one number changed; `.at[].set` is a scatter, which `one_kernel` does not take."""
    return jax.lax.dynamic_update_index_in_dim(array, value, place, 0)


def lane_sum(function: Callable[..., Array], *arrays: Array) -> Array:
    """Sum over the elements of a function of arrays (n,): `LANES` sums at a time, nothing between held, and of any length,
    where `one_kernel` takes plain sums of some thousand numbers only."""
    whole = len(arrays[0]) // LANES

    def add(k: Array, total: Array) -> Array:
        return total + function(*(jax.lax.dynamic_slice(each, (k * LANES,), (LANES,)) for each in arrays))

    total = jnp.sum(function(*(each[whole * LANES :] for each in arrays)))
    return total + jnp.sum(jax.lax.fori_loop(0, whole, add, jnp.zeros_like(arrays[0], shape=LANES))) if whole else total


def random_order(draws: Float[Array, " count"]) -> Int[Array, " count"]:
    """All of 0, 1, … in an order that is as likely as any other, from uniform draws: shuffled from the inside out."""

    def insert(t: Array, order: Array) -> Array:
        place = (draws[t] * (t + 1)).astype(order.dtype)
        return put(put(order, order[place], t), t, place)

    return jax.lax.fori_loop(0, len(draws), insert, jnp.arange(len(draws)))


def elementary(sums: Sequence[Array]) -> list[Array]:
    """Elementary symmetric polynomials e_0 … e_k from the power sums p_1 … p_k, by Newton's identities."""
    e = [jnp.ones((), sums[0].dtype)]
    for k in range(1, len(sums) + 1):
        e.append(sum((-1) ** (j - 1) * e[k - j] * sums[j - 1] for j in range(1, k + 1)) / k)
    return e


@jax.jit
def _run(net: DenseHebbian, sigma: Array, key: Array, sweeps: Array) -> Array:
    """Sweeps of many replicas, each of which ends early where it stands still and nothing moves it again."""
    if key.dtype == jnp.uint32 and not key.ndim:
        key = jax.random.key(key)
    flat, columns = sigma.astype(net.patterns.dtype).reshape(-1, net.neurons), net.patterns.T
    settled = one_kernel(_settled) if net.sequential else _settled

    def one(spins: Array, replica: Array) -> Array:
        return settled(net, columns, spins, key, replica, sweeps)

    return jax.vmap(one)(flat, jnp.arange(len(flat))).reshape(sigma.shape)


def _settled(net: DenseHebbian, columns: Array, spins: Array, key: PRNGKeyArray, replica: Array, sweeps: Array) -> Array:
    """One replica after its sweeps, with draws of its own in each."""
    key = jax.random.fold_in(key, replica)

    def go_on(carry: tuple[Array, Array, Array]) -> Array:
        done, _, moving = carry
        return (done < sweeps) & (moving | (net.temperature > 0))

    def sweep(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        done, spins, _ = carry
        draws = jax.random.uniform(jax.random.fold_in(key, done), (2, net.neurons), spins.dtype)
        after = net._moved(spins, jnp.zeros_like(spins), draws, columns)
        return done + 1, after, jnp.any(after != spins)

    return jax.lax.while_loop(go_on, sweep, (jnp.zeros_like(sweeps), spins, jnp.ones((), bool)))[1]


@eqx.filter_jit
def _plefka(net: DenseHebbian, mean: Array, sweeps: Array, load: Array, damping: Array) -> Array:
    order = net.order
    reaction = load * math.factorial(order) * order * (order - 1) / 4 / net.temperature**2

    def once(_: Array, mean: Array) -> Array:
        q = jnp.mean(mean**2)
        back = reaction * mean * q ** (order - 2) * (1 - q)
        return (1 - damping) * mean + damping * jnp.tanh(order / 2 * net.field(mean) / net.temperature - back)

    return jax.lax.fori_loop(0, sweeps, once, mean)
