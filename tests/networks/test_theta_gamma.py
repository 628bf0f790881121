"""The theta-gamma memory, and the agent in its world."""

import random

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

from broadsheet.dynamics.phases import Clock
from broadsheet.errors import InputError
from broadsheet.networks.graph_worlds import GraphWorld, relearned, ring_of_grids, ring_of_paths
from broadsheet.networks.tabular_agents import TabularAgent, relearns
from broadsheet.networks.theta_gamma import ThetaGammaMemory
from broadsheet.networks.theta_gamma_agent import TGA, inhabit, live
from broadsheet.numerics.sparse_codes import SparseCode

ITEMS, CONTEXTS, KEYS = SparseCode(200, 6), SparseCode(60, 4), SparseCode(200, 10)


def test_sequences_through_a_shared_item_are_read_in_their_context():
    items = np.array(ITEMS.draw(jax.random.key(0), 8)).reshape(2, 4, 6)
    items[:, 2] = items[0, 2]
    labels = CONTEXTS.draw(jax.random.key(1), 2)
    memory = ThetaGammaMemory(ITEMS, CONTEXTS, KEYS, key=jax.random.key(2)).encode(jnp.asarray(items), labels)
    read = eqx.filter_jit(lambda memory, cue, direction, steps: memory.read(cue, labels, direction, steps))
    for cue, direction, expected in ((0, "forward", items[:, 1:]), (-1, "reverse", items[:, ::-1][:, 1:])):
        found, accepted = map(np.asarray, read(memory, items[:, cue], direction, 3))
        np.testing.assert_array_equal(np.sort(found), np.sort(expected))
        assert accepted.all()
        found, accepted = map(np.asarray, read(memory, items[:, cue], direction, 4))
        assert not accepted[:, -1].any()  # nothing follows the last

    @eqx.filter_jit
    def cleaned(memory, item):
        return memory.recognise(memory.synapses, ITEMS.noisy(jax.random.key(3), item, 1))[0]

    np.testing.assert_array_equal(np.sort(cleaned(memory, items[0, 0])), np.sort(items[0, 0]))


def test_half_open_gates_write_what_is_recalled_too():
    memory = ThetaGammaMemory(ITEMS, CONTEXTS)
    cue, old, new = np.asarray(ITEMS.draw(jax.random.key(4), 3))
    write = eqx.filter_jit(lambda synapses, *pair, gate: memory.write(synapses, *pair, None, gate))
    known = write(memory.synapses, cue, old, gate=np.float32(1))
    other = np.asarray(ITEMS.noisy(jax.random.key(5), jnp.asarray(cue), 1))
    alone = np.setdiff1d(other, cue)[0]  # the unit that only the new cue has
    for gate, both in ((1.0, False), (0.81, False), (0.5, True)):
        weights = np.asarray(write(known, other, new, gate=np.float32(gate)).following.weights)
        assert weights[alone, old].all() == both
        assert weights[alone, new].all()


def make(replay="reverse", episodes=12, limit=40):
    layout = ring_of_paths(2, 4)
    one, other, third = jax.random.split(jax.random.key(0), 3)
    world = GraphWorld(layout, ITEMS, CONTEXTS, [2, 6], per_goal=3, episodes=episodes, limit=limit, key=one)
    memory = ThetaGammaMemory(ITEMS, CONTEXTS, KEYS, key=other)
    return inhabit(Clock(dt=1.0), memory, TGA(ITEMS, CONTEXTS, 2, 8, sweep=2, replay=replay, key=third), world)


def test_the_agent_finds_the_places_and_the_values_of_the_way():
    found = live(make(), jax.random.key(1), moved=3, events=3000, chunk=1000)
    assert len(found.values) == 8  # each place is one code, in spite of the noise
    assert found.relearned <= 9
    assert (found.taken >= found.shortest).all()
    powers = np.round(np.log(found.values[found.values > 0]) / np.log(0.95), 3)
    assert np.allclose(powers, np.round(powers), atol=0.02)  # discounts of whole steps


def test_worlds():
    ring = ring_of_paths(3, 4)
    assert nx.is_isomorphic(ring.graph.to_undirected(), nx.cycle_graph(12))
    assert ring.distances(0).tolist() == [min(k, 12 - k) for k in range(12)]
    grids = ring_of_grids(2, 3, 3)
    assert grids.distances(4).max() <= 6
    assert grids.graph.number_of_edges() == 2 * (2 * 12 + 2)  # grids and two doors, both ways


def test_relearning_is_the_mean_of_five_ratios():
    taken, shortest = np.array([9, 9, 4, 4, 4, 4, 4, 8]), np.array([9, 9, 4, 4, 4, 4, 4, 4])
    assert np.flatnonzero(relearned(taken, shortest, 2)).tolist() == [6, 7]
    assert not relearned(taken, shortest, 4).any()


def test_iterated_tables_know_the_way_and_q_learning_needs_longer():
    layout = ring_of_paths(2, 5)
    agent = TabularAgent(layout, random.Random(0), iterate=True, drop=True, explore=0.0)
    for _, _ in zip(range(30), agent.episodes([3], 30), strict=False):
        pass
    known = [place for place in range(10) if len([a for a in range(2) if (place, a) in agent.model]) == 2 and place != 3]
    for place in known:
        assert max(agent.q[place]) == pytest.approx(0.95 ** (layout.distances(3)[place] - 1))

    def needed(**options):
        return np.mean([relearns(TabularAgent(layout, random.Random(seed), **options), [3, 8], 5, 100) for seed in range(5)])

    few, many = needed(iterate=True, drop=True, curiosity=0.1), needed(persist=0.0)
    assert few < many


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: ThetaGammaMemory(ITEMS, CONTEXTS).encode(ITEMS.draw(jax.random.key(0), 1)), "two items or more"),
        (lambda: ThetaGammaMemory(ITEMS, CONTEXTS).read(jnp.arange(6), direction="up"), "'forward' or 'reverse'"),
        (lambda: ThetaGammaMemory(ITEMS, CONTEXTS, threshold=0.0), "threshold is 0"),
        (lambda: TGA(ITEMS, CONTEXTS, 2, 8, replay="back", key=jax.random.key(0)), "replay is 'back'"),
        (lambda: GraphWorld(ring_of_paths(1, 3), ITEMS, CONTEXTS, [9], key=jax.random.key(0)), "among the places"),
        (lambda: ring_of_paths(1, 2), "three places"),
        (lambda: TabularAgent(ring_of_paths(1, 3), random.Random(0), rate=2.0), "rate in"),
    ],
)
def test_mistakes(wrong, says):
    with pytest.raises(InputError, match=says):
        wrong()
