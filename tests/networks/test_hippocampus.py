"""The memory against a second simulator, in plain NumPy, and its operations."""

import numpy as np
import pytest

from broadsheet.errors import CompositionError, InputError
from broadsheet.networks import HippocampalCAM
from broadsheet.networks.hippocampus import CELLS, PLASTIC, STRONGEST, _kind, connections, fast_stdp, schedule
from broadsheet.plasticity import STDP, ThreeFactor


def simulate(spikes_in, n_cue, n_cont):
    """Loops over neurons and synapses; weights of plastic synapses change when their presynaptic neuron fires."""
    cue = ["InCue", "CueCue", "CueCont", "MergeCue", "OutCue"]
    sizes = dict.fromkeys(cue, n_cue) | {"CondInt": 1}
    sizes |= dict.fromkeys(["InCont", "ContCue", "ContCont", "Cond", "MergeCont", "OutCont"], n_cont)
    steps = len(spikes_in)
    fired = {name: np.zeros((steps, size), bool) for name, size in sizes.items()}
    v = {name: np.full(size, -60.0) for name, size in sizes.items()}
    current = {name: np.zeros((2, size)) for name, size in sizes.items()}
    wait = {name: np.zeros(size, int) for name, size in sizes.items()}
    arriving = {name: np.zeros((steps + 5, 2, size)) for name, size in sizes.items()}
    w = {pair: np.zeros((sizes[pair[0]], sizes[pair[1]])) for pair in PLASTIC}
    last = {pair: np.full(sizes[pair[0]], -1) for pair in PLASTIC}
    trace = {pair: np.zeros(sizes[pair[0]]) for pair in PLASTIC}
    e = np.exp(-1 / 0.3)
    for t in range(steps):
        fired["InCue"][t], fired["InCont"][t] = spikes_in[t, :n_cue], spikes_in[t, n_cue:]
        for name in sizes:
            if name.startswith("In"):
                continue
            cm, tau = CELLS[_kind(name)]
            threshold = -57.5 if name.startswith("Out") else -57.0
            current[name] += 0.3 * (1 - e) * arriving[name][t]
            for k in range(sizes[name]):
                if wait[name][k]:
                    wait[name][k] -= 1
                    continue
                goal = -60 + tau / cm * (current[name][0, k] - current[name][1, k])
                v[name][k] = goal - (goal - v[name][k]) * np.exp(-1 / tau)
                if v[name][k] >= threshold:
                    fired[name][t, k], v[name][k], wait[name][k] = True, -60.0, 1
            current[name] *= e
        for c in connections(n_cont):
            for k in np.nonzero(fired[c.source][t])[0]:
                targets = {"one to one": [k], "all to all": range(sizes[c.target])}.get(
                    c.pattern, [j for j in range(sizes[c.target]) if j != k]
                )
                for j in targets:
                    arriving[c.target][t + c.delay, 0 if c.weight > 0 else 1, j] += abs(c.weight)
        for pair in PLASTIC:
            for i in np.nonzero(fired[pair[0]][t])[0]:
                p = last[pair][i]
                for j in range(sizes[pair[1]]):
                    history = np.nonzero(fired[pair[1]][:t, j])[0]
                    for h in history:
                        if p >= 0 and h + 1 > p:
                            w[pair][i, j] = min(6.0, w[pair][i, j] + 6 * trace[pair][i] * np.exp(-(h + 1 - p) / 3))
                    w[pair][i, j] = max(0.0, w[pair][i, j] - 6 * np.exp(-(t - (history + 1)) / 3).sum())
                trace[pair][i] = trace[pair][i] * np.exp(-(t - p) / 3) + 1 if p >= 0 else 1.0
                last[pair][i] = t
                arriving[pair[1]][t + 1, 0] += w[pair][i]
    return fired


def test_spikes_equal_a_second_simulator():
    rng = np.random.default_rng(0)
    operations = [(10 * k, k % 3, rng.permutation(4)[:2]) for k in range(5)]
    operations += [(50, 0, []), (58, None, [1]), (66, None, [0, 3]), (74, 2, [])]
    spikes = schedule(3, 4, operations, 90)
    spikes |= (rng.random(spikes.shape) < 0.02) & (np.arange(90) > 82)[:, None]
    expected = simulate(spikes, 3, 4)
    found = HippocampalCAM(3, 4).run(spikes)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert sum(array.sum() for array in expected.values()) > 150


def test_store_recall_overwrite_and_forget():
    cam = HippocampalCAM(4, 6)
    cam.store(0, [0, 2])
    cam.store(2, [2, 5])
    assert cam.recall_content(0) == [0, 2]
    assert cam.recall_cues([2]) == [0, 2]
    assert cam.recall_cues([5]) == [2]
    assert cam.recall_content(1) == []
    cam.store(0, [4])
    assert cam.recall_content(0) == [4]
    cam.forget(2)
    assert cam.recall_content(2) == []
    assert cam.recall_cues([5]) == []
    assert cam.time == 3 * 10 + 22 + 7 * 8
    cam.reset()
    assert cam.time == 0
    assert cam.recall_content(0) == []


def test_what_is_forgotten_is_gone_in_both_directions_and_nothing_else_is():
    """Contents that share bits: after one is forgotten each cue, and each bit, answers as if it had never been stored."""
    contents = {0: [1, 2], 1: [2, 5], 2: [0, 3, 5], 3: [1, 2, 5]}
    for gone, kept in contents.items():
        cam = HippocampalCAM(4, 6)
        for cue, bits in contents.items():
            cam.store(cue, bits)
        before = cam.weights
        cam.forget(gone)
        to_content, to_cue = cam.weights.values()
        assert max(to_content[gone].max(), to_cue[:, gone].max()) < 0.12 * STRONGEST
        for old, new, axis in zip(before.values(), (to_content, to_cue), (0, 1), strict=True):
            assert np.abs(np.delete(new - old, gone, axis)).max() < 0.12 * STRONGEST
        after = cam.state
        for bit in range(6):
            cam.state = after
            assert cam.recall_cues([bit]) == [cue for cue, bits in contents.items() if bit in bits and cue != gone]
        cam.state = after
        for cue, bits in contents.items():
            assert cam.recall_content(cue) == ([] if cue == gone else bits)
        cam.store(gone, kept)
        assert cam.recall_content(gone) == kept


def test_the_memory_takes_another_rule_and_writes_back_what_it_learned():
    """A stored pair reaches the bound; with a rule that never changes a weight nothing is recalled."""
    cam = HippocampalCAM(3, 4, rule=fast_stdp())
    cam.store(1, [0, 3])
    learned = cam.network.consolidate(cam.state)
    np.testing.assert_array_equal(learned.rules[0].weights, cam.weights["CueCue-ContCue"])
    assert cam.weights["CueCue-ContCue"].max() == 6
    none = HippocampalCAM(3, 4, rule=STDP(a_plus=0.0, a_minus=0.0, bounds=(0.0, 6.0)))
    none.store(1, [0, 3])
    assert none.recall_content(1) == []
    with pytest.raises(InputError, match="ThreeFactor also wants modulator; the memory"):
        HippocampalCAM(3, 4, rule=ThreeFactor())
    with pytest.raises(CompositionError, match="Time steps differ"):
        HippocampalCAM(3, 4, rule=STDP(dt=0.5))


@pytest.mark.parametrize(
    ("use", "said"),
    [(lambda cam: cam.store(9, [0]), "cue 9 does not exist"), (lambda cam: cam.store(0, [6]), "bit 6"),
     (lambda cam: cam.recall_cues([]), "bits is empty"), (lambda cam: cam.run(np.zeros((5, 3))), "spikes are"),
     (lambda cam: cam.run(np.full((5, 10), np.nan)), "0 or 1"), (lambda cam: HippocampalCAM(0, 3), "n_cue = 0"),
     (lambda cam: HippocampalCAM(2, 3, store_gap=1), "store_gap = 1")],
)  # fmt: skip
def test_mistakes_are_named(use, said):
    with pytest.raises(InputError, match=said):
        use(HippocampalCAM(4, 6))
