"""k-of-N codes: a pattern is the list of the `k` active among `N` binary units; k winners with keyed or fixed ties."""

from __future__ import annotations

from dataclasses import dataclass

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

    def noisy(self, key: PRNGKeyArray, code: Int[Array, " active"], moved: int) -> Int[Array, " active"]:
        """A code with `moved` of its active units replaced by units that were silent."""
        leave, enter = jax.random.split(key)
        silent = jax.random.uniform(enter, (self.size,)).at[code].set(-1.0)
        which = jax.lax.top_k(jax.random.uniform(leave, (self.active,)), moved)[1]
        return code.at[which].set(jax.lax.top_k(silent, moved)[1])

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
    return jax.lax.top_k(drive, k)[1]


def shared(a: Int[Array, "... k"], b: Int[Array, "... k"]) -> Int[Array, "..."]:
    """How many active units two codes have in common."""
    return (a[..., :, None] == b[..., None, :]).any(-1).sum(-1)
