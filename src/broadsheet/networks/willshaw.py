"""Willshaw's binary associative memory: one-shot, sparse codes, a synapse is there or not; and its closed forms.

Willshaw, Buneman and Longuet-Higgins (1969). Storing a pair switches on the synapses between its active units; recall adds the
synapses of the active inputs and lets the k units with the most of them win. Codes are lists of active units.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from broadsheet.errors import InputError
from broadsheet.numerics.checks import concrete
from broadsheet.numerics.sparse_codes import k_winners

DENSE = 1000
"""Synapses of a pair from which on pairs are stored by a product of matrices."""


class Willshaw(eqx.Module):
    """Binary synapses from `inputs` to `outputs` units; `auto` for patterns with themselves, without a synapse onto itself.

    It does not change: `store` returns the memory that has learned.

    **Arguments:** `connectivity`: the share of synapses that can exist at all, drawn with `key`.

    **Raises:** `InputError` for sizes below 1, a connectivity outside (0, 1] or without a key, `auto` of unequal sizes.
    """

    weights: Bool[Array, "inputs outputs"]
    mask: Bool[Array, "inputs outputs"] | None
    auto: bool = eqx.field(static=True)

    def __init__(
        self, outputs: int, inputs: int, connectivity: float = 1.0, *, auto: bool = False, key: PRNGKeyArray | None = None
    ) -> None:
        if outputs < 1 or inputs < 1 or (auto and outputs != inputs):
            raise InputError(f"Willshaw: {outputs} outputs and {inputs} inputs{' of an auto memory' if auto else ''}.")
        if not 0 < connectivity <= 1 or (connectivity < 1 and key is None):
            raise InputError(f"Willshaw: connectivity is {connectivity}; a share in (0, 1] is wanted, below 1 with a key.")
        self.weights = jnp.zeros((inputs, outputs), bool)
        self.mask = None if connectivity == 1 or key is None else jax.random.bernoulli(key, connectivity, (inputs, outputs))
        self.auto = auto

    def store(
        self, x: Int[Array, "*pairs active_in"], y: Int[Array, "*pairs active_out"] | None = None, on: Any = True
    ) -> Willshaw:
        """The memory with these pairs as well (an auto memory takes `x` alone); nothing where `on` is false.

        **Raises:** `InputError` where a unit is outside the memory, or where `y` is missing.
        """
        if y is None:
            if not self.auto:
                raise InputError("Willshaw.store: a memory of pairs wants x and y.")
            y = x
        for name, codes, size in (("inputs", x, self.weights.shape[0]), ("outputs", y, self.weights.shape[1])):
            known = concrete(codes)
            if known is not None and known.size and not (known.min() >= 0 and known.max() < size):
                raise InputError(f"Willshaw.store: the codes name units outside 0 to {size - 1}, the memory's {name}.")
        if x.ndim == 2 and x.shape[1] * y.shape[1] > DENSE:
            return self._store_dense(x, y, on)
        if x.ndim == 1 and len(x) * len(y) > DENSE:
            return self.store_bits(x, jnp.zeros(self.weights.shape[1], bool).at[y].set(jnp.asarray(on, bool)))
        rows, columns = x[..., :, None], y[..., None, :]
        allowed = jnp.asarray(on, bool)
        if self.auto:
            allowed = allowed & (rows != columns)
        if self.mask is not None:
            allowed = allowed & self.mask[rows, columns]
        learned = self.weights.at[rows, columns].max(jnp.broadcast_to(allowed, jnp.broadcast_shapes(rows.shape, columns.shape)))
        return eqx.tree_at(lambda memory: memory.weights, self, learned)

    def _store_dense(self, x: Int[Array, "pairs active_in"], y: Int[Array, "pairs active_out"], on: Any) -> Willshaw:
        """The same by a product of matrices, for pairs with many synapses each."""
        at = jnp.arange(len(x))[:, None]
        left, right = (
            jnp.zeros((len(x), size)).at[at, codes].set(1.0) for codes, size in zip((x, y), self.weights.shape, strict=True)
        )
        learned = self.weights | ((left.T @ right > 0) & on)
        if self.auto:
            learned = learned & ~jnp.eye(len(learned), dtype=bool)
        if self.mask is not None:
            learned = learned & self.mask
        return eqx.tree_at(lambda memory: memory.weights, self, learned)

    def store_bits(self, x: Int[Array, " active_in"], y: Bool[Array, " outputs"]) -> Willshaw:
        """The memory with one pair more, whose output may have any number of active units."""
        if len(x) * len(y) > 100 * DENSE:  # all synapses at once, rather than so many one by one
            rows = jnp.zeros(len(self.weights), bool).at[x].set(True)[:, None] & y
            if self.auto:
                rows = rows & ~jnp.eye(len(y), dtype=bool)
            if self.mask is not None:
                rows = rows & self.mask
            return eqx.tree_at(lambda memory: memory.weights, self, self.weights | rows)
        rows = jnp.broadcast_to(y, (len(x), len(y)))
        if self.auto:
            rows = rows & (jnp.arange(len(y)) != x[:, None])
        if self.mask is not None:
            rows = rows & self.mask[x]
        return eqx.tree_at(lambda memory: memory.weights, self, self.weights.at[x].max(rows))

    def drive(self, x: Int[Array, " active_in"]) -> Float[Array, " outputs"]:
        """How many active inputs reach each output."""
        return self.weights[x].sum(0, dtype=jnp.int32).astype(jnp.result_type(float))

    def drive_back(self, y: Int[Array, " active_out"]) -> Float[Array, " inputs"]:
        """How many active outputs each input reaches: the transpose."""
        return self.weights[:, y].sum(1, dtype=jnp.int32).astype(jnp.result_type(float))

    def recall(
        self, x: Int[Array, "*cues active_in"], k: int, key: PRNGKeyArray | None = None
    ) -> tuple[Int[Array, "*cues k"], Float[Array, "*cues"]]:
        """(the k winners, the drive of the last of them); ties by index, or by noise where there is a key."""
        if x.ndim > 1:
            keys = None if key is None else jax.random.split(key, len(x))
            return jax.vmap(lambda x, key: self.recall(x, k, key))(x, keys)
        drive = self.drive(x)
        winners = k_winners(drive, k, key)
        return winners, drive[winners[-1]]

    @property
    def density(self) -> Float[Array, ""]:
        """Share of the possible synapses that are there."""
        possible = self.weights.size if self.mask is None else self.mask.sum()
        if self.auto:
            possible = possible - (len(self.weights) if self.mask is None else jnp.trace(self.mask))
        return self.weights.sum() / possible


def bit_density(pairs: Any, outputs: int, inputs: int, active_out: int, active_in: int) -> np.ndarray:
    """Expected share of synapses after so many random pairs: 1 - (1 - k k' / N N')^M."""
    return np.asarray(1 - (1 - active_out * active_in / (outputs * inputs)) ** np.asarray(pairs, float))


def spurious_units(outputs: int, active: int, density: Any) -> np.ndarray:
    """Expected number of silent units that all inputs of a whole cue reach, (N - k) p^k, as if synapses were independent.

    Those of one column are not (their unit was active in a number of patterns that varies), so that there are more.
    """
    return np.asarray((outputs - active) * np.asarray(density, float) ** active)


def spurious_units_by_usage(pairs: int, outputs: int, inputs: int, active: int) -> float:
    """The same with that variation: p^k averaged over the binomial number of patterns in which a unit was active."""
    used = np.arange(pairs + 1)
    share = active / outputs
    # log binomial by differences, so that no factorial overflows
    steps = np.log(pairs - used[:-1]) - np.log(used[1:]) + np.log(share) - np.log1p(-share)
    log = np.concatenate([[0.0], np.cumsum(steps)]) + pairs * np.log1p(-share)
    reached = 1 - (1 - active / inputs) ** used
    return float((outputs - active) * (np.exp(log) * reached**active).sum())


def largest_load(size: int, active: int) -> float:
    """Number of pairs at which half of the synapses are there: ln 2 (N / k)^2."""
    return float(np.log(2) * (size / active) ** 2)
