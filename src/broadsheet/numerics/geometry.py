"""Distances and directions that have a gradient everywhere."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def norm(vectors: Float[Array, "*batch dim"], floor: float = 1e-12) -> Float[Array, "*batch"]:
    """Length of each vector; the gradient at zero is zero instead of NaN."""
    return jnp.sqrt(jnp.maximum(jnp.sum(vectors**2, axis=-1), floor**2))


def direction(vectors: Float[Array, "*batch dim"], floor: float = 1e-12) -> Float[Array, "*batch dim"]:
    """Unit vectors; zero for a zero vector."""
    return vectors / norm(vectors, floor)[..., None]


def pair_displacements(
    to: Float[Array, "n dim"], source: Float[Array, "m dim"], box: float | Float[Array, ""] | None = None
) -> Float[Array, "n m dim"]:
    """`to[i] - source[j]` for all pairs; with `box`, the nearest image in a periodic cube of that side."""
    delta = to[:, None, :] - source[None, :, :]
    if box is None:
        return delta
    return delta - box * jnp.round(delta / box)
