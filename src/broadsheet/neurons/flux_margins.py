"""How far the supply currents of a circuit of Josephson junctions may be off, and the energy that they give.

A designer's margin of a supply line is the range of factors on its currents, all other lines at their nominal values, within
which the circuit still answers every input with the right number of fluxons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from broadsheet.dynamics.rollout import rollout
from broadsheet.errors import InputError
from broadsheet.neurons.josephson import FLUX_QUANTUM, Circuit, Josephson, fluxons


class Margin(NamedTuple):
    """Factors of a supply line that were tried, at which the circuit works, and the ends of the working range around 1."""

    factors: Float[np.ndarray, " factors"]
    works: Bool[np.ndarray, " factors"]
    low: float
    high: float

    @property
    def width(self) -> float:
        """How far the line may be off to either side, as a share; 0 where the nominal circuit fails."""
        return round(min(1.0 - self.low, self.high - 1.0), 6)


@eqx.filter_jit
def _last_phases(
    system: Josephson, biases: Float[Array, "settings nodes"], inputs: Float[Array, "cases time drives"], keys: Array | None
) -> Float[Array, "settings cases nodes"]:
    def one(bias: Array, x: Array, key: PRNGKeyArray | None) -> Array:
        biased = eqx.tree_at(lambda system: system.bias, system, bias)
        return rollout(biased, x, key=key, record=lambda state, phase: None)[0].phase

    axis = None if keys is None else 0
    return jax.vmap(jax.vmap(one, (None, 0, axis)), (0, None, axis))(biases, inputs, keys)


def pulses_out(
    system: Josephson, inputs: Float[Array, "cases time drives"], factors: Float[Array, "settings groups"],
    keys: Array | None = None,
) -> Int[np.ndarray, "settings cases nodes"]:  # fmt: skip
    """Fluxons that pass each node, for each setting of the supply lines (factors on their currents) and each input.

    `keys` [settings, cases] draw thermal noise; without them there is none.
    """
    biases = jnp.asarray(factors, system.bias.dtype) @ system.group
    return np.asarray(fluxons(_last_phases(system, biases, jnp.asarray(inputs), keys)))


def margins(
    circuit: Circuit, output: str, inputs: Float[Array, "cases time drives"], expected: Sequence[int],
    factors: Mapping[str, Sequence[float]], *, nominal: Mapping[str, float] | None = None, dt: float = 0.05,
) -> dict[str, Margin]:  # fmt: skip
    """The margin of each supply line that `factors` names, without noise.

    **Arguments:** `inputs`: currents, µA, of each case; `expected`: fluxons that `output` should pass in each; `factors`:
    supply line -> factors to try, with 1 among them; `nominal`: factors that stand for the lines' nominal values, by default 1.

    **Raises:** `InputError` for a line or node that the circuit has not, and where 1 is not among the factors.
    """
    groups, system = circuit.groups(), circuit.build(dt=dt)
    for name, tried in factors.items():
        if name not in groups:
            raise InputError(f"There is no supply line {name!r}; there are {', '.join(groups)}.")
        if 1.0 not in tried:
            raise InputError(f"The factors of the supply line {name!r} are to have 1 among them, its nominal value.")
    base = np.array([(nominal or {}).get(name, 1.0) for name in groups])
    rows = [
        np.where(np.array(groups) == name, factor, 1.0) * base for name, tried in factors.items() for factor in sorted(tried)
    ]
    counts = pulses_out(system, inputs, jnp.asarray(np.array(rows)))[..., system.node(output)]
    right = (counts == np.asarray(expected)).all(axis=1)
    found, start = {}, 0
    for name, tried in factors.items():
        found[name] = _around_one(np.array(sorted(tried)), right[start : start + len(tried)])
        start += len(tried)
    return found


def _around_one(factors: np.ndarray, works: np.ndarray) -> Margin:
    low = high = int(np.argmin(np.abs(factors - 1.0)))
    if not works[low]:
        return Margin(factors, works, 1.0, 1.0)
    while low > 0 and works[low - 1]:
        low -= 1
    while high + 1 < len(works) and works[high + 1]:
        high += 1
    return Margin(factors, works, float(factors[low]), float(factors[high]))


def supplied_energy(system: Josephson, passed: Int[np.ndarray, "*batch nodes"]) -> Float[np.ndarray, "*batch"]:
    """Energy, aJ, that the bias currents give while fluxons pass the nodes: the sum of `I Phi0` over biases and fluxons."""
    return np.asarray(np.asarray(passed) @ np.asarray(system.bias, float) * FLUX_QUANTUM * 1e-6)
