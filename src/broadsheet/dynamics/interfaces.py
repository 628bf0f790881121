"""Polynomial interfaces, their maps, and wiring: what lies beneath `series`, `parallel` and `feedback`.

An interface p = sum_i y^{p[i]} has positions i (what a system on it can show) and, at each, directions p[i] (what it then
accepts). A map p -> q sends positions forward and directions backward. Between monomials B y^A, the interfaces of Moore
machines, such a map is a lens. After "Poly", the theory that arXiv 2111.01297 builds on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from broadsheet.errors import InputError


class Poly(tuple):
    """A finite polynomial: the number of directions at each position. `Poly([2, 0])` is y² + 1."""

    def __new__(cls, arities: Sequence[int] = ()) -> Poly:
        if any(arity < 0 for arity in arities):
            raise InputError(f"Poly({list(arities)}): a number of directions cannot be negative.")
        return super().__new__(cls, (int(arity) for arity in arities))

    @classmethod
    def monomial(cls, outputs: int, inputs: int) -> Poly:
        """B y^A, the interface of a Moore machine with B outputs and A inputs."""
        return cls([inputs] * outputs)

    def __call__(self, n: int) -> int:
        """The number of elements of p(n): a position and a choice among n for each direction."""
        return sum(n**arity for arity in self)

    def __add__(self, other: Poly) -> Poly:  # type: ignore[override]
        """One interface or the other."""
        return Poly([*self, *other])

    def __matmul__(self, other: Poly) -> Poly:
        """Side by side: pairs of positions, pairs of directions."""
        return Poly([a * b for a in self for b in other])

    def compose(self, other: Poly) -> Poly:
        """One after the other, p ∘ q: a position of p, then a position of q for each of its directions."""
        return Poly([sum(chosen) for arity in self for chosen in itertools.product(other, repeat=arity)])

    def __repr__(self) -> str:
        return f"Poly({list(self)})"


Y = Poly([1])
"""One position, one direction: the interface of a closed system, and the unit of `@` and of `compose`."""


class PolyMap(NamedTuple):
    """A map of polynomials: the image of each position, and for each of the image's directions one of the position's."""

    dom: Poly
    cod: Poly
    forward: tuple[int, ...]
    backward: tuple[tuple[int, ...], ...]

    def then(self, other: PolyMap) -> PolyMap:
        """Positions forward through both, directions backward through both."""
        if self.cod != other.dom:
            raise InputError(f"A map to {self.cod!r} cannot be followed by one from {other.dom!r}.")
        forward = tuple(other.forward[i] for i in self.forward)
        backward = tuple(tuple(self.backward[i][d] for d in other.backward[j]) for i, j in enumerate(self.forward))
        return PolyMap(self.dom, other.cod, forward, backward)


def count_maps(p: Poly, q: Poly) -> int:
    """How many maps p -> q there are: `prod_i sum_j p[i]^{q[j]}`."""
    return math.prod(sum(a**b for b in q) for a in p)


def maps(p: Poly, q: Poly) -> Iterator[PolyMap]:
    """All maps p -> q, one by one."""
    options = [
        [(j, back) for j, b in enumerate(q) for back in itertools.product(range(a), repeat=b)] for a in p
    ]  # fmt: skip
    for chosen in itertools.product(*options):
        yield PolyMap(p, q, tuple(j for j, _ in chosen), tuple(back for _, back in chosen))


def hom(p: Poly, q: Poly) -> Poly:
    """The internal hom [p, q]: a position is a map, its directions the events that it can see, `sum_i q[map(i)]`."""
    return Poly([sum(q[j] for j in found.forward) for found in maps(p, q)])


class Lens(NamedTuple):
    """A fixed wiring of Moore interfaces: outputs forward, inputs backward.

    `get(output)` is what the outside sees; `put(output, outside_input)` is the input that arrives inside. `f >> g` is first f,
    then g; `f @ g` has both side by side, on pairs.
    """

    get: Callable[[Any], Any]
    put: Callable[[Any, Any], Any]

    def __rshift__(self, other: Lens) -> Lens:
        return Lens(lambda a: other.get(self.get(a)), lambda a, e: self.put(a, other.put(self.get(a), e)))

    def __matmul__(self, other: Lens) -> Lens:
        return Lens(
            lambda a: (self.get(a[0]), other.get(a[1])),
            lambda a, e: (self.put(a[0], e[0]), other.put(a[1], e[1])),
        )


IDENTITY = Lens(lambda a: a, lambda a, e: e)
"""The wiring that changes nothing."""
