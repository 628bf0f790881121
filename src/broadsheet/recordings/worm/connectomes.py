"""Wiring of the worm from electron microscopy: every map over the same 300 names, row = pre, column = post.

The file `connectomes.npz` beside this one holds what `ConnectomeToolbox` (`cect`, MIT) reads from the published tables, as
integers: chemical synapses pre -> post as listed, gap junctions once for each pair of cells. `bench/references_worm.py` made
it. Other maps are read from installed packages or from a folder (`broadsheet.recordings.worm.packages`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from broadsheet.errors import InputError, NotFoundError
from broadsheet.recordings.worm.names import canonical_names, canonicalise, neuron_class, neuron_type, partner, slots

SOURCES = {
    "white": "White et al. 1986, both reconstructions and the tail together",
    "white_a": "White et al. 1986, the adult N2U",
    "white_l4": "White et al. 1986, the L4 larva JSH",
    "durbin_n2u": "White et al. 1986, N2U as digitised by Durbin 1987, neurons alone",
    "durbin_jsh": "White et al. 1986, JSH as digitised by Durbin 1987, neurons alone",
    "varshney": "Varshney et al. 2011, neurons alone",
    "cook2019h": "Cook et al. 2019, hermaphrodite, corrected in July 2020; weights are sections, not synapses",
    "cook2019m": "Cook et al. 2019, male, corrected in July 2020; weights are sections, not synapses",
    **{f"witvliet{k}": f"Witvliet et al. 2021, brain {k} of 8 from birth to adult" for k in range(1, 9)},
}
"""The maps that come with this package, and where they are from."""

GAP = "Generic_GJ"


class Edges(NamedTuple):
    """A table of connections between any cells, muscles and glia among them, as its source lists them."""

    pre: tuple[str, ...]
    post: tuple[str, ...]
    weight: np.ndarray

    @property
    def rows(self) -> int:
        """Pairs listed."""
        return len(self.weight)

    @property
    def total(self) -> float:
        """Their summed weight."""
        return float(self.weight.sum())


@dataclass(frozen=True)
class Connectome:
    """One map of the wiring over `names`; row = pre, column = post in every array, without self-connections.

    - `chem`: (300, 300) weights of chemical synapses, or of sections.
    - `gap`: (300, 300) weights of gap junctions, symmetric: each junction stands in both triangles, so that the sum over the
      matrix counts it twice.
    - `annotated`: (300,) cells that the map lists: what it does not list is unknown, not unconnected.
    - `tables`: kind -> `Edges` of all cells as the source lists them (gap junctions once a pair).
    - `layers`: other kinds (300, 300): a transmitter, contact area, neuropeptides, signal propagation.
    """

    name: str
    chem: np.ndarray
    gap: np.ndarray
    annotated: np.ndarray
    about: str = ""
    tables: dict[str, Edges] = field(default_factory=dict, repr=False)
    layers: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The 300 neurons, in the order of rows and columns."""
        return canonical_names()

    @classmethod
    def load(cls, name: str, folder: str | Path | None = None) -> Connectome:
        """A map by name: one of `SOURCES`; `cect:NAME` of an installed `cect`; `wormneuroatlas:NAME` and `funatlas` of an
        installed `wormneuroatlas`. A `folder` with that package's files stands in for an installed one.

        **Raises:** `NotFoundError` for other names, `MissingDataError` where the package is not there.
        """
        from broadsheet.recordings.worm import packages

        source, _, rest = name.partition(":")
        if source == "cect" and rest:
            return packages.cect_connectome(rest, folder)
        if source == "wormneuroatlas" and rest:
            return packages.atlas_connectome(rest, folder)
        if name == "funatlas":
            from broadsheet.recordings.worm.atlas import FunctionalAtlas

            return FunctionalAtlas.load(folder).connectome()
        if name not in SOURCES:
            raise NotFoundError(
                f"There is no connectome {name!r}; there are {', '.join(SOURCES)}, and cect:NAME, wormneuroatlas:NAME and "
                "funatlas of installed packages."
            )
        return _shipped(name)

    def to_networkx(self) -> Any:
        """A `networkx.DiGraph` of the neurons that the map lists, with `type`; edges have `chem` and `gap`."""
        try:
            import networkx
        except ImportError:
            from broadsheet.errors import MissingExtraError

            raise MissingExtraError("A graph of networkx", "recordings") from None
        graph = networkx.DiGraph(name=self.name)
        graph.add_nodes_from((each, {"type": neuron_type(each)}) for k, each in enumerate(self.names) if self.annotated[k])
        for i, j in np.argwhere((self.chem > 0) | (self.gap > 0)):
            graph.add_edge(self.names[i], self.names[j], chem=float(self.chem[i, j]), gap=float(self.gap[i, j]))
        return graph

    def permuted(self, rng: np.random.Generator) -> Connectome:
        """The same graph with the annotated cells' labels shuffled."""
        order = np.arange(len(self.names))
        cells = np.flatnonzero(self.annotated)
        order[cells] = rng.permutation(cells)
        pick = np.ix_(order, order)
        return Connectome(f"{self.name}, labels shuffled", self.chem[pick], self.gap[pick], self.annotated, self.about)

    def swapped(self, rng: np.random.Generator, swaps: int = 10) -> Connectome:
        """Edges exchanged at random with every cell's numbers of inputs, outputs and gap junctions kept; weights travel with
        the outputs. `swaps` tries an edge."""
        chem, gap = swap_directed(self.chem, rng, swaps), swap_undirected(self.gap, rng, swaps)
        return Connectome(f"{self.name}, edges swapped", chem, gap, self.annotated, self.about)

    def mirrored(self) -> Connectome:
        """The same graph with left and right cells exchanged."""
        other = np.array([slots()[partner(name)] for name in self.names])
        pick = np.ix_(other, other)
        return Connectome(f"{self.name}, mirrored", self.chem[pick], self.gap[pick], self.annotated[other])

    def within_classes(self, rng: np.random.Generator) -> Connectome:
        """Each chemical connection between random cells of its two classes: what is left when classes alone are wired."""
        classes: dict[str, list[int]] = {}
        for slot in np.flatnonzero(self.annotated):
            classes.setdefault(neuron_class(self.names[slot]), []).append(int(slot))
        members = [classes.get(neuron_class(name), []) for name in self.names]
        made = np.zeros_like(self.chem)
        for pre, post in np.argwhere(self.chem > 0):
            a, b = (int(rng.choice(members[k])) for k in (pre, post))
            made[a, b] += self.chem[pre, post] if a != b else 0.0
        return Connectome(f"{self.name}, within classes", made, self.gap, self.annotated)


def from_tables(name: str, chemical: Edges, electrical: Edges, cells: Sequence[str], about: str = "") -> Connectome:
    """A `Connectome` of tables by name; cells that are no canonical neuron stay in the tables alone. Rows of a pair are summed;
    a gap junction listed for both directions is taken once, the larger number of the two."""
    chem = _matrix(chemical)
    one_way = _matrix(electrical)
    gap = np.maximum(one_way, one_way.T)
    tables = {"chemical": chemical, "electrical": electrical}
    return Connectome(name, chem, gap, annotated_cells(cells), about, tables)


def annotated_cells(cells: Sequence[str]) -> Bool[np.ndarray, " neurons"]:
    """Which of the canonical names are among `cells`."""
    found = {canonicalise(cell) for cell in cells}
    return np.array([name in found for name in canonical_names()])


def _matrix(edges: Edges) -> Float[np.ndarray, "pre post"]:
    place, names = slots(), {cell: canonicalise(cell) for cell in {*edges.pre, *edges.post}}
    matrix = np.zeros((len(place),) * 2)
    for pre, post, weight in zip(edges.pre, edges.post, edges.weight, strict=True):
        a, b = names[pre], names[post]
        if a is not None and b is not None and a != b:
            matrix[place[a], place[b]] += weight
    return matrix


@functools.lru_cache(maxsize=32)
def _shipped(name: str) -> Connectome:
    with np.load(resources.files(__package__) / "connectomes.npz", allow_pickle=False) as file:  # type: ignore[arg-type]
        every = file["cells"].tobytes().decode().split("\n")
        cells = [every[k] for k in file[f"{name}.cells"]]
        tables = {}
        for kind in ("chemical", "electrical"):
            pre, post, weight = file[f"{name}.{kind}"]
            tables[kind] = Edges(tuple(cells[k] for k in pre), tuple(cells[k] for k in post), weight.astype(float))
    made = from_tables(name, tables["chemical"], tables["electrical"], cells, SOURCES[name])
    for array in (made.chem, made.gap, made.annotated):
        array.flags.writeable = False  # one copy serves all callers
    return made


class Consensus(NamedTuple):
    """What several maps agree on; all (pre, post).

    - `presence`: in how many maps the pair is connected.
    - `possible`: in how many maps both cells are annotated.
    - `weight`: mean weight over these, each map's weights divided by their sum; NaN where no map has both cells.
    """

    presence: np.ndarray
    possible: np.ndarray
    weight: np.ndarray


def consensus(maps: Sequence[Connectome], kind: Literal["chem", "gap"] = "chem") -> Consensus:
    """The consensus of several maps."""
    if not maps:
        raise InputError("No connectome was given; one or more are wanted.")
    weights = np.stack([getattr(each, kind) for each in maps])
    both = np.stack([np.outer(each.annotated, each.annotated) for each in maps])
    shares = weights / np.maximum(weights.sum((1, 2), keepdims=True), 1e-300)
    possible = both.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(possible > 0, (shares * both).sum(0) / possible, np.nan)
    return Consensus((weights > 0).sum(0), possible, mean)


def jaccard(a: Connectome, b: Connectome, kind: Literal["chem", "gap"] = "chem") -> float:
    """Pairs connected in both maps over pairs connected in either, among cells that both annotate."""
    both = np.ix_(*[np.flatnonzero(a.annotated & b.annotated)] * 2)
    x, y = getattr(a, kind)[both] > 0, getattr(b, kind)[both] > 0
    return float((x & y).sum() / max((x | y).sum(), 1))


def weight_correlation(a: Connectome, b: Connectome, kind: Literal["chem", "gap"] = "chem") -> float:
    """Pearson's correlation of log(1 + weight) over the ordered pairs that either map connects, among cells of both."""
    both = np.ix_(*[np.flatnonzero(a.annotated & b.annotated)] * 2)
    x, y = np.log1p(getattr(a, kind)[both]), np.log1p(getattr(b, kind)[both])
    either = (x > 0) | (y > 0)
    if either.sum() < 3 or x[either].std() == 0 or y[either].std() == 0:
        return float("nan")
    return float(np.corrcoef(x[either], y[either])[0, 1])


def swap_directed(weights: np.ndarray, rng: np.random.Generator, swaps: int = 10) -> np.ndarray:
    """(pre, post) with the targets of random pairs of edges exchanged: numbers of inputs and outputs stay, self-connections
    and double edges are not made."""
    pre, post = np.nonzero(weights)
    carried = weights[pre, post]
    targets, there = post.copy(), set(zip(pre.tolist(), post.tolist(), strict=True))
    count = len(pre)
    for a, b in rng.integers(0, max(count, 1), (swaps * count, 2)).tolist():
        i, j, k, m = int(pre[a]), int(targets[a]), int(pre[b]), int(targets[b])
        if i == m or k == j or (i, m) in there or (k, j) in there:
            continue
        there -= {(i, j), (k, m)}
        there |= {(i, m), (k, j)}
        targets[a], targets[b] = m, j
    made = np.zeros_like(weights)
    made[pre, targets] = carried
    return made


def swap_undirected(weights: np.ndarray, rng: np.random.Generator, swaps: int = 10) -> np.ndarray:
    """A symmetric matrix with ends of random pairs of edges exchanged; numbers of neighbours stay."""
    ends = np.argwhere(np.triu(weights > 0, 1))
    carried = weights[ends[:, 0], ends[:, 1]]
    pairs = [tuple(map(int, each)) for each in ends]
    there = set(pairs)
    count = len(pairs)
    for a, b, flip in rng.integers(0, max(count, 1), (swaps * count, 3)).tolist():
        (i, j), (k, m) = pairs[a], pairs[b]
        if flip % 2:
            k, m = m, k
        new = (min(i, m), max(i, m)), (min(k, j), max(k, j))
        if len({i, j, k, m}) < 4 or new[0] in there or new[1] in there:
            continue
        there -= {pairs[a], pairs[b]}
        there |= set(new)
        pairs[a], pairs[b] = new
    made = np.zeros_like(weights)
    for (i, j), weight in zip(pairs, carried, strict=True):
        made[i, j] = made[j, i] = weight
    return made
