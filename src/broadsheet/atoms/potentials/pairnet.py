"""A pair energy that a small network learns; elements are nothing to it."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.atoms.pair import PairPotential, gaussian_basis
from broadsheet.atoms.registry import potential
from broadsheet.errors import InputError


@dataclass(frozen=True)
class PairConfig:
    """Sizes. `width`: features of a hidden layer; `basis`: Gaussians of the distance; `cutoff`: Å; `unit`: of energy, eV."""

    width: int = 32
    basis: int = 16
    cutoff: float = 5.0
    unit: float = 1.0

    def check(self) -> PairConfig:
        """Itself; raises `InputError` for sizes that make no network."""
        if self.width < 1 or self.basis < 2 or not min(self.cutoff, self.unit) > 0:
            raise InputError("PairNet: one feature, two Gaussians, and a cutoff and a unit above 0 are wanted.")
        return self


@potential("pairnet", settings=PairConfig, sizes={"standard": PairConfig(cutoff=6.0), "tiny": PairConfig()})
class PairNet(PairPotential):
    """Gaussians of the distance, two hidden layers, a cosine taper."""

    layers: tuple[eqx.nn.Linear, ...]
    config: PairConfig = eqx.field(static=True)
    cutoff: float = eqx.field(static=True)

    def __init__(self, config: PairConfig, key: PRNGKeyArray | int):
        self.config, self.cutoff = config.check(), config.cutoff
        key = jax.random.key(key) if isinstance(key, int) else key
        self.layers = eqx.nn.MLP(config.basis, "scalar", config.width, 2, key=key).layers

    def pair(self, r: Float[Array, "atoms neighbours"]) -> Float[Array, "atoms neighbours"]:
        return self.config.unit * jax.vmap(jax.vmap(self._energy))(gaussian_basis(r, self.config.basis, self.cutoff))

    def _energy(self, x: Float[Array, " basis"]) -> Float[Array, ""]:
        for layer in self.layers[:-1]:
            x = jax.nn.silu(layer(x))
        return self.layers[-1](x)
