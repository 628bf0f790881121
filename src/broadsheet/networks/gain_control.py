"""A recurrent network whose only adjustable quantity is one gain a neuron, after the idea of arXiv 2305.19869.

    tau dr/dt = -r + f(s) + W (g * r),   output h = g * r,   steady state  h*(s, g) = A f(s),  A = (diag(1/g) - W)^-1

Gains minimise, for stimuli s of probability p(s),

    L(g) = sum_s p(s) (|f(s) - D h*(s, g)|^2 + alpha |h*(s, g)|^2) + gamma |g - 1|^2

with a fixed decoder D. The stimuli enter through C = sum_s p(s) f f' alone, so that a step costs O(N^3) whatever their number;
and through L with L L' = C, which for smooth tuning curves has few columns. With Q = D'D + alpha, H = A L, S = Q H - D'L and
T = 2 H S' A, the gradient is T_ii / g_i^2 + 2 gamma (g_i - 1), and the Hessian in 1/g is A * T' + T * A' + 2 (H H') * (A' Q A),
products of elements. Algebra is NumPy in float64; what steps in time is a `System`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from broadsheet.dynamics import System, feedback, fixed, rollout, substep
from broadsheet.dynamics.compose import Feedback
from broadsheet.dynamics.system import as_array
from broadsheet.errors import InputError
from broadsheet.numerics.blas import one_thread

ALPHA, GAMMA = 0.7, 2.4
"""Price of activity, and of a gain that is not 1."""
BOUNDS = (0.01, 3.0)

_SMALL = 500  # neurons below which BLAS has one thread: at 255 two wait for each other longer than they work; beyond is a guess
_AT_ONCE = 512  # stimuli whose drives stay in the cache

Gains = Float[np.ndarray, " neurons"]
Ensemble = Float[np.ndarray, " stimuli"]


class Expansion(NamedTuple):
    """An objective at some gains: value, gradient, Hessian, and what of that is Gauss-Newton's, never negative."""

    loss: float
    gradient: Gains
    hessian: Float[np.ndarray, "neurons neurons"]
    gauss_newton: Float[np.ndarray, "neurons neurons"]


@dataclass(frozen=True)
class Cost:
    """The two terms of the trade: squared error of the decoded drive, and summed squares of activity; both means over p."""

    error: float
    activity: float


@dataclass(frozen=True)
class GainNetwork:
    """Fixed drives and synapses; gains are given to its methods.

    **Arguments:**

    - `F`: drive of each neuron by each stimulus, (neurons, stimuli).
    - `W`: recurrent weights, (neurons, neurons), row i into neuron i.
    - `D`: decoder, (neurons, neurons); by default I - W, which at gains of 1 decodes the drive exactly. `ridge_decoder` makes
      others.
    - `tau`: time constant, ms.

    **Raises:** `InputError` for shapes that do not fit, for NaN, and for weights past stability at gains of 1.
    """

    F: np.ndarray
    W: np.ndarray
    D: np.ndarray = None  # type: ignore[assignment]  # filled in below
    tau: float = 10.0  # ms

    def __post_init__(self) -> None:
        for name in ("F", "W", "D"):
            if name == "D" and self.D is None:
                object.__setattr__(self, "D", np.eye(len(self.W)) - self.W)
            value = np.array(getattr(self, name), float)
            object.__setattr__(self, name, value)
            rows = len(np.atleast_1d(self.F))
            if value.ndim != 2 or value.shape[0] != rows or (name != "F" and value.shape[1] != rows):
                wanted = "(neurons, stimuli)" if name == "F" else f"({rows}, {rows})"
                raise InputError(f"{name} has the shape {value.shape}; {wanted} is wanted.")
            if not np.isfinite(value).all():
                raise InputError(f"{name} holds NaN or infinity; finite numbers are wanted.")
        if not self.tau > 0:
            raise InputError(f"tau = {self.tau:g} ms; a time constant is positive.")
        if not self.stable(np.ones(len(self.W))):
            raise InputError(
                f"W has an eigenvalue of real part {np.linalg.eigvals(self.W).real.max():.3g}; below 1 is wanted, since the "
                "network has no steady state otherwise."
            )

    @property
    def neurons(self) -> int:
        return self.F.shape[0]

    @property
    def stimuli(self) -> int:
        return self.F.shape[1]

    @cached_property
    def _symmetric(self) -> bool:
        return np.array_equal(self.W, self.W.T)

    def stable(self, gains: Gains) -> bool:
        """Whether activity settles: all eigenvalues of diag(g) W have real parts below 1."""
        if self._symmetric and (gains > 0).all():
            # then diag(g) W has the eigenvalues of a symmetric matrix, all below 1 where diag(1/g) - W is positive definite
            stiffness = -self.W
            stiffness.flat[:: len(gains) + 1] += (1 - 1e-12) / gains
            return scipy.linalg.lapack.dpotrf(stiffness)[1] == 0
        return bool(np.linalg.eigvals(gains[:, None] * self.W).real.max() < 1)

    def steady(self, gains: Gains | None = None) -> Float[np.ndarray, "neurons stimuli"]:
        """Outputs h* to each stimulus, the tuning curves as rows; `InputError` where they do not settle."""
        g = self._gains(gains)
        if not self.stable(g):
            raise InputError("At these gains the network is past stability: an eigenvalue of diag(g) W reaches 1.")
        return np.linalg.solve(np.eye(self.neurons) - g[:, None] * self.W, g[:, None] * self.F)

    def cost(self, gains: Gains, p: Ensemble) -> Cost:
        """Decoding error and activity under an ensemble."""
        return response_cost(self.F, self.steady(gains), self.D, self._ensemble(p))

    def loss(self, gains: Gains, p: Ensemble, alpha: float = ALPHA, gamma: float = GAMMA) -> float:
        """L(g): error + alpha activity + gamma |g - 1|^2."""
        cost = self.cost(gains, p)
        return cost.error + alpha * cost.activity + gamma * float(((self._gains(gains) - 1) ** 2).sum())

    def grad(self, gains: Gains, p: Ensemble, alpha: float = ALPHA, gamma: float = GAMMA) -> Gains:
        """dL/dg in closed form."""
        return self._moments(p, alpha).expand(self._gains(gains), gamma).gradient

    def expand(self, gains: Gains, p: Ensemble, alpha: float = ALPHA, gamma: float = GAMMA) -> Expansion:
        """Loss, gradient and Hessian, all in closed form."""
        return self._moments(p, alpha).expand(self._gains(gains), gamma)

    def adapt(
        self,
        p: Ensemble,
        alpha: float = ALPHA,
        gamma: float = GAMMA,
        *,
        start: Gains | None = None,
        bounds: tuple[float, float] = BOUNDS,
        max_steps: int = 200,
    ) -> Gains:
        """The gains that minimise L under an ensemble, by Gauss-Newton steps and, once near, Newton's with the exact Hessian.

        Steps stay within bounds and within stability; on a bound a gain is held while the gradient pushes it outwards.

        It stops where a step would lower L by no more than rounding does.

        **Arguments:** `start`: by default 1.

        **Raises:** `InputError` where alpha or gamma is negative, where bounds leave no room or p does not fit, and where the
        gains do not settle in `max_steps`.
        """
        if not (alpha >= 0 and gamma >= 0):
            raise InputError(f"alpha = {alpha:g} and gamma = {gamma:g}; prices are not negative.")
        with one_thread(when=self.neurons < _SMALL):
            return self._minimise(self._moments(p, alpha), gamma, start, bounds, max_steps)

    def fit(
        self, responses: Float[np.ndarray, "neurons stimuli"], gamma: float = 0.0, *, bounds: tuple[float, float] = BOUNDS
    ) -> Gains:
        """The gains whose tuning curves come closest to measured `responses`: least mean |responses - h*|^2 + gamma |g - 1|^2.

        **Raises:** `InputError` for responses of another shape or with NaN.
        """
        target = np.asarray(responses, float)
        if target.shape != self.F.shape or not np.isfinite(target).all():
            raise InputError(f"Finite responses of the shape {self.F.shape} are wanted; got {target.shape}.")
        share = 1 / self.stimuli
        with one_thread(when=self.neurons < _SMALL):
            power, mixed = float((target**2).sum() * share), target @ self.F.T * share
            moments = _Moments.of(self.W, self.F @ self.F.T * share, np.eye(self.neurons), 0.0, power, mixed)
            return self._minimise(moments, gamma, None, bounds, 500)

    def _minimise(
        self,
        moments: _Moments,
        gamma: float,
        start: Gains | None,
        bounds: tuple[float, float],
        max_steps: int,
    ) -> Gains:
        low, high = bounds
        if not 0 < low < high:
            raise InputError(f"bounds = ({low:g}, {high:g}); two positive gains, the smaller first, are wanted.")
        g = np.clip(self._gains(start), low, high)
        if not self.stable(g):
            raise InputError("The gains to start from are past stability: an eigenvalue of diag(g) W reaches 1.")
        at = moments.expand(g, gamma)
        for _ in range(max_steps):
            free = ~(((g <= low) & (at.gradient > 0)) | ((g >= high) & (at.gradient < 0)))
            direction, some = np.zeros_like(g), slice(None) if free.all() else np.ix_(free, free)
            if free.any():
                direction[free] = _descent(at.gradient[free], at.gauss_newton[some])
                if -at.gradient @ direction < 0.1 * abs(at.loss):  # near
                    direction[free] = _descent(at.gradient[free], at.hessian[some])
            size, tried = 1.0, np.clip(g + direction, low, high)
            if -at.gradient @ direction <= 1e-14 * (moments.power + abs(at.loss)):
                return tried if self.stable(tried) else g
            while True:
                tried = np.clip(g + size * direction, low, high)
                if self.stable(tried):
                    there = moments.expand(tried, gamma)
                    if there.loss <= at.loss + 1e-4 * float(at.gradient @ (tried - g)) + 1e-13 * abs(at.loss):
                        break
                size /= 2
                if size < 1e-12:
                    return g  # no smaller loss to the last digit
            g, at = tried, there
        raise InputError(f"The gains did not settle in {max_steps} steps (largest gradient {np.abs(at.gradient).max():.2g}).")

    def simulate(self, drive: Any, gains: Any, dt: float = 1.0) -> Float[Array, "time neurons"]:
        """Outputs over time under a drive (time, neurons), from silence; `dt` in ms."""
        circuit = GainCircuit(self.W, self.tau, dt)
        drive = jnp.asarray(drive)
        return rollout(circuit, (drive, jnp.broadcast_to(jnp.asarray(gains), drive.shape)))[1]

    def _gains(self, gains: Gains | None) -> Gains:
        g = np.ones(self.neurons) if gains is None else np.asarray(gains, float)
        if g.shape != (self.neurons,) or not np.isfinite(g).all() or (g <= 0).any():
            raise InputError(f"{self.neurons} positive gains are wanted, one a neuron; got the shape {g.shape}.")
        return g

    def _ensemble(self, p: Ensemble) -> Ensemble:
        p = np.asarray(p, float)
        if p.shape != (self.stimuli,) or not (p >= 0).all() or abs(p.sum() - 1) > 1e-6:
            raise InputError(
                f"An ensemble is {self.stimuli} probabilities that sum to 1; got shape {p.shape}, sum {p.sum():g}."
            )
        return p

    def _moments(self, p: Ensemble, alpha: float) -> _Moments:
        root, second = np.sqrt(self._ensemble(p)), np.zeros_like(self.W)
        for start in range(0, self.stimuli, _AT_ONCE):
            some = self.F[:, start : start + _AT_ONCE] * root[start : start + _AT_ONCE]
            second += some @ some.T
        return _Moments.of(self.W, second, self.D, alpha, float(second.trace()))


@dataclass(frozen=True)
class _Moments:
    """All that an objective needs of stimuli, targets and decoder: mean of |target - D h|^2 + alpha |h|^2.

    Columns of L and B stand for the stimuli: L L' is the second moment of the drive, B L' that of targets with the drive, and
    `rest` what is left of the targets' mean square.
    """

    W: np.ndarray
    D: np.ndarray
    Q: np.ndarray  # D'D + alpha
    L: np.ndarray
    B: np.ndarray
    alpha: float
    power: float  # E|target|^2
    rest: float

    @classmethod
    def of(
        cls, W: np.ndarray, C: np.ndarray, D: np.ndarray, alpha: float, power: float, mixed: np.ndarray | None = None
    ) -> _Moments:
        """From C = E[f f'] and `mixed` = E[target f'], by default C too. L is C's pivoted Cholesky factor."""
        factor, order, rank, _ = scipy.linalg.lapack.dpstrf(C)
        order, factor, L = order - 1, np.triu(factor[:rank]), np.empty((len(C), rank))
        L[order] = factor.T
        B, rest = L, 0.0
        if mixed is not None:
            B = scipy.linalg.solve_triangular(factor[:, :rank], mixed[:, order[:rank]].T, trans="T").T
            rest = power - float((B**2).sum())
        return cls(W, D, D.T @ D + alpha * np.eye(len(D)), L, B, alpha, power, rest)

    def expand(self, g: Gains, gamma: float) -> Expansion:
        u, diagonal = 1 / g, slice(None, None, len(g) + 1)
        stiffness = -self.W
        stiffness.flat[diagonal] += u
        A = scipy.linalg.inv(stiffness, check_finite=False)
        H = A @ self.L
        missed = self.D @ H - self.B
        back = A.T @ (self.D.T @ missed + self.alpha * H)
        slope = 2 * np.einsum("ij,ij->i", H, back)  # T_ii
        loss = self.rest + np.vdot(missed, missed) + self.alpha * np.vdot(H, H) + gamma * np.vdot(g - 1, g - 1)
        squares = u * u
        in_g, mixed = squares[:, None] * (2 * squares), A * (back @ H.T)
        gauss_newton = in_g * (H @ H.T) * (A.T @ (self.Q @ A))
        gauss_newton.flat[diagonal] += 2 * gamma
        hessian = gauss_newton + in_g * (mixed + mixed.T)
        hessian.flat[diagonal] -= 2 * squares * u * slope
        return Expansion(float(loss), squares * slope + 2 * gamma * (g - 1), hessian, gauss_newton)


def _descent(gradient: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Newton's step; where the Hessian is not positive definite, with as much added to its diagonal as makes it so."""
    shift, size, shifted = 0.0, np.abs(hessian.diagonal()).max(), hessian
    while True:
        factor, failed = scipy.linalg.lapack.dpotrf(shifted)
        if not failed:
            return -scipy.linalg.lapack.dpotrs(factor, gradient)[0]
        shift = max(10 * shift, 1e-6 * size, 1e-12)
        shifted = hessian + shift * np.eye(len(hessian))


def response_cost(F: np.ndarray, H: np.ndarray, D: np.ndarray, p: Ensemble) -> Cost:
    """Error and activity of any responses H (neurons, stimuli) to drives F, read by a decoder D."""
    return Cost(float((p * ((F - D @ H) ** 2).sum(axis=0)).sum()), float((p * (H**2).sum(axis=0)).sum()))


def ridge_decoder(F: np.ndarray, H: np.ndarray, p: Ensemble, ridge: float = 1e-6) -> Float[np.ndarray, "neurons neurons"]:
    """D = E[f h'] (E[h h'] + ridge)^-1: the linear decoder of drives F from responses H with the least squared error."""
    if not ridge >= 0:
        raise InputError(f"ridge = {ridge:g}; it is not negative.")
    second = (H * p) @ H.T + ridge * np.eye(len(H))
    return np.linalg.solve(second, (H * p) @ F.T).T


def without_recurrence(F: np.ndarray, p: Ensemble, alpha: float = ALPHA, gamma: float = GAMMA) -> Gains:
    """The optimum where W = 0 and D = I: g = (mu + gamma) / ((1 + alpha) mu + gamma), mu = sum_s p(s) F_is^2."""
    mu = (F**2) @ p
    return (mu + gamma) / ((1 + alpha) * mu + gamma)


class GainCircuit(System):
    """The network in time: input (drive, gains), state r, output h = g * r. Forward Euler steps; its fixed point is exact."""

    W: Array
    tau: Array = fixed()  # ms
    dt: float = eqx.field(static=True)

    def __init__(self, W: Any, tau: float = 10.0, dt: float = 1.0) -> None:
        if not 0 < dt < tau:
            raise InputError(f"dt = {dt:g} ms with tau = {tau:g} ms; a positive step below the time constant is wanted.")
        self.W, self.tau, self.dt = jnp.asarray(W), as_array(tau), float(dt)

    def init(self, key):
        return jnp.zeros(self.W.shape[0], self.W.dtype)

    def step(self, state, inputs, key=None):
        drive, gains = inputs
        state = state + self.dt / self.tau * (-state + drive + self.W @ (gains * state))
        return state, gains * state


class TwoPasses(System):
    """The circuit and, beside it, a second relaxation through the transposed synapses: b -> A' (2 Q h - 2 D' f).

    Input (drive, gains), state (r, b), output (h, b): b_i h_i / g_i^2 is what gain i changes of the objective, so that each
    neuron has its own share at hand.
    """

    circuit: GainCircuit
    D: Array
    alpha: Array = fixed()
    adjoint: bool = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(self, circuit: GainCircuit, D: Any, alpha: float = ALPHA, adjoint: bool = True) -> None:
        self.circuit, self.D, self.alpha = circuit, jnp.asarray(D), as_array(alpha)
        self.adjoint, self.dt = adjoint, circuit.dt

    def init(self, key):
        return self.circuit.init(key), self.circuit.init(key)

    def step(self, state, inputs, key=None):
        drive, gains = inputs
        r, b = state
        r, h = self.circuit.step(r, inputs)
        cost = 2 * (self.alpha * h - self.D.T @ (drive - self.D @ h))
        back = self.circuit.W.T @ b if self.adjoint else 0.0
        b = b + self.dt / self.circuit.tau * (-b + gains * (cost + back))
        return (r, b), (h, b)


class GainRule(System):
    """Gains as a Moore system: input (h, b), state and output g; dg = -rate (b h / g^2 + 2 gamma (g - 1)) a step."""

    rate: Array
    gamma: Array = fixed()
    neurons: int = eqx.field(static=True)
    bounds: tuple[float, float] = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self, neurons: int, rate: float, dt: float, gamma: float = GAMMA, bounds: tuple[float, float] = BOUNDS
    ) -> None:
        if not rate > 0:
            raise InputError(f"rate = {rate:g}; a positive one is wanted.")
        self.rate, self.gamma, self.neurons, self.bounds, self.dt = as_array(rate), as_array(gamma), neurons, bounds, float(dt)

    def init(self, key):
        return jnp.ones(self.neurons, self.rate.dtype)

    def step(self, state, inputs, key=None):
        h, b = inputs
        slope = b * h / state**2 + 2 * self.gamma * (state - 1)
        return jnp.clip(state - self.rate * slope, *self.bounds), state

    def readout(self, state):
        return state


def _with_gains(drive: Any, gains: Any) -> tuple[Any, Any]:
    return drive, gains


def online(
    network: GainNetwork,
    rate: float = 0.002,
    *,
    alpha: float = ALPHA,
    gamma: float = GAMMA,
    hold: float = 100.0,
    dt: float = 1.0,
    adjoint: bool = True,
) -> Feedback:
    """The network with gains that learn: fast relaxation within slow gains, closed by the rule.

    A step is one stimulus of `hold` ms: its input is a drive (neurons,), its output (h, b) at the end of the stimulus. Gains
    are the second part of the state.

    **Arguments:** `rate`: of a gain, a stimulus; `adjoint`: without it each neuron hears of the cost at its own output only.

        >>> import jax.numpy as jnp
        >>> from broadsheet.dynamics import rollout
        >>> from broadsheet.networks.orientations import ring_network
        >>> network = ring_network(12)
        >>> system = online(network)
        >>> state, _ = rollout(system, jnp.asarray(network.F.T), record=lambda state, _: state[1])
        >>> state[1].shape
        (12,)
    """
    count = round(hold / dt)
    if count < 1 or abs(count * dt - hold) > 1e-9:
        raise InputError(f"A stimulus of {hold:g} ms is not a whole number of steps of {dt:g} ms.")
    fast = substep(TwoPasses(GainCircuit(network.W, network.tau, dt), network.D, alpha, adjoint), count)
    return feedback(fast, GainRule(network.neurons, rate, fast.dt or hold, gamma), combine=_with_gains)
