"""A small classifier of spike trains: one hidden layer of neurons, which may learn what they are beside their weights.

Three ways train it: gradients through surrogate spikes, the tempotron's errors, or a learning rule without labels, such as
spike-timing-dependent plasticity. Two decisions read it: a linear read-out of spike counts, or the Lempel-Ziv complexity of
the hidden spike trains.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.utils.validation import check_is_fitted

from broadsheet.dynamics import rollout, trainable
from broadsheet.dynamics.system import common_dt
from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.networks.layers import SNN, Patterns, PlasticLayer, SpikingLayer, cross_entropy, linear
from broadsheet.neurons.complexity import lzc
from broadsheet.neurons.integrate_and_fire import LIF
from broadsheet.neurons.intrinsics import Intrinsic
from broadsheet.neurons.meta_neuron import LevyBaxter, MetaNeuron, QuantalRelease
from broadsheet.neurons.surrogates import fast_sigmoid
from broadsheet.plasticity import STDP, LearningRule, Tempotron
from broadsheet.plasticity.rule import of_two_factors

Kind = Literal["lif", "meta", "probabilistic", "levy-baxter"]


_spikes_of = eqx.filter_jit(lambda net, X, key: net.spikes(X, key))


def cells(kind: Kind, size: int, *, tau: Any = 10.0, learn: bool = True) -> Intrinsic:
    """Hidden neurons of a kind. Learned are of LIF neurons tau and threshold, of meta neurons a, b, c and d, and kappa too
    where they are probabilistic."""
    if kind == "lif":
        neuron = LIF(size, tau=tau, rest=0.0, threshold=1.0, reset=None, spike=fast_sigmoid(10.0), dt=1.0)
        return Intrinsic(neuron, ("tau", "threshold") if learn else ())
    if kind == "meta":
        return Intrinsic(MetaNeuron(size), tuple("abcd") if learn else ())
    if kind == "probabilistic":
        return Intrinsic(MetaNeuron(size, kappa=0.1), (*"abcd", "kappa") if learn else ())
    raise InputError(f"neuron = {kind!r}; lif, meta or probabilistic is wanted here.")


def network(
    kind: Kind, inputs: int, hidden: int, classes: int, key: PRNGKeyArray, *, tau: Any = 10.0, learn: bool = True,
    spread: float = 0.25, release: float = 1.0,
) -> SNN:  # fmt: skip
    """A network before training: weights onto the hidden layer normal with `spread`, read-out weights with 1 / sqrt(hidden).

    Meta neurons get a bias of -1.5: without it they would fire on no input at all. `release`: how far the amplitudes of the
    synapses of probabilistic neurons lie from 1.
    """
    k_in, k_out = jax.random.split(key)
    weights = spread * jax.random.normal(k_in, (hidden, inputs))
    head = linear(jax.random.normal(k_out, (classes, hidden)) / jnp.sqrt(hidden), jnp.zeros(classes))
    if kind == "levy-baxter":
        cell = LevyBaxter(4 * jnp.abs(weights), success=0.75, threshold=1.0)
        return SNN(Intrinsic(cell, ("success", "threshold") if learn else ()), head)
    quanta = QuantalRelease(inputs, spread=release)
    synapses = Intrinsic(quanta, ("success",) if learn else ()) if kind == "probabilistic" else None
    bias = jnp.full(hidden, 0.0 if kind == "lif" else -1.5)
    return SNN(SpikingLayer(linear(weights, bias), cells(kind, hidden, tau=tau, learn=learn), synapses), head)


class _Samples(eqx.Module):
    """Batches drawn at random; a module, so that the data are arguments of the compiled step."""

    X: Array
    y: Array
    size: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        chosen = jax.random.choice(key, self.X.shape[0], (self.size,), replace=False)
        return self.X[chosen], self.y[chosen]


def surprise(net: SNN, batch: tuple[Array, Array], key: PRNGKeyArray) -> Float[Array, ""]:
    """Mean cross-entropy of the read-out."""
    X, y = batch
    return cross_entropy(net.logits(X, key), y)


class SNNClassifier(ClassifierMixin, BaseEstimator):
    """Classifier of spike patterns X (samples, time, inputs), 0 and 1 in steps of 1 ms.

    **Parameters:**

    - `neuron`: `"lif"`, `"meta"`, `"probabilistic"` (meta neurons that fire at random behind synapses that fail) or
      `"levy-baxter"`.
    - `rule`: `"backprop"`, `"tempotron"` (LIF: one neuron, two classes) or a learning rule of
      two factors (`broadsheet.plasticity`) with weights from 0 to 1, which learns without labels; the read-out is then a linear
      discriminant. `"stdp"` stands for `STDP()`.
    - `learn_intrinsic`: whether neurons learn their parameters too; without labels they then keep a target rate by their
      thresholds, time constants or `d`.
    - `decision`: `"readout"` of spike counts, or `"lzc"`: a linear discriminant on the complexity of the hidden trains.
    - `hidden`; `tau`: ms, of LIF neurons at the start, a number or one a hidden neuron; `spread`: of the first weights.
    - `rate`, `rate_intrinsic`: learning rates; `epochs`; `batch`; `draws`: averaged where neurons are random;
      `target_rate`: spikes a step; `release`: how far the random amplitudes of probabilistic neurons' synapses lie from 1, at
      0 all are 1.
    - `random_state`: integer.

    **Attributes:** `classes_`; `n_features_in_`; `network_` (an `SNN`) or `tempotron_`; `losses_`.
    """

    def __init__(
        self, neuron: Kind = "lif", rule: Literal["backprop", "tempotron", "stdp"] | LearningRule = "backprop", *,
        learn_intrinsic: bool = True, decision: Literal["readout", "lzc"] = "readout", hidden: int = 16, tau: Any = 10.0,
        spread: float = 0.25, rate: float = 0.02, rate_intrinsic: float = 0.02, epochs: int = 20, batch: int = 100,
        draws: int = 8, target_rate: float = 0.05, release: float = 1.0, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.neuron = neuron
        self.rule = rule
        self.learn_intrinsic = learn_intrinsic
        self.decision = decision
        self.hidden = hidden
        self.tau = tau
        self.spread = spread
        self.rate = rate
        self.rate_intrinsic = rate_intrinsic
        self.epochs = epochs
        self.batch = batch
        self.draws = draws
        self.target_rate = target_rate
        self.release = release
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> SNNClassifier:
        """Trains on patterns with their labels; decisions on complexity or after STDP are fitted on the same patterns."""
        spikes = _checked(X)
        self.classes_, target = np.unique(np.asarray(y), return_inverse=True)
        if target.shape != (len(spikes),) or len(self.classes_) < 2:
            raise InputError(f"{len(spikes)} patterns have labels {np.shape(y)} of {len(self.classes_)} classes; at least two "
                             "classes and one label each are wanted.")  # fmt: skip
        known = isinstance(self.rule, LearningRule) or self.rule in ("backprop", "tempotron", "stdp")
        if not known or self.decision not in ("readout", "lzc"):
            raise InputError(f"rule = {self.rule!r}, decision = {self.decision!r}: backprop, tempotron, stdp or a learning "
                             "rule, and readout or lzc, are wanted.")  # fmt: skip
        self._plastic = isinstance(self.rule, LearningRule) or self.rule == "stdp"
        self._key, self.n_features_in_ = jax.random.key(self.random_state), spikes.shape[2]
        if self.rule == "tempotron":
            return self._fit_tempotron(spikes, target)
        k_net, k_train, k_read = jax.random.split(self._key, 3)
        learn = self.learn_intrinsic
        net = network(self.neuron, spikes.shape[2], self.hidden, len(self.classes_), k_net, tau=self.tau, learn=learn,
                      spread=self.spread, release=self.release)  # fmt: skip
        train = self._unsupervised if self._plastic else self._backprop
        self.network_ = train(net, spikes, target, k_train)
        self.reader_ = None
        if self.decision == "lzc" or self._plastic:
            self.reader_ = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            self.reader_.fit(self._features(spikes, k_read), target)
        return self

    def predict_proba(self, X: Any) -> Float[np.ndarray, "samples classes"]:
        """Probabilities of the classes, averaged over `draws` where neurons are random."""
        check_is_fitted(self, "classes_")
        spikes = _checked(X)
        if spikes.shape[2] != self.n_features_in_:
            raise InputError(f"X has {spikes.shape[2]} inputs; the classifier learned {self.n_features_in_}.")
        if self.rule == "tempotron":
            high = 1 / (1 + np.exp(-self.tempotron_.decision_function(spikes)))
            return np.stack([1 - high, high], axis=1)
        keys = jax.random.split(jax.random.fold_in(self._key, 1), self.draws if self._random else 1)
        if self.reader_ is not None:
            return np.mean([self.reader_.predict_proba(self._features(spikes, key)) for key in keys], axis=0)
        return np.mean([np.asarray(jax.nn.softmax(_logits_of(self.network_, spikes, key))) for key in keys], axis=0)

    def predict(self, X: Any) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def hidden_spikes(self, X: Any) -> Float[np.ndarray, "samples time neurons"]:
        """Spikes of the hidden layer, one draw where neurons are random."""
        check_is_fitted(self, "network_")
        return np.asarray(_spikes_of(self.network_, _checked(X), jax.random.fold_in(self._key, 1)))

    @property
    def _random(self) -> bool:
        return self.neuron in ("probabilistic", "levy-baxter")

    def _features(self, spikes: Array, key: PRNGKeyArray) -> np.ndarray:
        found = np.asarray(_spikes_of(self.network_, spikes, key))
        return lzc(np.swapaxes(found, 1, 2)) if self.decision == "lzc" else found.sum(axis=1)

    def _fit_tempotron(self, spikes: Array, target: np.ndarray) -> SNNClassifier:
        if self.neuron != "lif" or self.decision != "readout" or len(self.classes_) != 2:
            raise InputError("A tempotron is one LIF neuron that tells two classes apart by firing: neuron='lif' and "
                             "decision='readout' are wanted.")  # fmt: skip
        step = self.rate_intrinsic if self.learn_intrinsic else 0.0
        self.tempotron_ = Tempotron(
            tau=self.tau, tau_s=self.tau / 4, rate=self.rate, rate_tau=step, rate_threshold=step, epochs=self.epochs,
            random_state=self.random_state,
        ).fit(spikes, target)  # fmt: skip
        return self

    def _backprop(self, net: SNN, spikes: Array, target: np.ndarray, key: PRNGKeyArray) -> SNN:
        batch = min(self.batch, len(spikes))
        rule = _adam(float(self.rate), float(self.rate_intrinsic))
        steps = self.epochs * max(1, len(spikes) // batch)
        trained = fit(net, surprise, _Samples(spikes, jnp.asarray(target), batch), optimiser=rule, steps=steps, key=key,
                      parameters=trainable(net), chunk=steps)  # fmt: skip
        self.losses_ = trained.losses
        return trained.model

    def _unsupervised(self, net: SNN, spikes: Array, target: np.ndarray, key: PRNGKeyArray) -> SNN:
        if not isinstance(net.hidden, SpikingLayer):
            raise InputError("A learning rule is for neurons behind a layer of weights: lif, meta or probabilistic.")
        rule = STDP() if self.rule == "stdp" else of_two_factors(self.rule, "SNNClassifier")
        if [float(limit) for limit in rule.limits] != [0.0, 1.0]:
            raise InputError(f"{type(rule).__name__} keeps weights within {rule.limits}; 0 and 1 are wanted here.")
        common_dt(net.hidden.neurons, rule)
        start = jax.random.uniform(key, (spikes.shape[2], self.hidden))
        pull = self.rate_intrinsic if self.learn_intrinsic else 0.0
        for epoch in range(self.epochs):
            order = jax.random.permutation(jax.random.fold_in(key, epoch), len(spikes))
            net, start = _plastic_epoch(net, rule, start, spikes[order], self.target_rate, pull, jax.random.fold_in(key, epoch))
        return net


_logits_of = eqx.filter_jit(lambda net, X, key: net.logits(X, key))
GAIN = 0.5
"""What a plastic weight of 1 adds to the input of a neuron."""


@eqx.filter_jit
def _plastic_epoch(
    net: SNN, rule: LearningRule, weights: Float[Array, "inputs neurons"], spikes: Patterns, target: Any, pull: Any,
    key: PRNGKeyArray,
) -> tuple[SNN, Float[Array, "inputs neurons"]]:  # fmt: skip
    """Each pattern in turn: the rule learns on the way; after it weights of a neuron are scaled to a mean of 1/2, without which
    depression would silence it, and the neuron takes a step towards the target rate."""
    hidden = net.hidden

    def one(carry: tuple, given: tuple) -> tuple[tuple, None]:
        weights, free = carry
        pattern, k = given
        neurons = eqx.tree_at(lambda cell: cell.free, hidden.neurons, free)
        layer = PlasticLayer(rule.on(weights), neurons, hidden.weights.bias, jnp.asarray(GAIN))
        state, fired = rollout(layer, pattern, state=layer.init(k), key=k)
        too_much = pull * (fired.mean(axis=0) - target)
        moved = {name: value + SIGNS.get(name, 0.0) * too_much for name, value in free.items()}
        learned = rule.learned(state.rule)
        kept = learned / jnp.maximum(learned.mean(axis=0), 1e-6) / 2
        return (jnp.minimum(kept, 1.0), moved), None

    keys = jax.random.split(key, spikes.shape[0])
    (weights, free), _ = jax.lax.scan(one, (weights, hidden.neurons.free), (spikes, keys))
    net = eqx.tree_at(lambda n: (n.hidden.weights.weight, n.hidden.neurons.free), net, (GAIN * weights.T, free))
    return net, weights


SIGNS = {"threshold": 1.0, "tau": -1.0, "d": 1.0}
"""Which way a neuron that fires too much moves its parameters."""


@functools.lru_cache(maxsize=32)
def _adam(rate: float, rate_intrinsic: float) -> optax.GradientTransformation:
    """Adam with a learning rate for weights and one for neurons; one object for each, so that trainings share a program."""
    rules = {"weights": optax.adam(rate), "intrinsic": optax.adam(rate_intrinsic)}
    return optax.multi_transform(rules, lambda params: jax.tree_util.tree_map_with_path(_group, params))


def _group(path: tuple, leaf: Any) -> Literal["intrinsic", "weights"]:
    """Which learning rate a leaf has."""
    return "intrinsic" if any(getattr(part, "name", "") == "free" for part in path) else "weights"


def _checked(X: Any) -> Patterns:
    spikes = jnp.asarray(X, jnp.float32)
    if spikes.ndim != 3 or not bool(((spikes == 0) | (spikes == 1)).all()):
        raise InputError(f"X has the shape {spikes.shape}, or holds more than 0 and 1; (samples, time, inputs) is wanted.")
    return spikes
