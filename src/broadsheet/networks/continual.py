"""Spiking classifiers that learn one task after another, without forgetting: lateral subspaces, and what they compete with.

After arXiv 2402.11984 (HLOP). A multilayer network of spiking neurons is trained by one of three rules that need presynaptic
traces; before weights change, the traces are projected off the subspace of old tasks' activity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import CompositionError, InputError
from broadsheet.networks.layers import Train, cross_entropy, fire, fire_online
from broadsheet.networks.nir_graph import Chain, Graph, reset_of
from broadsheet.neurons.codes import exponential_trace, weighted_rate
from broadsheet.neurons.integrate_and_fire import LIF
from broadsheet.neurons.surrogates import at_threshold, sigmoid
from broadsheet.plasticity.subspace import LateralSubspace, projected_linear, projected_weights

Rule = Literal["dsr", "bptt", "ottt"]
Feedback = Literal["bp", "fa", "ss"]
Projection = Literal["hebbian", "svd", "random", "none"]
Batch = Float[Array, "batch features"]


class DSR(NamedTuple):
    """The neuron of differentiation on spike representations: times in its own unit, heights dimensionless."""

    tau: float = 1.0
    dt: float = 0.05
    threshold: float = 0.3  # what a spike takes off; its output is threshold / dt
    fire_at: float = 0.3  # of the threshold: where it fires

    @property
    def ceiling(self) -> float:
        """The largest rate."""
        return self.threshold / self.dt

    def rate(self, spikes: Train) -> Batch:
        """Weighted rate: late spikes count more."""
        return weighted_rate(self.ceiling * spikes, self.tau / self.dt)

    def cell(self, size: int) -> LIF:
        """The neuron, which takes a current (times 1 - leak) and puts spikes of height 1 out."""
        return LIF(
            size, tau=self.tau, rest=0.0, threshold=self.fire_at * self.threshold, reset=None, drop=self.threshold,
            spike=at_threshold, dt=self.dt,
        )  # fmt: skip


HALF_LIFE = 1 / np.log(2)
"""Time constant, in steps, of what halves with each step."""


def halving(size: int) -> LIF:
    """LIF neurons that keep half their potential a step, with a soft reset by their threshold of 1."""
    return LIF(size, tau=HALF_LIFE, rest=0.0, threshold=1.0, reset=None, spike=sigmoid(4.0, inclusive=True), dt=1.0)


class SpikingMLP(eqx.Module):
    """A feed-forward network of spiking neurons without biases; static input, repeated at each step.

    **Arguments:** `sizes`: of input, hidden layers and output; `rule`: `"dsr"` (derivatives of weighted rates, the weighted
    rate is the trace), `"bptt"` (surrogate derivatives through time, spikes are the trace) or `"ottt"` (online: derivatives
    in space only, the filtered spikes are the trace); `feedback`: `"bp"`, `"fa"` (fixed random) or `"ss"` (signs);
    `steps`: of simulation.
    """

    W: tuple[Float[Array, "_ _"], ...]
    random: tuple[Float[Array, "_ _"], ...]
    rule: Rule = eqx.field(static=True)
    feedback: Feedback = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def __init__(
        self, sizes: Sequence[int], *, rule: Rule = "dsr", feedback: Feedback = "bp", steps: int = 10, key: PRNGKeyArray
    ) -> None:
        for name, value, kind in (("rule", rule, Rule), ("feedback", feedback, Feedback)):
            if value not in get_args(kind):
                raise InputError(f"{name} = {value!r}; one of {', '.join(get_args(kind))} is wanted.")
        if len(sizes) < 2 or min(sizes) < 1 or steps < 1:
            raise InputError(f"sizes = {tuple(sizes)} and steps = {steps}; at least two sizes and one step are wanted.")

        def draw(key: PRNGKeyArray) -> tuple[Array, ...]:
            keys = jax.random.split(key, len(sizes) - 1)
            return tuple(
                jax.random.uniform(k, (out, n), minval=-1.0, maxval=1.0) / np.sqrt(n)
                for k, n, out in zip(keys, sizes[:-1], sizes[1:], strict=True)
            )

        first, second = jax.random.split(key)
        self.W, self.random = draw(first), draw(second)
        self.rule, self.feedback, self.steps = rule, feedback, steps

    def __call__(
        self, x: Batch, subspaces: tuple[LateralSubspace, ...] | None = None
    ) -> tuple[Float[Array, "batch outputs"], tuple[Array, ...]]:
        """(logits, activity before each layer); weights learn off the span of the old rows of `subspaces`, one a layer."""
        run = {"dsr": self._rates, "bptt": self._spikes, "ottt": self._spikes}[self.rule]
        return run(x, subspaces)

    def _linear(self, layer: int, x: Array, trace: Array, subspaces: tuple[LateralSubspace, ...] | None) -> Array:
        W = self.W[layer]
        if self.feedback == "fa":
            back = self.random[layer]
        elif self.feedback == "ss":
            back = jnp.sign(W) * jnp.mean(jnp.abs(W))
        else:
            back = W
        back = jax.lax.stop_gradient(back)
        if subspaces is not None:
            subspace = subspaces[layer]
            if subspace.spiking is None and trace.size > W.size:
                W = projected_weights(W, subspace)
            else:
                trace = subspace.project(trace)
        return projected_linear(x, W, jax.lax.stop_gradient(trace), back)

    def _rates(self, x: Batch, subspaces: tuple[LateralSubspace, ...] | None) -> tuple[Array, tuple[Array, ...]]:
        neuron = DSR()
        spikes = jnp.broadcast_to(x, (self.steps, *x.shape))
        activity = [x]
        for layer, W in enumerate(self.W[:-1]):
            cell = neuron.cell(W.shape[0])
            current = jax.lax.stop_gradient(spikes @ W.T) if layer else jnp.broadcast_to(x @ W.T, (self.steps, len(x), len(W)))
            fired = jax.lax.stop_gradient(fire(cell, (1 - cell.leak) * current))
            spikes = neuron.ceiling * fired
            mean = self._linear(layer, activity[-1], activity[-1], subspaces)
            inside = (mean > 0) & (mean < neuron.tau * neuron.ceiling)
            slope = jnp.where(inside, (mean - jax.lax.stop_gradient(mean)) / neuron.tau, 0.0)  # zero, with a derivative
            activity.append(neuron.rate(fired) + slope)
        last = len(self.W) - 1
        return self._linear(last, activity[-1], activity[-1], subspaces), tuple(map(jax.lax.stop_gradient, activity))

    def _spikes(self, x: Batch, subspaces: tuple[LateralSubspace, ...] | None) -> tuple[Array, tuple[Array, ...]]:
        """LIF neurons that keep half their potential a step, threshold 1, soft reset; logits are the mean over time."""
        online = self.rule == "ottt"
        activity, once = [x], self._linear(0, x, x, subspaces)  # the input is the same at each step
        current = jnp.broadcast_to(once, (self.steps, *once.shape))
        for layer, W in enumerate(self.W[:-1], 1):
            cell = halving(W.shape[0])
            spikes = (fire_online if online else fire)(cell, current)
            activity.append(spikes.mean(axis=0))
            trace = exponential_trace(spikes, HALF_LIFE) if online else spikes
            current = self._linear(layer, spikes, trace, subspaces)
        return current.mean(axis=0), tuple(map(jax.lax.stop_gradient, activity))

    def nir_graph(self, nir: Any) -> Graph:
        """Nodes, edges and note for `broadsheet.networks.to_nir`: the mean of its output over `steps` steps of 1 ms, the input
        the same at each, are the logits. Raises `CompositionError` for the rule "dsr", whose neurons fire below what a spike
        takes off, which NIR has no word for.
        """
        if self.rule == "dsr":
            raise CompositionError("NIR has no neurons that fire below what a spike takes off, as those of the rule 'dsr' do.")
        chain = Chain(nir, (self.W[0].shape[1],))
        for k, W in enumerate(self.W):
            if k:
                chain.spiking(f"neurons-{k}", halving(W.shape[1]))
            chain.linear(f"weights-{k}", W)
        return chain.graph((self.W[-1].shape[0],), reset=reset_of(halving(1)))


FISHER = 200
"""Examples of a task from which the importance of weights is measured."""

PART = 2**26
"""Numbers of a layer's activity, over steps and inputs, that are held at once where a network is read: 256 MiB."""


class Guard(NamedTuple):
    """Elastic weight consolidation: weights that were good, and how much each mattered."""

    W: tuple[Array, ...]
    importance: tuple[Array, ...]
    strength: Array


class ContinualClassifier(BaseEstimator):
    """A spiking classifier that is given one task after another: `fit_task(X, y)`, then `predict`.

    **Parameters:**

    - `hidden`: sizes of hidden layers; `classes`: outputs; `steps`, `rule`, `feedback`: of `SpikingMLP`.
    - `projection`: `"hebbian"` lateral neurons; `"svd"`, principal directions of each task's activity instead (GPM);
      `"random"`, rows that never learn; `"none"`, plain sequential training.
    - `rows`: new lateral rows of each layer, for the first, second, … task; the last entry serves all later ones.
    - `row_rates`: Hebbian learning rates by layer; `iterations`, `momentum`, `spiking`: of `LateralSubspace`.
    - `ewc`: strength of elastic weight consolidation; `replay`: examples a class that are kept of each task and shown again,
      after the next tasks at a tenth of the rate, or, `mixed`, as many as new ones in each batch (experience replay).
    - `epochs`, `batch`, `learning_rate`: plain gradient descent; `random_state`: integer.

    **Attributes:** `model_`, `subspaces_`, `tasks_` (number of tasks fitted).
    """

    model_: SpikingMLP
    subspaces_: tuple[LateralSubspace, ...]
    tasks_: int

    def __init__(
        self, hidden: tuple[int, ...] = (200, 200), classes: int = 10, *, steps: int = 10, rule: Rule = "dsr",
        feedback: Feedback = "bp", projection: Projection = "hebbian",
        rows: tuple[tuple[int, ...], ...] = ((60, 40, 40), (40, 30, 30)), row_rates: tuple[float, ...] = (0.001, 0.01, 0.01),
        iterations: int = 5, momentum: float = 0.9, spiking: tuple[float, int] | None = None, ewc: float = 0.0, replay: int = 0,
        mixed: bool = False, epochs: int = 8, batch: int = 64, learning_rate: float = 0.1, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.hidden = hidden
        self.classes = classes
        self.steps = steps
        self.rule = rule
        self.feedback = feedback
        self.projection = projection
        self.rows = rows
        self.row_rates = row_rates
        self.iterations = iterations
        self.momentum = momentum
        self.spiking = spiking
        self.ewc = ewc
        self.replay = replay
        self.mixed = mixed
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> ContinualClassifier:
        """Forgets everything and trains on one task."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        return self.fit_task(X, y)

    def fit_task(self, X: Any, y: Any, classes: Sequence[int] | None = None) -> ContinualClassifier:
        """Trains on the next task; `classes` limits the answers to those of the task (several heads)."""
        X, y = self._check(X), np.asarray(y)
        if y.shape != X.shape[:1] or not np.isin(y, np.arange(self.classes)).all():
            raise InputError(f"y has the shape {y.shape}; {X.shape[:1]} of labels from 0 to {self.classes - 1} are wanted.")
        if len(X) < self.batch:
            raise InputError(f"X has {len(X)} samples; at least one batch of {self.batch} is wanted.")
        if not hasattr(self, "model_"):
            self._start(X.shape[1])
        key = jax.random.fold_in(jax.random.key(self.random_state), 1000 + self.tasks_)
        if self.projection in ("hebbian", "random"):
            rows = self.rows[min(self.tasks_, len(self.rows) - 1)]
            keys = jax.random.split(jax.random.fold_in(key, 0), len(rows))
            self.subspaces_ = tuple(s.grow(m, k) for s, m, k in zip(self.subspaces_, rows, keys, strict=True))
        rng = np.random.default_rng([self.random_state, self.tasks_])
        self._train(X, y, classes, rng, self.epochs, self.projection == "hebbian")
        if self.replay:
            self._rehearse(X, y, classes, rng)
        self._close(X, y, classes, rng)
        self.tasks_ += 1
        return self

    def decision_function(self, X: Any, classes: Sequence[int] | None = None) -> np.ndarray:
        """Logits (samples, classes); minus infinity outside `classes`."""
        check_is_fitted(self, "model_")
        logits = np.concatenate([logits for logits, _ in in_parts(self.model_, self._check(X))])
        return np.where(self._mask(classes), logits, -np.inf)

    def predict(self, X: Any, classes: Sequence[int] | None = None) -> np.ndarray:
        return self.decision_function(X, classes).argmax(axis=1)

    def score(self, X: Any, y: Any, classes: Sequence[int] | None = None) -> float:
        """Share of right answers."""
        return float(np.mean(self.predict(X, classes) == np.asarray(y)))

    def activity(self, X: Any) -> list[np.ndarray]:
        """Activity before each layer (samples, neurons): what lateral rows learn."""
        check_is_fitted(self, "model_")
        parts = [activity for _, activity in in_parts(self.model_, self._check(X))]
        return [np.concatenate(layer) for layer in zip(*parts, strict=True)]

    def _start(self, features: int) -> None:
        if self.projection not in get_args(Projection):
            raise InputError(f"projection = {self.projection!r}; one of {', '.join(get_args(Projection))} is wanted.")
        sizes = (features, *self.hidden, self.classes)
        if len(self.row_rates) != len(sizes) - 1 or any(len(rows) != len(sizes) - 1 for rows in self.rows):
            raise InputError(f"rows and row_rates are wanted for each of {len(sizes) - 1} layers.")
        self.n_features_in_ = features
        self.model_ = SpikingMLP(
            sizes, rule=self.rule, feedback=self.feedback, steps=self.steps, key=jax.random.key(self.random_state)
        )
        capacity = np.sum(self.rows, axis=0) + 3 * np.asarray(self.rows[-1])  # room for five tasks before it compiles again
        self.subspaces_ = tuple(
            LateralSubspace(
                n,
                capacity=min(int(room), n),
                rate=rate,
                momentum=self.momentum,
                iterations=self.iterations,
                spiking=self.spiking,
                width=int(most),
            )
            for n, room, most, rate in zip(sizes[:-1], capacity, np.max(self.rows, axis=0), self.row_rates, strict=True)
        )
        self.tasks_ = 0
        self.guard_: Guard | None = None
        self.kept_: list[tuple[np.ndarray, np.ndarray, Sequence[int] | None]] = []

    def _train(
        self,
        X: np.ndarray,
        y: np.ndarray,
        classes: Sequence[int] | None,
        rng: np.random.Generator,
        epochs: int,
        learn_rows: bool,
        rate: float | None = None,
    ) -> None:
        size = min(self.batch, len(X))
        step = jnp.asarray(self.learning_rate if rate is None else rate)
        mixing = self.mixed and bool(self.kept_)
        data = (jnp.asarray(X), jnp.asarray(y), jnp.asarray(self._mask(classes)))
        for _ in range(epochs):
            order = rng.permutation(len(X))[: len(X) // size * size].reshape(-1, size)
            if mixing:
                data, order = self._mixture(X[order], y[order], self._mask(classes), rng)
            self.model_, self.subspaces_ = _epoch(
                self.model_, self.subspaces_, self.guard_, *data, jnp.asarray(order), step, jnp.asarray(learn_rows)
            )

    def _mixture(
        self, X: np.ndarray, y: np.ndarray, allowed: np.ndarray, rng: np.random.Generator
    ) -> tuple[tuple[Array, Array, Array], np.ndarray]:
        """The batches of an epoch (batches, batch, …), each with as many examples of old tasks; and where these then lie."""
        old_X, old_y, heads = (np.concatenate(part) for part in zip(*self._old(), strict=True))
        drawn = rng.integers(0, len(old_X), y.shape)
        new = np.broadcast_to(allowed, (*y.shape, self.classes))
        pairs = ((X, old_X[drawn]), (y, old_y[drawn]), (new, heads[drawn]))
        both = [np.concatenate(pair, axis=1) for pair in pairs]
        data = tuple(jnp.asarray(part.reshape(-1, *part.shape[2:])) for part in both)
        return (data[0], data[1], data[2]), np.arange(both[1].size).reshape(both[1].shape)

    def _old(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Inputs, labels and allowed classes of what is kept of each old task."""
        for X, y, classes in self.kept_:
            yield X, y, np.broadcast_to(self._mask(classes), (len(X), self.classes))

    def _rehearse(self, X: np.ndarray, y: np.ndarray, classes: Sequence[int] | None, rng: np.random.Generator) -> None:
        """Keeps some examples; unless old ones are mixed in, one epoch over each old task's first, at a tenth of the rate."""
        if not self.mixed:
            for old_X, old_y, old_classes in self.kept_:
                self._train(old_X, old_y, old_classes, rng, 1, False, self.learning_rate / 10)
        rows = np.concatenate([rng.permutation(np.nonzero(y == label)[0])[: self.replay] for label in np.unique(y)])
        self.kept_.append((X[rows], y[rows], classes))

    def _close(self, X: np.ndarray, y: np.ndarray, classes: Sequence[int] | None, rng: np.random.Generator) -> None:
        """What is done when a task has ended."""
        if self.projection == "svd":
            rows = self.rows[min(self.tasks_, len(self.rows) - 1)]
            moments = [np.zeros((s.H.shape[1], s.H.shape[1])) for s in self.subspaces_]
            for _, activity in in_parts(self.model_, X):
                for moment, s, x in zip(moments, self.subspaces_, activity, strict=True):
                    left = np.asarray(s.project(x))
                    moment += left.T @ left
            self.subspaces_ = tuple(_append(s, c, m) for s, c, m in zip(self.subspaces_, moments, rows, strict=True))
        self.subspaces_ = tuple(s.freeze() for s in self.subspaces_)
        if self.ewc:
            some = rng.permutation(len(X))[:FISHER]
            found = _importance(self.model_, jnp.asarray(X[some]), jnp.asarray(y[some]), jnp.asarray(self._mask(classes)))
            if self.guard_ is not None:
                found = tuple(a + b for a, b in zip(found, self.guard_.importance, strict=True))
            self.guard_ = Guard(self.model_.W, found, jnp.asarray(self.ewc))

    def _mask(self, classes: Sequence[int] | None) -> Bool[np.ndarray, " classes"]:
        allowed = np.zeros(self.classes, bool)
        allowed[list(range(self.classes)) if classes is None else list(classes)] = True
        return allowed

    def _check(self, X: Any) -> np.ndarray:
        X = np.asarray(X, np.float32)
        if X.ndim != 2 or X.shape[1] != getattr(self, "n_features_in_", X.shape[1]):
            raise InputError(f"X has the shape {X.shape}; (samples, {getattr(self, 'n_features_in_', 'features')}) is wanted.")
        if not np.isfinite(X).all():
            raise InputError("X holds NaN or infinity.")
        return X


_forward = eqx.filter_jit(lambda model, x: model(x))


def in_parts(model: SpikingMLP, X: np.ndarray) -> Iterator[tuple[Array, tuple[Array, ...]]]:
    """Logits and activity, for as many inputs at a time as `PART` allows."""
    size = max(1, PART // (model.steps * max(max(W.shape) for W in model.W)))
    for start in range(0, len(X), size):
        yield _forward(model, jnp.asarray(X[start : start + size]))


def _loss(
    W: tuple, model: SpikingMLP, subspaces: tuple, guard: Guard | None, x: Array, y: Array, allowed: Array
) -> tuple[Array, tuple]:
    model = eqx.tree_at(lambda m: m.W, model, W)
    logits, activity = model(x, subspaces)
    loss = cross_entropy(logits, y, allowed)
    if guard is not None:
        moved = zip(guard.importance, W, guard.W, strict=True)
        loss += guard.strength / 2 * sum(jnp.sum(f * (now - then) ** 2) for f, now, then in moved)
    return loss, activity


@eqx.filter_jit
def _epoch(
    model: SpikingMLP, subspaces: tuple, guard: Guard | None, X: Array, y: Array, allowed: Array,
    order: Int[Array, "batches batch"], rate: Array, learn_rows: bool | Bool[Array, ""],
) -> tuple[SpikingMLP, tuple]:  # fmt: skip
    """One pass over the data: weights by projected gradients, the rows of lateral neurons by their Hebbian rule.

    `allowed`: the classes that answers may take, (classes,) for all or (samples, classes).
    """

    def step(carry: tuple, rows: Array) -> tuple[tuple, None]:
        W, subspaces = carry
        among = allowed[rows] if allowed.ndim == 2 else allowed
        gradient, activity = jax.grad(_loss, has_aux=True)(W, model, subspaces, guard, X[rows], y[rows], among)
        W = tuple(w - rate * g for w, g in zip(W, gradient, strict=True))
        learned = jax.lax.cond(  # one program for all that project or learn rows
            learn_rows,
            lambda: tuple(s.update(x) for s, x in zip(subspaces, activity, strict=True)),
            lambda: subspaces,
        )
        return (W, learned), None

    (W, subspaces), _ = jax.lax.scan(step, (model.W, subspaces), order)
    return eqx.tree_at(lambda m: m.W, model, W), subspaces


@eqx.filter_jit
def _importance(model: SpikingMLP, X: Array, y: Array, allowed: Array) -> tuple[Array, ...]:
    """Mean square of each weight's gradient, example by example: the diagonal of Fisher's information."""

    def one(x: Array, label: Array) -> tuple[Array, ...]:
        def loss(W: tuple) -> Array:
            return cross_entropy(eqx.tree_at(lambda m: m.W, model, W)(x[None])[0], label[None], allowed)

        return tuple(g**2 for g in jax.grad(loss)(model.W))

    def add(total: tuple, example: tuple) -> tuple[tuple, None]:
        return tuple(a + b for a, b in zip(total, one(*example), strict=True)), None

    total, _ = jax.lax.scan(add, tuple(jnp.zeros_like(w) for w in model.W), (X, y))
    return tuple(part / len(X) for part in total)


def _append(subspace: LateralSubspace, moment: Float[np.ndarray, "n n"], rows: int) -> LateralSubspace:
    """With the principal directions of what the rows so far do not explain, from its second moments."""
    start, n = int(subspace.used), len(moment)
    found = scipy.linalg.eigh(moment, subset_by_index=(n - rows, n - 1))[1].T[::-1]
    grown = subspace.grow(rows, jax.random.key(0))
    H = np.array(grown.H)
    H[start : start + rows] = found
    return eqx.tree_at(lambda s: s.H, grown, jnp.asarray(H))


Task = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Sequence[int] | None]
"""Training inputs and labels, test inputs and labels, and the classes of the task (None: all)."""


@runtime_checkable
class Learner(Protocol):
    """What is given one task after another."""

    def fit_task(self, X: Any, y: Any, classes: Sequence[int] | None = None) -> Any: ...

    def score(self, X: Any, y: Any, classes: Sequence[int] | None = None) -> float: ...


def learn_in_turn(
    learner: Learner, tasks: Sequence[Task], report: Callable[[int], None] | None = None
) -> Float[np.ndarray, "tasks tasks"]:
    """Fits the tasks in turn; entry [k, j] is the accuracy on task j after task k, NaN for tasks not seen yet."""
    found = np.full((len(tasks), len(tasks)), np.nan)
    for k, (X, y, _, _, classes) in enumerate(tasks):
        learner.fit_task(X, y, classes)
        for j, (_, _, test_X, test_y, test_classes) in enumerate(tasks[: k + 1]):
            found[k, j] = learner.score(test_X, test_y, test_classes)
        if report is not None:
            report(k + 1)
    return found


def final_accuracy(accuracy: Float[np.ndarray, "tasks tasks"]) -> float:
    """ACC: mean over tasks after the last one."""
    return float(accuracy[-1].mean())


def backward_transfer(accuracy: Float[np.ndarray, "tasks tasks"]) -> float:
    """BWT: mean change of a task's accuracy since it was learned; negative where it is forgotten."""
    return float(np.mean(accuracy[-1, :-1] - np.diagonal(accuracy)[:-1]))
