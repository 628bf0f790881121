import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadsheet.dynamics.interfaces import IDENTITY, Lens, Poly, PolyMap, Y, count_maps, hom, maps
from broadsheet.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the type checker samples items
polys = st.lists(st.integers(0, 2), min_size=1, max_size=2).map(Poly)


def test_operations_on_hand_computed_examples():
    p, q = Poly([2, 0]), Poly([1, 1, 3])  # y² + 1, 2y + y³
    assert p(3) == 10
    assert q(2) == 12
    assert p + q == Poly([2, 0, 1, 1, 3])
    assert sorted(p @ q) == [0, 0, 0, 2, 2, 6]
    assert Poly.monomial(2, 3) @ Poly.monomial(5, 7) == Poly.monomial(10, 21)
    assert sorted(p.compose(Poly([1]))) == [0, 2]
    assert repr(p) == "Poly([2, 0])"
    with pytest.raises(InputError, match="negative"):
        Poly([-1])


def test_maps_between_monomials_are_lenses():
    assert count_maps(Poly.monomial(2, 3), Poly.monomial(4, 5)) == (4 * 3**5) ** 2  # get: 2 -> 4, put: 2 x 5 -> 3
    assert count_maps(Poly([0]), Poly([0, 2])) == 1  # no direction can come back to a position without any


@given(polys, polys)
def test_enumeration_and_formula_agree(p, q):
    found = list(maps(p, q))
    assert len(found) == len(set(found)) == count_maps(p, q) == len(hom(p, q))


@given(polys, polys, polys)
def test_laws(p, q, r):
    assert count_maps(p @ q, r) == count_maps(p, hom(q, r))
    assert p @ Y == p == Y @ p
    assert sorted((p @ q) @ r) == sorted(p @ (q @ r))
    assert all(p.compose(q)(n) == p(q(n)) for n in range(4))
    assert all((p + q)(n) == p(n) + q(n) for n in range(4))


@given(polys, polys, st.data())
def test_maps_compose_associatively(p, q, data):
    found = [list(itertools.islice(maps(a, b), 50)) for a, b in ((p, q), (q, p), (p, q))]
    if not all(found):
        return
    f, g, h = (data.draw(st.sampled_from(options)) for options in found)
    assert f.then(g).then(h) == f.then(g.then(h))
    unit = PolyMap(p, p, tuple(range(len(p))), tuple(tuple(range(a)) for a in p))
    assert unit.then(f) == f


def test_a_map_needs_a_common_interface():
    f = next(maps(Poly([1]), Poly([1])))
    g = next(maps(Poly([1, 1]), Poly([1])))
    with pytest.raises(InputError, match="followed"):
        f.then(g)


def test_lenses_go_forward_and_back():
    f = Lens(lambda a: a + 1, lambda a, e: (a, e))
    g = Lens(lambda b: b * 10, lambda b, e: (b, e))
    both = f >> g
    assert both.get(2) == 30
    assert both.put(2, "x") == (2, (3, "x"))
    assert (IDENTITY >> f).put(2, "x") == f.put(2, "x")
    side = f @ g
    assert side.get((1, 2)) == (2, 20)
    assert side.put((1, 2), ("a", "b")) == ((1, "a"), (2, "b"))
