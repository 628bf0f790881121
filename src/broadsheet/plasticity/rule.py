"""What a learning rule is: a projection whose weights follow the spikes on both of its sides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import equinox as eqx
import jax
from jaxtyping import Array, Float

from broadsheet.dynamics.system import State, System, as_array
from broadsheet.errors import InputError

RuleT = TypeVar("RuleT", bound="LearningRule")


class LearningRule(System):
    """A plastic projection, which all learning rules are. Input: `(pre, post, *modulators)` of this step. Output: what arrives
    at the other side, (post,).

    `pre` (pre,) and `post` (post,) are spikes, or activity. The weights (pre, post) live in the state: `init` puts them there,
    `learned(state)` reads them, and `consolidate(state)` returns the rule with them. A subclass defines `init` and `step`,
    keeps `weights` in its state or says where they are in `learned`, and declares what is special about it:

    - `modulators`: names of further inputs, in their order, with `"one"` for a number, which all synapses share, or `"post"`
      for one a postsynaptic neuron. A rule of two factors has none.
    - `local`: whether a synapse changes by the activity of its own two neurons and modulators alone;
    - `sees_output`: whether the activity of the postsynaptic neuron includes what its synapses send it, as for an error.
    - `decays`: whether weights shrink where no neuron is active.
    - `limits`: between what weights stay; a rule that keeps them nowhere by itself says `unbounded`.

    **Arguments:** `weights` (pre, post), at the start; None for a rule that is given to a network, which puts it `on` its own.
    """

    weights: Float[Array, "pre post"] | None

    modulators: ClassVar[Mapping[str, Literal["one", "post"]]] = {}
    local: ClassVar[bool] = True
    sees_output: ClassVar[bool] = False
    decays: ClassVar[bool] = False
    unbounded: ClassVar[bool] = False

    def __init__(self, weights: Any = None) -> None:
        self.weights = None if weights is None else _matrix(weights)

    @property
    def limits(self) -> tuple[Any, Any]:
        """The smallest and the largest weight that the rule allows."""
        return -float("inf"), float("inf")

    @property
    def start(self) -> Float[Array, "pre post"]:
        """Weights at the start; raises `InputError` for a rule that has none yet."""
        if self.weights is None:
            raise InputError(f"{type(self).__name__} has no weights yet: put it on a projection with rule.on(weights).")
        return self.weights

    def on(self: RuleT, weights: Any) -> RuleT:
        """The rule on a projection with these weights (pre, post)."""
        return eqx.tree_at(lambda rule: rule.weights, self, _matrix(weights), is_leaf=lambda leaf: leaf is None)

    def learned(self, state: State) -> Float[Array, "pre post"]:
        """The weights that a state has learned."""
        if not hasattr(state, "weights"):
            raise InputError(f"{type(self).__name__} keeps no `weights` in its state: let it define learned(state).")
        return state.weights

    def trial(self, state: State, *inputs: Array) -> State:
        """The state after a trial: `(pre, post, *modulators)`, time first; by default step after step."""
        return jax.lax.scan(lambda state, given: (self.step(state, given)[0], None), state, inputs)[0]

    def consolidate(self: RuleT, state: State) -> RuleT:
        return self.on(self.learned(state))


def of_two_factors(rule: Any, network: str) -> LearningRule:
    """The rule, for a network that gives it spikes and nothing else; raises `InputError` for any other thing."""
    if isinstance(rule, type) and issubclass(rule, LearningRule):
        raise InputError(f"rule = {rule.__name__} of {network}; a rule of this class is wanted, {rule.__name__}(…).")
    if not isinstance(rule, LearningRule):
        raise InputError(f"rule = {rule!r} of {network}; a learning rule of broadsheet.plasticity is wanted.")
    if rule.modulators:
        raise InputError(
            f"{type(rule).__name__} also wants {', '.join(rule.modulators)}; {network} has the spikes of both sides alone."
        )
    return rule


def _matrix(weights: Any) -> Float[Array, "pre post"]:
    made = as_array(weights)
    if made.ndim != 2 or 0 in made.shape:
        raise InputError(f"weights have the shape {made.shape}; (pre, post), at least one of each, is wanted.")
    return made
