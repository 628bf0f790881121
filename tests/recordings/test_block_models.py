"""Weighted block models: against graph-tool's lengths, counts of all graphs, and all partitions of small ones."""

import json
import math
import pickle
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import normalized_mutual_info_score

from broadsheet.errors import InputError
from broadsheet.recordings.block_models import WeightedSBM, _hierarchies, description_length
from broadsheet.recordings.block_search import _ln, log_factorials, search
from broadsheet.recordings.communities import above_median, louvain, spectral_communities, without_weak
from broadsheet.recordings.planted_graphs import complete_graph, mixing_graph, weighted_lfr

REFERENCE = Path(__file__).parent.parent / "references" / "block_models.json"


def partitions(nodes):
    """Labels of all partitions, each once."""
    found = [[0]]
    for _ in range(nodes - 1):
        found = [[*each, k] for each in found for k in range(max(each) + 2)]
    return found


def test_lengths_are_graph_tools():
    given = json.loads(REFERENCE.read_text())
    weights = np.zeros((24, 24))
    for i, j, weight in given["edges"]:
        weights[i, j] = weights[j, i] = weight
    for topology in ("multigraph", "degree-corrected", "simple"):
        ours = description_length(weights, [given["labels"]], topology=topology)
        for part, theirs in given[topology].items():
            assert getattr(ours, part) == pytest.approx(theirs, abs=1e-9)
        assert ours.weights == pytest.approx(given["weights"], abs=1e-9)


def test_edges_of_a_simple_graph_are_counted():
    labels = np.array([0, 0, 0, 1, 1])
    pairs = [(i, j) for i in range(5) for j in range(i)]
    weights = np.zeros((5, 5))
    for i, j in ((1, 0), (2, 0), (3, 2), (4, 3)):
        weights[i, j] = weights[j, i] = 1

    def table(joined):
        counts = [0, 0, 0]
        for (i, j), there in zip(pairs, joined, strict=True):
            counts[labels[i] + labels[j]] += there
        return counts

    wanted = table([weights[pair] > 0 for pair in pairs])
    ways = sum(table(joined) == wanted for joined in product((0, 1), repeat=10))
    assert description_length(weights, [labels], kind="none").edges == pytest.approx(math.log(ways))


def test_two_triangles_are_one_group():
    weights = np.zeros((6, 6))
    for i, j in ((0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5), (2, 3)):
        weights[i, j] = weights[j, i] = 1
    one, two = ([0] * 6, [0, 0, 0, 1, 1, 1])
    lengths = [description_length(weights, [each], kind="none", topology="multigraph").total for each in (one, two)]
    assert lengths == pytest.approx([13.50, 17.62], abs=5e-3)
    assert WeightedSBM("none", n_starts=2, max_groups=6).fit(weights).n_groups_ == 1


@pytest.mark.parametrize("topology", ["simple", "multigraph", "degree-corrected"])
def test_the_search_finds_the_best_of_all_partitions(topology):
    rng = np.random.default_rng(2)
    truth = np.array([0, 0, 0, 0, 1, 1, 1])
    weights = rng.exponential(np.where(truth[:, None] == truth, 30.0, 1.0)) * (rng.random((7, 7)) < 0.8)
    weights = np.triu(weights, 1) + np.triu(weights, 1).T
    best = min(description_length(weights, [each], topology=topology).total for each in partitions(7))
    model = WeightedSBM(
        degree_corrected=topology == "degree-corrected", multigraph=topology == "multigraph", nested=False, n_starts=6,
        max_groups=6,
    ).fit(weights)  # fmt: skip
    assert model.description_length_ == pytest.approx(best, abs=1e-8)


def test_lengths_of_the_search_are_those_of_its_partitions():
    graph = mixing_graph(np.random.default_rng(0))
    nodes, joined = len(graph.weights), graph.weights > 0
    for topology in ("simple", "multigraph", "degree-corrected"):
        found = search(graph.weights, "exponential", topology, 6, 2, 5, 0, log_factorials(nodes))
        assert [len(set(row)) for row in found.labels[0]] == [1, 2, 3, 4, 5, 6]
        full = np.zeros((2, 6))
        for start, k in np.ndindex(2, 6):
            labels = found.labels[start, k]
            length = description_length(graph.weights, [labels], topology=topology)
            full[start, k] = length.total - length.counts - math.log(math.comb(nodes - 1, k))
            table = [[joined[np.ix_(labels == i, labels == j)].sum() for j in range(6)] for i in range(6)]
            np.testing.assert_array_equal(found.edges[start, k], np.array(table) / (1 + np.eye(6)))
        np.testing.assert_allclose(found.lengths - found.lengths[0, 0], full - full[0, 0], atol=1e-7)


def test_no_single_node_is_better_off_elsewhere():
    graph = mixing_graph(np.random.default_rng(1), 30, 3, 10.0)
    for topology in ("simple", "degree-corrected"):
        found = search(graph.weights, "exponential", topology, 5, 1, 50, 0, log_factorials(30))
        for labels in found.labels[0, 1:]:
            here = description_length(graph.weights, [labels], topology=topology).total
            for node, group in np.ndindex(30, labels.max() + 1):
                if (labels == labels[node]).sum() > 1:
                    moved = np.where(np.arange(30) == node, group, labels)
                    assert description_length(graph.weights, [moved], topology=topology).total > here - 1e-7


def test_logarithms_are_those_of_the_c_library():
    x = np.concatenate([1 + np.geomspace(1e-16, 1, 1000), np.geomspace(1e-300, 1e300, 10_000), [1.0, 2**0.5, 0.5**0.5]])
    with jax.enable_x64(True):
        np.testing.assert_allclose(_ln(jnp.asarray(x)), np.log(x), rtol=1e-15, atol=0)


def test_nested_counts_against_all_partitions_of_groups():
    labels = np.repeat([0, 1], 4)
    counts = np.random.default_rng(1).poisson(np.where(labels[:, None] == labels, 20, 2))
    counts = np.triu(counts) + np.triu(counts, 1).T
    ((found, levels),) = _hierarchies([counts], 8, log_factorials(64))
    assert normalized_mutual_info_score(levels[0], labels) == 1
    nodes = np.repeat(np.arange(8), 8)
    weights = np.zeros((64, 64))
    for i, j in zip(*np.nonzero(np.triu(counts)), strict=True):  # a graph with these counts
        pairs = [(a, b) for a in np.flatnonzero(nodes == i) for b in np.flatnonzero(nodes == j) if a < b]
        assert counts[i, j] <= len(pairs)
        for a, b in pairs[: int(counts[i, j])]:
            weights[a, b] = weights[b, a] = 1
    weights = np.where(weights, 1.0, 0)
    prior = [description_length(weights, [nodes, *above], kind="none").counts for above in ([], [labels[nodes]])]
    assert found == pytest.approx(prior[1], abs=1e-8)
    assert prior[1] < prior[0]


def test_the_search_prices_nested_groups_as_their_description_does():
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(16), 8)
    chance = np.where(labels[:, None] == labels, 0.95, np.where(labels[:, None] // 4 == labels // 4, 0.2, 0.01))
    joined = np.triu(rng.random((128, 128)) < chance, 1)
    model = WeightedSBM("none", degree_corrected=False, n_starts=4).fit((joined | joined.T).astype(float))
    assert len(model.levels_) > 1
    assert normalized_mutual_info_score(model.levels_[1], labels // 4) > 0.9
    flat = description_length((joined | joined.T).astype(float), model.levels_[:1], kind="none")
    assert model.length_.counts < flat.counts
    assert model.profile_[model.n_groups_] == pytest.approx(model.description_length_, abs=1e-8)


def test_planted_weights_and_none():
    options = {"n_starts": 3, "max_groups": 6}
    graph = complete_graph(np.random.default_rng(1))
    model = WeightedSBM(**options).fit(graph.weights)
    assert normalized_mutual_info_score(graph.labels, model.labels_) > 0.9
    assert model.description_length_ <= description_length(graph.weights, [graph.labels]).total + 1e-6
    assert model.length_.total == pytest.approx(model.profile_[model.n_groups_], abs=1e-8)
    assert not model.degree_corrected_
    assert WeightedSBM("none", **options).fit(graph.weights).n_groups_ == 1
    assert WeightedSBM(**options).fit(complete_graph(np.random.default_rng(2), 1, 32, 1.0, 1.0).weights).n_groups_ == 1
    mixed = mixing_graph(np.random.default_rng(3))  # few starts from 6 groups get to its 4
    found = WeightedSBM(n_starts=3, max_groups=8).fit(mixed.weights).labels_
    assert normalized_mutual_info_score(mixed.labels, found) > 0.9


def test_the_unit_of_weights_does_not_matter():
    graph = complete_graph(np.random.default_rng(4), 3, 8)
    one, other = (WeightedSBM(n_starts=2, max_groups=6).fit(scale * graph.weights).labels_ for scale in (1.0, 1e-4))
    assert normalized_mutual_info_score(one, other) == 1


def test_planted_graphs_have_their_shares():
    rng = np.random.default_rng(0)
    graphs = [mixing_graph(rng, 200, 4, 30.0, 0.6, 0.2) for _ in range(3)]
    for graph in graphs:
        same = graph.labels[:, None] == graph.labels
        assert (graph.weights > 0).sum() / 200 == pytest.approx(30, rel=0.1)
        assert (graph.weights * ~same).sum() / graph.weights.sum() == pytest.approx(0.2, abs=0.05)
        assert ((graph.weights > 0) & ~same).sum() / (graph.weights > 0).sum() == pytest.approx(0.6, abs=0.05)
    graph = weighted_lfr(rng, 125, 25.0, 0.3, 0.4, 1.0)
    same, joined = graph.labels[:, None] == graph.labels, graph.weights > 0
    assert joined.sum() / 125 == pytest.approx(25, rel=0.3)
    assert (joined & ~same).sum() / joined.sum() == pytest.approx(0.4, abs=0.12)
    assert (graph.weights * ~same).sum() / graph.weights.sum() == pytest.approx(0.3, abs=0.12)
    assert np.corrcoef(graph.weights.sum(axis=1), joined.sum(axis=1))[0, 1] > 0.9
    with pytest.raises(InputError, match="No communities fit"):
        weighted_lfr(rng, 20, 18.0, mu_t=0.0, tries=2)


def test_other_ways_to_communities():
    graph = complete_graph(np.random.default_rng(5), 3, 12, 40.0, 1.0)
    for found in (louvain(graph.weights), spectral_communities(graph.weights)):
        assert normalized_mutual_info_score(graph.labels, found) == 1
    assert above_median(graph.weights).sum() == pytest.approx((graph.weights > 0).sum() / 2, abs=2)
    assert (without_weak(graph.weights, 0.5) > 0).sum() < (graph.weights > 0).sum()


def test_estimator_and_refusals():
    graph = complete_graph(np.random.default_rng(6), 2, 8)
    model = WeightedSBM(n_starts=2, max_groups=6)
    labels = model.fit_predict(graph.weights)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).labels_, labels)
    np.testing.assert_array_equal(clone(model).fit(graph.weights).labels_, labels)
    for wrong, words in (
        (np.ones((3, 4)), "square matrix"), (-graph.weights, "negative"), (np.triu(graph.weights), "not symmetric"),
        (np.zeros((4, 4)), "no edge"), (np.full((3, 3), np.nan), "not finite"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            WeightedSBM().fit(wrong)
    with pytest.raises(InputError, match="exponential or none"):
        WeightedSBM().set_params(kind="normal").fit(graph.weights)
    with pytest.raises(InputError, match="one or more of each"):
        WeightedSBM(n_starts=0).fit(graph.weights)
