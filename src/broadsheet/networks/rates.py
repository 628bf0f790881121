"""Rate networks: units with a nonlinearity, recurrent weights and a linear read-out."""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics.system import System, as_array, fixed
from broadsheet.errors import InputError

ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}
Activation = Literal["identity", "relu", "sigmoid", "softplus", "tanh"]


class RateRNN(System):
    """`h <- (1 - alpha) h + alpha phi(W_in x + W_rec h + b)`, outputs `W_out h + c`: (inputs,) to (outputs,) each step.

    With `alpha = 1` it is the plain RNN of Elman and of PyTorch (whose two biases are summed in b), with `alpha = dt / tau`
    the leaky one of neuroscience (Song et al., PLOS Comput Biol 12, e1004792 (2016)). Weights start uniform in
    ±1/sqrt(columns), those of the units in ±1/sqrt(units), as PyTorch does; biases start at 0. The state is h, at first 0.

    **Arguments:** `activation`: phi; `alpha`: in (0, 1]; `bias`: whether b and c are there (else None, and never trained).
    """

    w_in: Float[Array, "units inputs"]
    w_rec: Float[Array, "units units"]
    w_out: Float[Array, "outputs units"]
    b: Float[Array, " units"] | None
    c: Float[Array, " outputs"] | None
    alpha: Float[Array, ""] = fixed()
    activation: Activation = eqx.field(static=True)

    def __init__(
        self, inputs: int, units: int, outputs: int, *, activation: Activation = "relu", alpha: float = 1.0,
        bias: bool = False, key: PRNGKeyArray,
    ) -> None:  # fmt: skip
        if min(inputs, units, outputs) < 1 or not 0 < alpha <= 1 or activation not in ACTIVATIONS:
            raise InputError(
                f"RateRNN: {inputs} inputs, {units} units, {outputs} outputs, alpha = {alpha:g}, activation {activation!r}; "
                f"at least one of each, alpha in (0, 1] and one of {', '.join(ACTIVATIONS)} are wanted."
            )
        k_in, k_rec, k_out = jax.random.split(key, 3)
        edge = units**-0.5
        self.w_in = jax.random.uniform(k_in, (units, inputs), minval=-(inputs**-0.5), maxval=inputs**-0.5)
        self.w_rec = jax.random.uniform(k_rec, (units, units), minval=-edge, maxval=edge)
        self.w_out = jax.random.uniform(k_out, (outputs, units), minval=-edge, maxval=edge)
        self.b = jnp.zeros(units) if bias else None
        self.c = jnp.zeros(outputs) if bias else None
        self.alpha, self.activation = as_array(alpha), activation

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.w_rec.shape[0]

    def init(self, key: PRNGKeyArray | None = None) -> Float[Array, " units"]:
        return jnp.zeros_like(self.w_rec[0])

    def current(self, state: Float[Array, " units"], inputs: Float[Array, " inputs"]) -> Float[Array, " units"]:
        """What the units' nonlinearity is applied to."""
        current = self.w_in @ inputs + self.w_rec @ state
        return current if self.b is None else current + self.b

    def update(self, state: Float[Array, " units"], inputs: Float[Array, " inputs"]) -> Float[Array, " units"]:
        """The next state."""
        return (1 - self.alpha) * state + self.alpha * ACTIVATIONS[self.activation](self.current(state, inputs))

    def output(self, state: Float[Array, "*time units"]) -> Float[Array, "*time outputs"]:
        """The read-out of states."""
        out = state @ self.w_out.T
        return out if self.c is None else out + self.c

    def step(
        self, state: Float[Array, " units"], inputs: Float[Array, " inputs"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, " units"], Float[Array, " outputs"]]:
        state = self.update(state, inputs)
        return state, self.output(state)

    def states(
        self, inputs: Float[Array, "time inputs"], state: Float[Array, " units"] | None = None
    ) -> Float[Array, "time units"]:
        """The states after each step. The inputs' part is computed for all times at once, which a rollout cannot."""
        driven = inputs @ self.w_in.T
        if self.b is not None:
            driven = driven + self.b

        def step(h: Array, drive: Array) -> tuple[Array, Array]:
            h = (1 - self.alpha) * h + self.alpha * ACTIVATIONS[self.activation](drive + self.w_rec @ h)
            return h, h

        return jax.lax.scan(step, self.init() if state is None else state, driven)[1]

    def __call__(self, inputs: Float[Array, "time inputs"]) -> Float[Array, "time outputs"]:
        """Outputs at each time, from the state 0."""
        return self.output(self.states(inputs))
