"""How strongly a cell contracts and how compressible it is, from its tractions and the stiffness of its adhesions."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike
from scipy.optimize import minimize

from broadsheet.errors import InputError
from broadsheet.matter.elastic_sheet import ElasticSheet, node_displacement, pixel_means
from broadsheet.matter.traction_errors import as_forces


class Tensions(NamedTuple):
    """What `recover_tensions` found."""

    sigma_a: float
    """Active stress, kPa µm."""
    alpha: float
    """lambda / (2 mu)."""
    error: float
    """Squared error that is left, over the squared tractions."""


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.value_and_grad, argnums=1)
def _misfit(h: float, logs: Array, mask: Array, Y: Array, F: Array) -> Array:
    sigma_a, alpha = jnp.exp(logs)
    pull = jnp.broadcast_to(sigma_a, Y.shape)
    active = jnp.stack([pull, pull, jnp.zeros_like(pull)])
    found = jnp.where(mask, Y * pixel_means(node_displacement(h, mask, Y, active, alpha)), 0)
    return jnp.sum((found - F) ** 2) / jnp.sum(F**2)


def recover_tensions(sheet: ElasticSheet, Y: ArrayLike, F: ArrayLike, start: tuple[float, float] = (0.5, 0.2)) -> Tensions:
    """Active stress and alpha with which the sheet's tractions come closest to F: L-BFGS on their logarithms with the
    adjoint gradient. The precision is JAX's: with float64 both are found to about 1e-5 where F has no noise."""
    force = as_forces(F)[0]
    if force.shape[1:] != sheet.mask.shape or not force[:, sheet.mask].any():
        raise InputError(
            f"recover_tensions: tractions of shape {force.shape}, not all 0 in the mask of {sheet.mask.shape}, are wanted."
        )
    Y = np.where(sheet.mask, np.asarray(Y, float), 0.0)
    given = [jnp.asarray(each) for each in (sheet.mask, Y, force * sheet.mask)]

    def objective(logs: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _misfit(sheet.h, jnp.asarray(logs), *given)
        return float(value), np.asarray(slope, float)

    tight = {"ftol": 1e-16, "gtol": 1e-12, "maxiter": 200}
    found = minimize(objective, np.log(start), jac=True, method="L-BFGS-B", bounds=[(-10, 10), (-6, 3)], options=tight)
    sigma_a, alpha = np.exp(found.x)
    return Tensions(float(sigma_a), float(alpha), float(found.fun))
