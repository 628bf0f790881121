"""A content-addressable memory of spiking neurons after the hippocampus's CA3 (arXiv 2310.05868).

A memory is a cue, one of `n_cue` neurons, and a content, any set of `n_cont` bits. Shown together for three steps they are
stored by fast STDP; a cue alone recalls its content, a part of a content recalls the cues it belongs to, and a store under a
used cue overwrites. All at steps of 1 ms. Currents in nA, potentials in mV, capacitance in nF, as in the authors' programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from broadsheet.dynamics.kernels import one_kernel
from broadsheet.dynamics.rollout import initial_state, rollout
from broadsheet.dynamics.system import System, as_array, common_dt, fixed
from broadsheet.errors import InputError
from broadsheet.networks.projections import Pattern, Uniform
from broadsheet.neurons.integrate_and_fire import CurrentLIF, Synapses
from broadsheet.plasticity.rule import LearningRule, of_two_factors
from broadsheet.plasticity.stdp import STDP

REST, THRESHOLD = -60.0, -57.0
CELLS = {"A": (0.27, 3.0), "B": (0.14, 0.5)}
"""Two kinds of cell: capacitance (nF) and membrane time constant (ms)."""

STRONGEST = 6.0
"""nA, of a plastic synapse that is whole; any other rule of the memory keeps weights from 0 to this too."""

STORE_STEPS = 3
FORGET_STEPS = 5
SETTLED = 10
"""ms after which a store or a question no longer moves what comes next."""
CUE_TO_CONTENT = 6
CONTENT_TO_CUE = 6
"""ms from a query to its answer on the output."""

Row = TypeVar("Row", Array, np.ndarray)


class Connection(NamedTuple):
    """A static projection between two populations: weight in nA, negative where inhibitory; delay in ms."""

    source: str
    target: str
    pattern: Pattern
    weight: float
    delay: int


def connections(n_cont: int) -> tuple[Connection, ...]:
    """The static synapses. Names: `CueCont` is the cue layer used when content is what recalls."""
    lateral = -6.0 * n_cont
    return (
        Connection("InCue", "CueCue", "one to one", 6.0, 1),
        Connection("InCont", "ContCue", "one to one", 6.0, 1),
        Connection("CueCue", "CueCont", "one to one", 6.0, 2),
        Connection("CueCue", "CueCont", "all to others", lateral, 3),
        Connection("CueCue", "Cond", "all to all", -6.0, 2),
        Connection("ContCue", "Cond", "one to one", 9.0, 1),
        Connection("ContCue", "CondInt", "all to all", 6.0, 1),
        Connection("CondInt", "Cond", "all to all", 2.0, 1),
        Connection("Cond", "ContCont", "one to one", 6.0, 1),
        Connection("CueCont", "CueCont", "all to others", lateral, 2),
        Connection("CueCue", "MergeCue", "one to one", 6.0, 3),
        Connection("CueCont", "MergeCue", "one to one", 6.0, 1),
        Connection("ContCue", "MergeCont", "one to one", 6.0, 3),
        Connection("ContCont", "MergeCont", "one to one", 6.0, 1),
        Connection("MergeCue", "OutCue", "one to one", 6.0, 1),
        Connection("MergeCont", "OutCont", "one to one", 6.0, 1),
    )


CUE_CELLS = ("CueCue", "CueCont", "MergeCue", "OutCue")
CONTENT_CELLS = ("ContCue", "ContCont", "Cond", "MergeCont", "OutCont")
PLASTIC = (("CueCue", "ContCue"), ("ContCont", "CueCont"))
"""Content by cue, and cue by content: all to all, learned."""

DELAYS = 3


def fast_stdp(zero_lag: bool = True) -> STDP:
    """The rule of the plastic synapses: a pair of spikes that follow each other in one step makes a synapse whole, nA.

    **Arguments:** `zero_lag`: whether a pair that meets at a synapse in one step depresses it, without which nothing is
    forgotten.
    """
    return STDP(  # silence is skipped at any size: as one kernel, to ask takes hardly any time
        a_plus=STRONGEST, a_minus=STRONGEST, tau_plus=3.0, tau_minus=3.0, bounds=(0.0, STRONGEST), dendritic=1,
        zero_lag=zero_lag, skip_silence=True, dt=1.0,
    )  # fmt: skip


class CAMState(NamedTuple):
    """Cells of all populations in one row, their spikes of the last steps (latest first), and the learned synapses with what
    they sent."""

    cells: Synapses
    past: Float[Array, "delays all_neurons"]
    plastic: tuple[Any, Any]
    sent: tuple[Array, Array]


class HippocampalNetwork(System):
    """The network as a system: input spikes of cue and content (n_cue + n_cont,) to spikes of every population, by name.

    All cells are one row, so that a step is a few operations on vectors, and all static projections look back into one record
    of past spikes. With a buffer for each projection a step takes 1.5 to 2.3 times as long, with dense matrices 1.6 times (16
    cues, 16 bits) to 7 times (64 and 128).

    **Arguments:** `n_cue`, `n_cont`: neurons for cues and bits of content; `rule`: of both plastic projections, whose weights
    start at 0, in nA; by default `fast_stdp()`; `weight_scale`: a function of (name of the connection, weight) that changes
    static weights, for tests of robustness.
    """

    cells: CurrentLIF
    rules: tuple[LearningRule, LearningRule]
    strength: Float[Array, " connections"] = fixed()  # one array: as one kernel, each argument takes time
    n_cue: int = eqx.field(static=True)
    n_cont: int = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self, n_cue: int = 5, n_cont: int = 10, *, rule: LearningRule | None = None,
        weight_scale: Callable[[str, float], float] | None = None,
    ) -> None:  # fmt: skip
        if min(n_cue, n_cont) < 1:
            raise InputError(f"n_cue = {n_cue} and n_cont = {n_cont}; at least one neuron of each is wanted.")
        self.n_cue, self.n_cont, self.dt = n_cue, n_cont, 1.0
        names = [name for name in self.sizes if not name.startswith("In")]

        def each(value: Callable[[str], float]) -> np.ndarray:
            return np.concatenate([np.full(self.sizes[name], value(name)) for name in names])

        self.cells = CurrentLIF(
            self.n_cells, tau=each(lambda name: CELLS[_kind(name)][1]), tau_syn=(0.3, 0.3), rest=REST, reset=REST,
            threshold=each(lambda name: THRESHOLD - 0.5 * name.startswith("Out")), refractory=2.0, current="mean", dt=1.0,
        )  # fmt: skip
        chosen = fast_stdp() if rule is None else of_two_factors(rule, "the memory")
        common_dt(self.cells, chosen)
        low, high = (float(limit) for limit in chosen.limits)
        if (low, high) != (0.0, STRONGEST):
            name = type(chosen).__name__
            raise InputError(f"{name} keeps weights within ({low:g}, {high:g}); the memory's reach from 0 to {STRONGEST:g} nA.")
        first, second = (chosen.on(jnp.zeros((self.sizes[pre], self.sizes[post]))) for pre, post in PLASTIC)
        self.rules = (first, second)
        scale = weight_scale or (lambda _, weight: weight)
        made = connections(n_cont)
        self.strength = as_array([_in_mv(c.target, scale(_name(c.source, c.target), c.weight)) for c in made])

    @property
    def sizes(self) -> dict[str, int]:
        """Neurons of each population, the inputs last."""
        cue, cont = dict.fromkeys(CUE_CELLS, self.n_cue), dict.fromkeys(CONTENT_CELLS, self.n_cont)
        return cue | cont | {"CondInt": 1, "InCue": self.n_cue, "InCont": self.n_cont}

    @property
    def static(self) -> list[tuple[Connection, Uniform]]:
        """The static synapses as projections, in mV of the potential that they hold a cell at."""
        sizes = self.sizes
        return [
            (c, Uniform(weight, sizes[c.source], sizes[c.target], c.pattern, delay=c.delay))
            for c, weight in zip(connections(self.n_cont), self.strength, strict=True)
        ]

    @property
    def n_cells(self) -> int:
        """Neurons of all populations but the inputs."""
        return sum(self.sizes.values()) - self.n_cue - self.n_cont

    @property
    def places(self) -> dict[str, slice]:
        """Where each population is in the row of all neurons."""
        ends = np.cumsum(list(self.sizes.values())).tolist()
        return {name: slice(end - size, end) for (name, size), end in zip(self.sizes.items(), ends, strict=True)}

    def populations(self, row: Row) -> dict[str, Row]:
        """Rows of all neurons (..., all_neurons) by population; of a NumPy array, views."""
        return {name: row[..., place] for name, place in self.places.items()}

    def _drive(self, state: CAMState) -> Float[Array, "2 cells"]:
        """What arrives in this step at the excitatory and inhibitory synapses of all cells, mV."""
        places, sizes = self.places, self.sizes
        arriving: list[dict[str, Array]] = [{}, {}]

        def add(target: str, port: int, current: Array) -> None:
            arriving[port][target] = arriving[port].get(target, jnp.zeros(sizes[target])) + current

        for c, projection in self.static:
            add(c.target, 0 if c.weight > 0 else 1, projection.send(state.past[c.delay - 1, places[c.source]]))
        for (_, target), sent in zip(PLASTIC, state.sent, strict=True):
            add(target, 0, _in_mv(target, 1.0) * sent)
        cells = [name for name in sizes if not name.startswith("In")]
        return jnp.stack([jnp.concatenate([port.get(name, jnp.zeros(sizes[name])) for name in cells]) for port in arriving])

    def init(self, key: PRNGKeyArray) -> CAMState:
        first, second = self.rules
        sent = (jnp.zeros(first.start.shape[1]), jnp.zeros(second.start.shape[1]))
        past = jnp.zeros((DELAYS, sum(self.sizes.values())))
        return CAMState(self.cells.init(key), past, (first.init(key), second.init(key)), sent)

    def step(
        self, state: CAMState, inputs: Float[Array, " cue_and_content"], key: PRNGKeyArray | None = None
    ) -> tuple[CAMState, dict[str, Array]]:
        cells, fired = self.cells.step(state.cells, self._drive(state))
        # the barrier: computed once, and not again in each of the many places that read it
        row = jax.lax.optimization_barrier(jnp.concatenate([fired, inputs.astype(fired.dtype)]))
        spikes = self.populations(row)
        (first, to_content), (second, to_cue) = (
            rule.step(before, (spikes[pre], spikes[post]))
            for rule, before, (pre, post) in zip(self.rules, state.plastic, PLASTIC, strict=True)
        )
        past = jnp.concatenate([row[None], state.past[:-1]])
        return CAMState(cells, past, (first, second), (to_content, to_cue)), spikes

    def consolidate(self, state: CAMState) -> HippocampalNetwork:
        learned = tuple(rule.consolidate(part) for rule, part in zip(self.rules, state.plastic, strict=True))
        return eqx.tree_at(lambda network: network.rules, self, learned)


def _kind(name: str) -> str:
    return "B" if name in ("CueCont", "Cond", "CondInt") else "A"


def _in_mv(target: str, weight: float) -> float:
    """A current in nA as the potential that it holds a cell at."""
    capacitance, tau = CELLS[_kind(target)]
    return tau / capacitance * weight


def _name(source: str, target: str) -> str:
    return f"{source}-{target}"


class HippocampalCAM:
    """The memory as an object that keeps its state between operations: `store`, `recall_content`, `recall_cues`, `forget`.

    **Arguments:** `n_cue`, `n_cont`: cues and bits; `store_gap`, `recall_gap`: ms from the start of an operation to the next
    one, long enough for recall by content; `options`: those of `HippocampalNetwork`.
    """

    def __init__(self, n_cue: int = 5, n_cont: int = 10, *, store_gap: int = 10, recall_gap: int = 8, **options: Any) -> None:
        if store_gap < STORE_STEPS or recall_gap <= CONTENT_TO_CUE - 2:
            raise InputError(
                f"store_gap = {store_gap} and recall_gap = {recall_gap} ms; at least {STORE_STEPS} and 5 are wanted."
            )
        self.network = HippocampalNetwork(n_cue, n_cont, **options)
        self.n_cue, self.n_cont, self.store_gap, self.recall_gap = n_cue, n_cont, store_gap, recall_gap
        self.reset()

    def reset(self) -> None:
        """An empty memory at time 0."""
        self.state = initial_state(self.network, None)
        self.history: list[dict[str, np.ndarray]] = []

    @property
    def time(self) -> int:
        """ms since the memory was empty."""
        return sum(len(part["InCue"]) for part in self.history)

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """Learned weights (nA) of the two plastic projections, (pre, post) each."""
        return {
            _name(*pair): np.asarray(rule.learned(part))
            for pair, rule, part in zip(PLASTIC, self.network.rules, self.state.plastic, strict=True)
        }

    def run(self, spikes: Any) -> dict[str, np.ndarray]:
        """Runs input spikes (time, cue and content) from the present state; returns those of all populations, by name."""
        spikes = np.asarray(spikes)
        if spikes.ndim != 2 or spikes.shape[1] != self.n_cue + self.n_cont:
            raise InputError(f"spikes are {spikes.shape}; (time, {self.n_cue + self.n_cont}) is wanted.")
        if not np.isin(spikes, (0, 1)).all():
            raise InputError("spikes must be 0 or 1 in each ms.")
        self.state, rows = run_network(self.network, jnp.asarray(spikes, jnp.result_type(float)), self.state)
        out = self.network.populations(np.asarray(rows))
        self.history.append(out)
        return out

    def store(self, cue: int, bits: Iterable[int]) -> None:
        """Stores a content under a cue, over what was there; the bits are numbers of content neurons."""
        self.run(self._pattern(self.store_gap, STORE_STEPS, [cue], bits))

    def recall_content(self, cue: int) -> list[int]:
        """The bits stored under a cue."""
        out = self._ask(self._pattern(self.recall_gap, 1, [cue], []), CUE_TO_CONTENT)
        return np.nonzero(out["OutCont"])[0].tolist()

    def recall_cues(self, bits: Iterable[int]) -> list[int]:
        """The cues whose content shares a bit with these. Each question moves weights a little: see the paper's limits."""
        bits = list(bits)
        if not bits:
            raise InputError("bits is empty; a question by content needs at least one bit.")
        out = self._ask(self._pattern(self.recall_gap, 1, [], bits), CONTENT_TO_CUE)
        return np.nonzero(out["OutCue"])[0].tolist()

    def forget(self, cue: int) -> None:
        """Erases what is stored under a cue, from cue to content and from content to cue.

        The cue is held as for a store, and all bits begin a step later: content cells then fire behind the cell of the cue,
        which depresses their synapses to it, while it keeps the other cues silent. Then the cue alone unlearns the bits. What
        was asked or stored just before settles first.
        """
        both, alone = (self._pattern(SETTLED, STORE_STEPS, [cue], []) for _ in range(2))
        both[1:FORGET_STEPS, self.n_cue :] = True
        before = np.zeros((max(0, SETTLED - min(self.store_gap, self.recall_gap)), both.shape[1]), bool)
        self.run(np.concatenate([before, both, alone]))

    def _ask(self, spikes: np.ndarray, latency: int) -> dict[str, np.ndarray]:
        settled = np.concatenate([spikes, np.zeros((max(0, latency + 1 - len(spikes)), spikes.shape[1]), bool)])
        return {name: array[latency] for name, array in self.run(settled).items()}

    def _pattern(self, steps: int, held: int, cues: Sequence[int], bits: Iterable[int]) -> np.ndarray:
        spikes = np.zeros((steps, self.n_cue + self.n_cont), bool)
        for name, wanted, size, offset in (("cue", cues, self.n_cue, 0), ("bit", bits, self.n_cont, self.n_cue)):
            for number in wanted:
                if not 0 <= number < size:
                    raise InputError(f"{name} {number} does not exist; there are {size}, from 0 on.")
                spikes[:held, offset + number] = True
        return spikes


@one_kernel
def run_network(
    network: HippocampalNetwork, spikes: Float[Array, "time cue_and_content"], state: CAMState | None = None
) -> tuple[CAMState, Bool[Array, "time all_neurons"]]:
    """Input spikes to the last state and all spikes, from a state (by default an empty memory).

    `HippocampalNetwork.populations` tells the spikes apart. What `rollout` gives, several times faster at small sizes.
    """
    return rollout(network, spikes, state=state, record=lambda state, _: state.past[0] > 0)


def schedule(
    n_cue: int, n_cont: int, operations: Iterable[tuple[int, int | None, Any]], steps: int
) -> Bool[np.ndarray, "time cue_and_content"]:
    """Input spikes of operations (start in ms, cue or None, bits): a cue with bits is stored, anything else is asked."""
    spikes = np.zeros((steps, n_cue + n_cont), bool)
    for start, cue, wanted in operations:
        bits = list(wanted)
        stop = start + (STORE_STEPS if cue is not None and bits else 1)
        if cue is not None:
            spikes[start:stop, cue] = True
        spikes[start:stop, [n_cue + bit for bit in bits]] = True
    return spikes


@eqx.filter_jit
def run_fresh(
    network: HippocampalNetwork, spikes: Float[Array, "memories time cue_and_content"]
) -> Bool[Array, "memories time all_neurons"]:
    """Runs many memories, each from its empty state: input spikes (memories, time, neurons) to those of all neurons."""
    return jax.vmap(lambda one: run_network(network, one)[1])(spikes)
