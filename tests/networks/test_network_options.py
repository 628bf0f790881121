"""Networks as they come: numbers of the papers where a paper gives them, of the documentation otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import feedback, rollout
from broadsheet.errors import InputError
from broadsheet.networks import (
    Dense,
    PoissonBackground,
    Projection,
    Uniform,
    continual,
    hippocampus,
    nir_files,
    nir_nodes,
    prediction,
    reservoir,
    spiking_classifier,
)
from broadsheet.neurons import LIF


def test_constants_are_those_of_the_papers():
    """The memory's cells and times as in the authors' programs: nF, ms, mV, nA."""
    assert hippocampus.CELLS == {"A": (0.27, 3.0), "B": (0.14, 0.5)}
    assert (hippocampus.REST, hippocampus.THRESHOLD, hippocampus.STRONGEST) == (-60.0, -57.0, 6.0)
    assert (hippocampus.STORE_STEPS, hippocampus.FORGET_STEPS, hippocampus.SETTLED) == (3, 5, 10)
    assert (hippocampus.CUE_TO_CONTENT, hippocampus.CONTENT_TO_CUE, hippocampus.DELAYS) == (6, 6, 3)
    assert pytest.approx(np.exp(-1)) == 0.5**continual.HALF_LIFE
    assert spiking_classifier.SIGNS == {"threshold": 1.0, "tau": -1.0, "d": 1.0}  # what makes a neuron fire less
    assert spiking_classifier.GAIN == 0.5
    assert nir_files.MAX_BYTES == 2 * 1024**3


def test_static_synapses_are_those_of_the_memorys_figure():
    """Weight in nA, delay in ms of each (arXiv 2310.05868, fig. 2 and the authors' program), for 4 bits of content."""
    found = {(c.source, c.target, c.pattern): (c.weight, c.delay) for c in hippocampus.connections(4)}
    one, every, others = "one to one", "all to all", "all to others"
    assert found == {
        ("InCue", "CueCue", one): (6.0, 1), ("InCont", "ContCue", one): (6.0, 1), ("CueCue", "CueCont", one): (6.0, 2),
        ("CueCue", "CueCont", others): (-24.0, 3), ("CueCue", "Cond", every): (-6.0, 2), ("ContCue", "Cond", one): (9.0, 1),
        ("ContCue", "CondInt", every): (6.0, 1), ("CondInt", "Cond", every): (2.0, 1), ("Cond", "ContCont", one): (6.0, 1),
        ("CueCont", "CueCont", others): (-24.0, 2), ("CueCue", "MergeCue", one): (6.0, 3),
        ("CueCont", "MergeCue", one): (6.0, 1), ("ContCue", "MergeCont", one): (6.0, 3),
        ("ContCont", "MergeCont", one): (6.0, 1), ("MergeCue", "OutCue", one): (6.0, 1),
        ("MergeCont", "OutCont", one): (6.0, 1),
    }  # fmt: skip
    rule = hippocampus.fast_stdp()
    assert (float(rule.a_plus), float(rule.a_minus), rule.limits) == (6.0, 6.0, (0.0, 6.0))
    assert (rule.dendritic, rule.axonal, rule.dt) == (1, 0, 1.0)
    assert (rule.tau_pre.tolist(), rule.tau_post.tolist()) == ([[3.0]], [[3.0]])


def test_a_cue_comes_and_leaves_a_context():
    course = reservoir.cue_course(200, 1, 3)
    assert jnp.unique(course[:, [0, 2]]).tolist() == [0.0]
    np.testing.assert_allclose(course[:, 1], [0.0] * 50 + [1.0] * 100 + [0.3] * 50, rtol=1e-6)


def test_predictions_targets_and_attention_at_their_edges():
    times = jnp.arange(0.0, 100.0, 10.0)
    z = jnp.zeros((10, 2)).at[:, 1].set(0.1).at[5, 1].set(1.0)
    when, chance = prediction.prediction_object(z, times)
    assert float(when) == 50.0
    np.testing.assert_allclose(chance, [0.0, (0.1 + 1.0 + 0.1) / 3], rtol=1e-6)  # within 10 ms, both ends
    np.testing.assert_allclose(prediction.attention(jnp.asarray(0.0), times), [1.0] * 6 + [0.2] * 4, rtol=1e-6)
    bump = prediction.target(jnp.asarray(1), jnp.asarray(50.0), times, 2)
    np.testing.assert_allclose(bump[:, 1], np.exp(-0.5 * ((np.arange(10) * 10 - 50) / 20) ** 2), rtol=1e-5)
    assert not bump[:, 0].any()
    assert not prediction.target(jnp.asarray(prediction.OMITTED), jnp.asarray(50.0), times, 2).any()


AT_THE_EDGE = {
    "trials": (lambda n: prediction.cue_trials(jax.random.key(0), [prediction.Block(n, (0.5,), 1.0)]), 1, 0),
    "probabilities": (lambda p: prediction.cue_trials(jax.random.key(0), [prediction.Block(1, (0.5, p), 1.0)]), 0.5, 0.51),
    "a probability": (lambda p: prediction.cue_trials(jax.random.key(0), [prediction.Block(1, (p,), 1.0)]), 0.0, -0.01),
    "cues": (lambda n: hippocampus.HippocampalNetwork(n, 1), 1, 0),
    "bits": (lambda n: hippocampus.HippocampalNetwork(1, n), 1, 0),
    "a delay": (lambda n: Projection.from_pairs([0], [1], [1.0], size=1, out=(2,), delay=n), 1, 0),
    "a dense delay": (lambda n: Dense(jnp.ones((1, 1)), delay=n), 1, 0),
    "a uniform delay": (lambda n: Uniform(1.0, 1, 1, "all to all", delay=n), 1, 0),
}


@pytest.mark.parametrize("name", AT_THE_EDGE)
def test_bounds_are_where_they_are_said_to_be(name):
    make, good, bad = AT_THE_EDGE[name]
    make(good)
    with pytest.raises(InputError):
        make(bad)


SYSTEMS = {
    "feedback": lambda: feedback(LIF(2), Dense(jnp.ones((2, 2)))),
    "Dense": lambda: Dense(jnp.ones((2, 3))),
    "Uniform": lambda: Uniform(1.0, 2, 2, "all to others"),
    "Reservoir": lambda: reservoir.reservoir(jax.random.key(0), 5),
    "HippocampalNetwork": lambda: hippocampus.HippocampalNetwork(2, 3),
    "Node": lambda: nir_nodes.Node("Scale", {"scale": jnp.ones(())}, ()),
    "PoissonBackground": lambda: PoissonBackground(3, 1.0, 1.0),
    "SpikingMLP": lambda: continual.SpikingMLP((4, 3, 2), key=jax.random.key(0)),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_sizes_and_steps_are_no_leaves(name):
    """Else each would be traced: a size could shape no array."""
    assert all(isinstance(leaf, jax.Array | np.ndarray) or callable(leaf) for leaf in jax.tree.leaves(SYSTEMS[name]()))


def test_half_life_neurons_fire_at_their_threshold():
    """Half the potential is kept each step: 0.5 + 0.25 + 0.125 + ... stays below 1, and 1 alone fires."""
    cell = continual.halving(1)
    assert rollout(cell, jnp.full((8, 1), 0.4999))[1].sum() == 0
    assert rollout(cell, jnp.asarray([[1.0], [0.0]]))[1].tolist() == [[1.0], [0.0]]
    assert rollout(cell, jnp.asarray([[1.5], [0.75]]))[1].tolist() == [[1.0], [1.0]]  # a soft reset: 0.5 stays, 0.25 a step on


def test_the_kinds_of_nodes_are_those_of_the_library():
    import nir

    known = {name for name, each in vars(nir).items() if isinstance(each, type) and issubclass(each, nir.ir.node.NIRNode)}
    assert set(nir_nodes.KINDS) == known - {"NIRNode", "NIRGraph"}
    for name, kind in nir_nodes.KINDS.items():
        fields = set(getattr(nir, name).__dataclass_fields__)
        assert set(kind.arrays) <= fields, name
