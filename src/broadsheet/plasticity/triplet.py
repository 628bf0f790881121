"""Triplet STDP: what a pair of spikes changes depends on the spike before them on the same side."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float

from broadsheet.dynamics.system import as_array, fixed
from broadsheet.plasticity.stdp import STDP, above_zero


class Triplet(STDP):
    """A dense plastic projection by triplets of spikes (Pfister and Gerstner, 2006, eq. 3 and 4).

    At a postsynaptic spike a synapse grows by `r1 (a_plus + triplet_plus o2)`, at a presynaptic one it shrinks by
    `o1 (a_minus + triplet_minus r2)`, where r1, r2 (time constants `tau_plus`, `tau_x`) and o1, o2 (`tau_minus`, `tau_y`) are
    traces of earlier pre- and postsynaptic spikes. The defaults are the paper's for visual cortex, all spikes paired.

    **Arguments:** `weights` (pre, post), at the start; `a_plus`, `a_minus`: change by a pair; `triplet_plus`,
    `triplet_minus`: change by a triplet, 0 for none; `tau_plus`, `tau_minus`, `tau_x`, `tau_y`: ms; `options`: the others of
    `STDP`.
    """

    triplet_plus: Array | None = fixed()
    triplet_minus: Array | None = fixed()

    def __init__(
        self, weights: Any = None, *, a_plus: Any = 0.0, a_minus: Any = 7e-3, triplet_plus: Any = 6.2e-3,
        triplet_minus: Any = 2.3e-4, tau_plus: float = 16.8, tau_minus: float = 33.7, tau_x: float = 101.0,
        tau_y: float = 125.0, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(weights, a_plus=a_plus, a_minus=a_minus, tau_plus=tau_plus, tau_minus=tau_minus, **options)
        above_zero(tau_x=tau_x, tau_y=tau_y)
        self.triplet_plus, self.triplet_minus = (
            None if isinstance(part, int | float) and part == 0 else as_array(part) for part in (triplet_plus, triplet_minus)
        )
        self.tau_pre, self.tau_post = as_array([[tau_plus], [tau_x]]), as_array([[tau_minus], [tau_y]])

    def potentiation(self, pre: Float[Array, "_ *#shape"], post: Float[Array, "_ *#shape"]) -> Float[Array, "..."]:
        return _with_triplets(self.a_plus, self.triplet_plus, pre[0], post[1])

    def depression(self, pre: Float[Array, "_ *#shape"], post: Float[Array, "_ *#shape"]) -> Float[Array, "..."]:
        return _with_triplets(self.a_minus, self.triplet_minus, post[0], pre[1])


def _with_triplets(pair: Array, triplet: Array | None, other: Array, own: Array) -> Array:
    """The change by the other side's trace, and by both sides' where triplets count."""
    change = pair * other
    return change if triplet is None else change + triplet * other * own
