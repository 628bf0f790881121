"""Hidden Markov models that emit symbols, and plain Markov chains: sampling, and their statistics in closed form.

What is counted of sampled sequences (`symbol_statistics`, `lagged`, `run_lengths`) stands beside what follows from the
matrices. Likelihoods are those of `broadsheet.numerics.hidden_markov`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike

from broadsheet.errors import InputError
from broadsheet.numerics.checks import concrete
from broadsheet.numerics.hidden_markov import filtered


class CategoricalHMM(eqx.Module):
    """States move by `transitions`, from row to column, and emit one of some symbols by their row of `emissions`.

    A plain Markov chain is the model whose states are its symbols: `CategoricalHMM(transitions)`.

    **Raises:** `InputError` where rows are no distributions or shapes do not fit.
    """

    transitions: Float[Array, "states states"]
    emissions: Float[Array, "states symbols"]
    start: Float[Array, " states"]

    def __init__(
        self,
        transitions: ArrayLike,
        emissions: ArrayLike | None = None,
        start: ArrayLike | None = None,
    ) -> None:
        self.transitions = jnp.asarray(transitions)
        states = len(self.transitions)
        self.emissions = jnp.eye(states) if emissions is None else jnp.asarray(emissions)
        self.start = jnp.full(states, 1 / states) if start is None else jnp.asarray(start)
        for name, rows, shape in (
            ("transitions", self.transitions, (states, states)),
            ("emissions", self.emissions, (states, self.emissions.shape[-1])),
            ("start", self.start, (states,)),
        ):
            known = concrete(rows)
            if rows.shape != shape or (known is not None and not _distributions(known)):
                raise InputError(f"{name} of shape {rows.shape}: rows that are distributions, of shape {shape}, are wanted.")

    @property
    def symbols(self) -> int:
        """How many symbols there are."""
        return self.emissions.shape[1]

    def sample(
        self, key: PRNGKeyArray, sequences: int, length: int
    ) -> tuple[Int[Array, "sequences length"], Int[Array, "sequences length"]]:
        """Symbols and states of as many sequences, each from `start`."""
        return _sampled(self, key, sequences, length)

    def stationary(self) -> Float[np.ndarray, " states"]:
        """The distribution that a step leaves as it is; where there are several, the one nearest to zero."""
        moves = np.asarray(self.transitions, np.float64)
        system = np.concatenate([moves.T - np.eye(len(moves)), np.ones((1, len(moves)))])
        return np.linalg.lstsq(system, np.eye(len(moves) + 1)[-1], rcond=None)[0]

    def frequencies(self) -> Float[np.ndarray, " symbols"]:
        """How often each symbol is emitted."""
        return self.stationary() @ np.asarray(self.emissions, np.float64)

    def pairs(self, lag: int = 1) -> Float[np.ndarray, "symbols symbols"]:
        """p(symbol at t, symbol at t + lag)."""
        moves, emitted = (np.asarray(each, np.float64) for each in (self.transitions, self.emissions))
        return emitted.T @ (self.stationary()[:, None] * np.linalg.matrix_power(moves, lag)) @ emitted

    def bigrams(self) -> Float[np.ndarray, "symbols symbols"]:
        """p(next symbol | symbol), from row to column: the first-order chain with the same pairs of neighbours."""
        pairs = self.pairs()
        return pairs / pairs.sum(axis=1, keepdims=True)

    def volatility(self, length: int) -> float:
        """How often a sequence of this length changes its symbol, on average."""
        return float((length - 1) * (1 - np.trace(self.pairs())))

    def log_likelihood(self, symbols: Int[Array, " length"]) -> Float[Array, ""]:
        """log p(sequence), in nats."""
        return filtered(jnp.log(self.start), jnp.log(self.transitions), jnp.log(self.emissions).T[symbols]).log_norms.sum()

    def survival(self, symbol: int, lengths: int) -> Float[np.ndarray, " lengths"]:
        """p(a run of this symbol lasts at least 1, 2, … steps)."""
        emitted = np.asarray(self.emissions, np.float64)[:, symbol]
        within = np.asarray(self.transitions, np.float64) * emitted  # a step to a state that emits the symbol again
        run = (self.stationary() * (1 - emitted)) @ within
        run = run / run.sum()
        lasts = []
        for _ in range(lengths):
            lasts.append(run.sum())
            run = run @ within
        return np.array(lasts)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _sampled(chain: CategoricalHMM, key: PRNGKeyArray, sequences: int, length: int) -> tuple[Array, Array]:
    """Symbols and states; draws by the inverse of the cumulative distribution, which compiles in a fifth of the time."""
    uniform = jax.random.uniform(key, (2, length, sequences))
    moves, emitted, start = (jnp.cumsum(rows, axis=-1)[..., :-1] for rows in (chain.transitions, chain.emissions, chain.start))

    def drawn(rows: Array, u: Array) -> Array:
        return (u[..., None] >= rows).sum(axis=-1)

    def step(state: Array, u: Array) -> tuple[Array, Array]:
        return drawn(moves[state], u), state

    states = jax.lax.scan(step, drawn(start, uniform[0, 0]), jnp.roll(uniform[0], -1, axis=0))[1]
    return drawn(emitted[states], uniform[1]).T, states.T


def _distributions(rows: np.ndarray) -> bool:
    return bool(np.isfinite(rows).all() and (rows >= -1e-6).all() and np.allclose(rows.sum(-1), 1, atol=1e-5))


class TeacherBatches(eqx.Module):
    """Fresh sequences of a hidden Markov model in each step."""

    teacher: CategoricalHMM
    size: int
    length: int

    @property
    def symbols(self) -> int:
        """How many symbols there are."""
        return self.teacher.symbols

    def __call__(self, key: PRNGKeyArray) -> Int[Array, "size length"]:
        return self.teacher.sample(key, self.size, self.length)[0]


class KeptSequences(eqx.Module):
    """`size` of some sequences in each step; a training on them is one program, whatever they were drawn from."""

    sequences: Int[Array, "kept length"]
    symbols: int
    size: int

    def __call__(self, key: PRNGKeyArray) -> Int[Array, "size length"]:
        return self.sequences[jax.random.randint(key, (self.size,), 0, len(self.sequences))]


class SymbolStatistics(NamedTuple):
    """Of sampled sequences: shares of symbols, p(next | symbol), and changes of symbol a sequence."""

    frequencies: np.ndarray
    bigrams: np.ndarray
    volatility: float


def pair_counts(sequences: ArrayLike, symbols: int, lag: int = 1) -> np.ndarray:
    """How often a symbol (row) is followed, `lag` steps later, by a symbol (column).

    **Raises:** `InputError` where no sequence is longer than the lag.
    """
    rows = np.asarray(sequences)
    if rows.ndim != 2 or not 1 <= lag < rows.shape[1]:
        raise InputError(f"Sequences of shape {rows.shape}, lag {lag}: sequences that are longer than the lag are wanted.")
    codes = rows[:, :-lag].astype(int) * symbols + rows[:, lag:]
    return np.bincount(codes.ravel(), minlength=symbols**2).reshape(symbols, symbols).astype(float)


def symbol_statistics(sequences: ArrayLike, symbols: int) -> SymbolStatistics:
    """What the closed forms of a `CategoricalHMM` say, counted; a symbol that never comes has a row of zeros."""
    rows = np.asarray(sequences)
    counts = pair_counts(rows, symbols)
    frequencies = np.bincount(rows.ravel(), minlength=symbols) / rows.size
    bigrams = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return SymbolStatistics(frequencies, bigrams, float((np.diff(rows, axis=1) != 0).sum(axis=1).mean()))


def fit_chain(sequences: ArrayLike, symbols: int) -> CategoricalHMM:
    """The first-order Markov chain of largest likelihood: its bigrams and first symbols are those of the sequences; a symbol
    that never comes moves on to any."""
    rows = np.asarray(sequences)
    counts = pair_counts(rows, symbols)
    counts[counts.sum(axis=1) == 0] = 1.0
    start = np.bincount(rows[:, 0], minlength=symbols) / len(rows)
    return CategoricalHMM(counts / counts.sum(axis=1, keepdims=True), start=start)


def lagged(pairs: ArrayLike) -> float:
    """How far two symbols of a joint distribution (or of counts) tell of each other: `sum_s p(s, s) - p(s) p'(s)`."""
    joint = np.asarray(pairs) / np.asarray(pairs).sum()
    return float(np.trace(joint) - joint.sum(axis=1) @ joint.sum(axis=0))


def run_lengths(sequences: ArrayLike, symbol: int) -> np.ndarray:
    """Lengths of the runs of a symbol that begin and end within their sequence."""
    rows = np.pad((np.asarray(sequences) == symbol).astype(int), ((0, 0), (1, 1)))
    edges = np.diff(rows, axis=1)
    starts, ends = np.nonzero(edges == 1), np.nonzero(edges == -1)
    whole = (starts[1] > 0) & (ends[1] < rows.shape[1] - 2)
    return (ends[1] - starts[1])[whole]


def linear_chain(states: int, symbols_end: float = 0.99, reach: float = 0.05) -> CategoricalHMM:
    """States in a row, of which neighbours exchange: a step has probability `reach ** (1 / (states - 1))`.

    The first state emits mostly the first of three symbols, the last mostly the third, those between by their place; the
    middle symbol has what is left, `1 - symbols_end`, everywhere. After github.com/EliaTorre/hmmrnn.

    **Raises:** `InputError` for fewer than 2 states and where an inner state would leave more than surely (from 6 states on).
    """
    q = reach ** (1 / (states - 1)) if states > 1 else 1.0
    if states < 2 or (states > 2 and q > 0.5):
        raise InputError(
            f"A linear chain of {states} states would leave with probability {2 * q:.3g}; 2 to 5 states are wanted."
        )
    moves = np.zeros((states, states))
    for i in range(states - 1):
        moves[i, i + 1] = moves[i + 1, i] = q
    place = np.arange(states) / (states - 1)
    emissions = np.stack([symbols_end * (1 - place), np.full(states, 1 - symbols_end), symbols_end * place], axis=1)
    return CategoricalHMM(moves + np.diag(1 - moves.sum(axis=1)), emissions)


def fully_connected(states: int = 3, stay: float = 0.95, sure: float = 0.98) -> CategoricalHMM:
    """States that reach each other equally well; each emits a symbol of its own with probability `sure`."""
    rest = np.ones((states, states)) - np.eye(states)
    eye = np.eye(states)
    return CategoricalHMM(stay * eye + rest * (1 - stay) / (states - 1), sure * eye + rest * (1 - sure) / (states - 1))


def cyclic(stay: float = 0.95, sure: float = 0.9) -> CategoricalHMM:
    """Four states in a ring and three symbols, of which the middle one is emitted by two states that are no neighbours."""
    eye = np.eye(4)
    ring = (np.roll(eye, 1, axis=1) + np.roll(eye, -1, axis=1)) * (1 - stay) / 2
    rest = 1 - sure
    emissions = np.array([[sure, rest, 0], [rest, sure, 0], [0, rest, sure], [0, sure, rest]])
    return CategoricalHMM(stay * eye + ring, emissions)
