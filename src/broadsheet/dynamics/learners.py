"""Learners: interactions whose state is weights, so that a network trains itself while values flow through it.

A learner sends f(w, a) forward. In the cotangent convention replies are derivatives of the loss, `put` is the pulled-back
derivative and any Optax optimiser moves w; composing learners is the chain rule. In the target convention ("backprop as
functor", arXiv 1711.10455) replies are corrected values, exact for the quadratic loss only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from broadsheet.dynamics.interactions import Interaction, Respond, Wiring
from broadsheet.dynamics.system import State, as_array
from broadsheet.errors import InputError


class Learner(Interaction):
    """A model and its optimiser as an interaction; replies are cotangents (d loss / d output), its own one d loss / d input.

    Of a batch the gradients of the weights are summed, as the loss that averages expects. Updates are not differentiated
    through, unless `differentiable`.
    """

    model: Any
    optimiser: optax.GradientTransformation = eqx.field(static=True)
    differentiable: bool = eqx.field(static=True, default=False)

    def init(self, key: PRNGKeyArray | None = None) -> State:
        weights = eqx.filter(self.model, eqx.is_inexact_array)
        return weights, self.optimiser.init(weights)

    def react(self, state: State, value: PyTree) -> tuple[PyTree, Respond]:
        weights, memory = state
        rest = eqx.filter(self.model, eqx.is_inexact_array, inverse=True)
        output, pull = jax.vjp(lambda w, a: eqx.combine(w, rest)(a), weights, value)

        def back(reply: PyTree) -> tuple[PyTree, State]:
            gradient, upstream = pull(reply)
            if not self.differentiable:
                gradient = jax.lax.stop_gradient(gradient)
            updates, after = self.optimiser.update(gradient, memory, weights)
            return upstream, (eqx.apply_updates(weights, updates), after)

        return output, back

    def learned(self, state: State) -> Any:
        """The model with the weights of a state."""
        return eqx.combine(state[0], self.model)


class TargetLearner(Interaction):
    """The target convention: replies are the values that the outputs should have had, its own one is such an input.

    w' = w - eps d/dw |f(w, a) - b'|²/2 and a' = a - d/da |f(w, a) - b'|²/2.
    """

    model: Any
    step_size: Float[Array, ""] = eqx.field(converter=as_array)

    def init(self, key: PRNGKeyArray | None = None) -> State:
        return eqx.filter(self.model, eqx.is_inexact_array)

    def react(self, state: State, value: PyTree) -> tuple[PyTree, Respond]:
        rest = eqx.filter(self.model, eqx.is_inexact_array, inverse=True)
        output, pull = jax.vjp(lambda w, a: eqx.combine(w, rest)(a), state, value)

        def back(target: PyTree) -> tuple[PyTree, State]:
            gradient, upstream = pull(jax.tree.map(jnp.subtract, output, target))
            after = jax.tree.map(lambda w, g: w - self.step_size * g, state, gradient)
            return jax.tree.map(jnp.subtract, value, upstream), after

        return output, back


class Loss(Interaction):
    """The end of a chain: (prediction, label) forward to a number; the reply 1 sends d number / d prediction back.

    The label gets no reply (None).
    """

    function: Callable[[PyTree, PyTree], Array] = eqx.field(static=True)

    def react(self, state: State, value: PyTree) -> tuple[PyTree, Respond]:
        prediction, label = value
        number, pull = jax.vjp(lambda b: self.function(b, label), prediction)
        return number, lambda reply: ((pull(jnp.asarray(reply, number.dtype))[0], None), state)


class Outcome(Interaction):
    """Between experts that learn by cotangents and a world that tells outcomes: the reply y becomes d loss(b, y) / d b."""

    function: Callable[[PyTree, PyTree], Array] = eqx.field(static=True)

    def react(self, state: State, value: PyTree) -> tuple[PyTree, Respond]:
        return value, lambda outcome: (jax.grad(self.function)(value, outcome), state)


class Market(Interaction):
    """Experts' predictions in, their weighted mean out; who errs loses weight: a wiring that changes with what it carries.

    The state is the logarithms of the weights v, so that none is ever 0. The reply is the outcome, which every expert is told;
    `v_k <- v_k exp(-eta loss_k) / Z`, then `v <- (1 - alpha) v + alpha / K` (Herbster and Warmuth's fixed share; `share=0` is
    plain multiplicative weights, and `rate=0` a fixed uniform average).

    **Arguments:** `experts`: how many; `loss(prediction, outcome)`: in [0, 1]; `rate`: eta; `share`: alpha.
    """

    loss: Callable[[PyTree, PyTree], Array] = eqx.field(static=True)
    experts: int = eqx.field(static=True)
    rate: Float[Array, ""] = eqx.field(converter=as_array)
    share: Float[Array, ""] = eqx.field(converter=as_array)

    def __init__(self, loss: Callable, experts: int, *, rate: float = 0.3, share: float = 0.002) -> None:
        if experts < 1 or rate < 0 or not 0 <= share < 1:
            raise InputError(f"Market: experts = {experts}, rate = {rate}, share = {share}; ≥ 1, ≥ 0 and in [0, 1) are wanted.")
        self.loss, self.experts = loss, experts
        self.rate, self.share = as_array(rate), as_array(share)

    def init(self, key: PRNGKeyArray | None = None) -> State:
        return jnp.full(self.experts, -jnp.log(self.experts), jnp.result_type(float))

    def react(self, state: State, value: tuple) -> tuple[PyTree, Respond]:
        weights = self.weights(state)
        mean = jax.tree.map(lambda *parts: jnp.tensordot(weights, jnp.stack(parts), axes=1), *value)

        def back(outcome: PyTree) -> tuple[PyTree, State]:
            losses = jnp.stack([self.loss(prediction, outcome) for prediction in value])
            trust = jax.nn.log_softmax(state - self.rate * losses)
            shared = jnp.logaddexp(jnp.log1p(-self.share) + trust, jnp.log(self.share / self.experts))
            return (outcome,) * self.experts, jnp.where(self.share > 0, shared, trust)

        return mean, back

    def weights(self, state: State) -> Float[Array, " experts"]:
        """The weights v of a state."""
        return jnp.exp(state)


class Batched(eqx.Module):
    """A model of one example as a model of a batch."""

    model: Any

    def __call__(self, batch: PyTree) -> PyTree:
        return jax.vmap(self.model)(batch)


def learner(
    model: Any, optimiser: optax.GradientTransformation, *, batched: bool = False, differentiable: bool = False
) -> Learner:
    """A model (any callable pytree) that learns by `optimiser` from the replies to its outputs.

    **Arguments:** `batched`: values have a batch axis in front, the model has not; `differentiable`: its updates can be
    differentiated through, for learning to learn.

    **Raises:** `InputError` where the model is no function.
    """
    if not callable(model):
        raise InputError(f"learner: {type(model).__name__} is no function of its input.")
    return Learner(Batched(model) if batched else model, optimiser, differentiable)


def supervised(network: Interaction, loss: Callable[[PyTree, PyTree], Array]) -> Interaction:
    """A network and its loss: (input, label) in, a number out; `respond(…, 1.0)` of it is a system that trains itself."""
    return network @ Wiring() >> Loss(loss)
