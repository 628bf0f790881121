"""Weighted graphs whose communities are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from broadsheet.errors import InputError


class PlantedGraph(NamedTuple):
    """Symmetric weights, 0 for no edge, and the community of each node."""

    weights: Float[np.ndarray, "nodes nodes"]
    labels: Int[np.ndarray, " nodes"]


def complete_graph(
    rng: np.random.Generator, groups: int = 4, size: int = 10, inside: float = 12.0, outside: float = 1.0
) -> PlantedGraph:
    """All pairs are joined; weights are exponential with the mean `inside` or `outside` groups."""
    labels = np.repeat(np.arange(groups), size)
    mean = np.where(labels[:, None] == labels, inside, outside)
    return PlantedGraph(_symmetric(rng.exponential(mean)), labels)


def mixing_graph(
    rng: np.random.Generator, nodes: int = 60, groups: int = 4, degree: float = 15.0, mu_t: float = 0.75, mu_w: float = 0.1
) -> PlantedGraph:
    """Groups of one size; a share `mu_t` of a node's edges leads out of its group, and these carry a share `mu_w` of the
    weight, which is exponential."""
    labels = np.arange(nodes) * groups // nodes
    same, size = labels[:, None] == labels, nodes / groups
    joined = rng.random((nodes, nodes)) < np.where(same, (1 - mu_t) * degree / (size - 1), mu_t * degree / (nodes - size))
    mean = np.where(same, (1 - mu_w) / (1 - mu_t), mu_w / mu_t)
    return PlantedGraph(_symmetric(joined * rng.exponential(mean)), labels)


def weighted_lfr(
    rng: np.random.Generator, nodes: int = 125, degree: float = 25.0, mu_w: float = 0.5, mu_t: float = 0.5, beta: float = 2.0,
    *, max_degree: int = 100, tau1: float = 2.0, tau2: float = 1.0, tries: int = 200,
) -> PlantedGraph:  # fmt: skip
    """The weighted benchmark of Lancichinetti and Fortunato (2009): degrees and community sizes follow power laws with the
    exponents `tau1` and `tau2`; a share `mu_t` of a node's edges leads out of its community; its strength is `degree **
    beta`, of which a share `mu_w` lies on edges that lead out.

    **Raises:** `InputError` where no community sizes fit the degrees in so many `tries`.
    """
    lowest = _lowest_degree(degree, max_degree, tau1)
    for _ in range(tries):
        degrees = _power_law(rng, nodes, lowest, max_degree, tau1)
        inside = np.rint((1 - mu_t) * degrees).astype(int)
        labels = _communities(rng, inside, max(int(inside.min()) + 1, 10), min(max_degree, nodes), tau2)
        if labels is not None:
            break
    else:
        raise InputError(f"No communities fit {nodes} nodes of degree {degree:g} with mu_t = {mu_t:g}.")
    joined = np.zeros((nodes, nodes), bool)
    for community in range(labels.max() + 1):
        members = np.flatnonzero(labels == community)
        joined[np.ix_(members, members)] |= _wired(rng, inside[members], np.zeros(len(members), int))
    joined |= _wired(rng, degrees - inside, labels, apart=True)
    return PlantedGraph(_spread_strength(joined, labels, degrees**beta, mu_w), labels)


def _symmetric(values: np.ndarray) -> np.ndarray:
    upper = np.triu(values, 1)
    return upper + upper.T


def _lowest_degree(mean: float, most: int, exponent: float) -> int:
    """The lowest degree of a power law that gives the mean best."""

    def gap(low: int) -> float:
        k = np.arange(low, most + 1, dtype=float)
        return abs(float((k ** (1 - exponent)).sum() / (k**-exponent).sum()) - mean)

    return min(range(1, most + 1), key=gap)


def _power_law(rng: np.random.Generator, count: int, low: int, high: int, exponent: float) -> np.ndarray:
    values = np.arange(low, high + 1)
    chance = values.astype(float) ** -exponent
    return rng.choice(values, count, p=chance / chance.sum())


def _communities(rng: np.random.Generator, inside: np.ndarray, low: int, high: int, exponent: float) -> np.ndarray | None:
    """A community for each node, larger than its degree inside; None where sizes do not add up or a node fits nowhere."""
    nodes = len(inside)
    sizes: list[int] = []
    while sum(sizes) < nodes:
        sizes.append(int(_power_law(rng, 1, low, high, exponent)[0]))
    sizes[-1] -= sum(sizes) - nodes
    if sizes[-1] < low:
        if len(sizes) == 1:
            return None
        left = sizes.pop()
        sizes[int(np.argmin(sizes))] += left
    room, labels = np.array(sizes), np.full(nodes, -1)
    for node in np.argsort(-inside, kind="stable"):  # the hardest to place first
        fits = np.flatnonzero((room > 0) & (np.array(sizes) > inside[node]))
        if not fits.size:
            return None
        labels[node] = rng.choice(fits, p=room[fits] / room[fits].sum())
        room[labels[node]] -= 1
    return labels


def _wired(rng: np.random.Generator, degrees: np.ndarray, labels: np.ndarray, apart: bool = False) -> np.ndarray:
    """A simple graph of about these degrees, drawn stub by stub; `apart`: between different labels only."""
    nodes = len(degrees)
    joined, left = np.zeros((nodes, nodes), bool), degrees.copy()
    barred = np.eye(nodes, dtype=bool) | ((labels[:, None] == labels) if apart else False)
    while left.any():
        node = int(left.argmax())
        open_to = (left > 0) & ~joined[node] & ~barred[node]
        if not open_to.any():
            left[node] = 0  # no partner is left: its last stubs go
            continue
        chosen = rng.choice(np.flatnonzero(open_to), min(left[node], int(open_to.sum())), replace=False,
                            p=left[open_to] / left[open_to].sum())  # fmt: skip
        joined[node, chosen] = joined[chosen, node] = True
        left[chosen] -= 1
        left[node] = 0
    return joined


def _spread_strength(
    joined: np.ndarray, labels: np.ndarray, strength: np.ndarray, mu_w: float, rounds: int = 500
) -> np.ndarray:
    """Weights from 0 on whose sums over a node's edges inside and outside its community come near to what is wanted: each
    node shares what it lacks among its edges of that sort, in turns with the others."""
    same = labels[:, None] == labels
    weights = np.zeros(joined.shape)
    for sort, share in ((same, 1 - mu_w), (~same, mu_w)):
        edges = joined & sort
        count = np.maximum(edges.sum(axis=1), 1)
        wanted = share * strength
        part = edges * (wanted / count)[:, None]
        part = (part + part.T) / 2
        for _ in range(rounds):
            lack = (wanted - part.sum(axis=1)) / count / 2
            part = np.maximum(part + edges * (lack[:, None] + lack), 0.0)
        weights += part
    floor = 1e-3 * weights[joined].mean()
    return np.where(joined, np.maximum(weights, floor), 0.0)
