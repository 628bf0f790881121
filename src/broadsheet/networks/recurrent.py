"""Recurrent baselines with the interface of a system."""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from broadsheet.dynamics.system import System, split


class Recurrent(System):
    """An LSTM or GRU with a linear read-out: (inputs,) to (outputs,) each step."""

    cell: eqx.nn.LSTMCell | eqx.nn.GRUCell
    head: eqx.nn.Linear

    def __init__(
        self, inputs: int, hidden: int, outputs: int, *, kind: Literal["lstm", "gru"] = "lstm", key: PRNGKeyArray
    ) -> None:
        cell_key, head_key = split(key, 2)
        make = eqx.nn.LSTMCell if kind == "lstm" else eqx.nn.GRUCell
        self.cell = make(inputs, hidden, key=cell_key)
        self.head = eqx.nn.Linear(hidden, outputs, key=head_key)

    def init(self, key: PRNGKeyArray) -> PyTree:
        zeros = jnp.zeros(self.cell.hidden_size)
        return (zeros, zeros) if isinstance(self.cell, eqx.nn.LSTMCell) else zeros

    def step(
        self, state: PyTree, inputs: Float[Array, " inputs"], key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Float[Array, " outputs"]]:
        state = self.cell(inputs, state)
        hidden = state[0] if isinstance(state, tuple) else state
        return state, self.head(hidden)
