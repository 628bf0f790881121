"""k-of-N codes: a pattern is the list of the `k` active among `N` binary units; k winners with keyed or fixed ties."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from broadsheet.errors import InputError
from broadsheet.numerics.checks import concrete
from broadsheet.numerics.random import generator

TIE = 1e-3
"""Size of the noise that decides between equal drives."""


@dataclass(frozen=True)
class SparseCode:
    """Codes of `active` among `size` units, each an array of the indices of its active units, without repeats.

    **Raises:** `InputError` where there is not at least one active and one silent unit.
    """

    size: int
    active: int

    def __post_init__(self) -> None:
        if not 0 < self.active < self.size:
            raise InputError(f"SparseCode({self.size}, {self.active}): between 1 and {self.size - 1} active units are wanted.")

    def draw(self, key: PRNGKeyArray, count: int) -> Int[Array, "count active"]:
        """Random codes."""
        rng = generator(key)
        rows = (rng.random((min(1024, count - start), self.size)) for start in range(0, count, 1024))
        return jnp.asarray(np.concatenate([np.argpartition(row, self.active, axis=1)[:, : self.active] for row in rows]))

    def bits(self, codes: Int[Array, "... active"]) -> Bool[np.ndarray, "... size"]:
        """Codes as binary vectors."""
        vectors = np.zeros((*codes.shape[:-1], self.size), bool)
        np.put_along_axis(vectors, np.asarray(codes), True, axis=-1)
        return vectors

    def noisy(self, key: PRNGKeyArray, code: Int[Array, "*codes active"], moved: Any) -> Int[Array, "*codes active"]:
        """Codes with `moved` of the active units of each replaced by units that were silent."""
        return _noisy(key, code, jnp.asarray(moved), self.size)

    def project(self, key: PRNGKeyArray, rows: Float[Array, "count features"]) -> Int[Array, "count active"]:
        """Real vectors (pixels, say) to codes: a random projection of the rows less their mean, and its `active` winners.

        **Raises:** `InputError` where a row holds a number that is not finite.
        """
        known = concrete(rows)
        if known is not None and not np.isfinite(known).all():
            raise InputError("SparseCode.project: the rows hold numbers that are not finite.")
        centred = rows - rows.mean(axis=0)
        directions = jax.random.normal(key, (rows.shape[1], self.size)) / jnp.sqrt(rows.shape[1])
        return k_winners(centred @ directions, self.active)


@partial(jax.jit, static_argnums=3)
def _noisy(key: PRNGKeyArray, code: Array, moved: Array, size: int) -> Array:
    if code.ndim > 1:
        return jax.vmap(lambda key, code: _noisy(key, code, moved, size))(jax.random.split(key, len(code)), code)
    drawn = jax.random.uniform(key, (size + code.size,))
    silent = drawn[:size].at[code].set(-1.0)
    entering = k_winners(silent, min(code.size, size - code.size))
    leaving = jnp.argsort(drawn[size:])[: entering.size]
    return code.at[leaving].set(jnp.where(jnp.arange(entering.size) < moved, entering, code[leaving]))


def k_winners(
    drive: Float[Array, "... units"], k: int, key: PRNGKeyArray | None = None, tie: float = TIE
) -> Int[Array, "... k"]:
    """The `k` units with the largest drive, largest first.

    Equal drives: the lower index wins, unless a `key` is given, which adds noise of up to `tie` to each.

    **Raises:** `InputError` where k is not between 1 and the number of units.
    """
    if not 0 < k <= drive.shape[-1]:
        raise InputError(f"k_winners: k is {k}; between 1 and {drive.shape[-1]} is wanted.")
    drive = drive.astype(jnp.result_type(float))  # sorting integers is much slower
    if key is not None:
        drive = drive + tie * jax.random.uniform(key, drive.shape)
    # XLA sorts all units where it sees that only some of the winners are used; behind the barrier it can't
    return jax.lax.optimization_barrier(jax.lax.top_k(drive, k)[1])


def shared(a: Int[Array, "... k"], b: Int[Array, "... k"]) -> Int[Array, "..."]:
    """How many active units two codes have in common."""
    return (a[..., :, None] == b[..., None, :]).any(-1).sum(-1)
