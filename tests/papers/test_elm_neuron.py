"""What the paper's file adds to its parts: NeuronIO read while it is used, models of equal size, gates that remember."""

import pickle
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.errors import MissingDataError
from broadsheet.networks import Recurrent
from broadsheet.papers.elm_neuron import Surrogate, _cells, _remembering, _size, surrogate
from quiet import Quiet

SEGMENTS, DURATION = 4, 700
SMALL = Surrogate(source="neuronio", d_ms=(1, 2), ladder=(1, 2), d_tree=2, d_brch=5, channels=2 * SEGMENTS, steps=2, batch=2,
                  window=60, trace_simulations=3, trace_bins=600)  # fmt: skip


def test_neuronio_is_read_while_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("BROADSHEET_TRUST", "1")
    rng = np.random.default_rng(0)

    def simulation():
        spikes = [{k: sorted(rng.integers(0, DURATION, 20).tolist()) for k in range(SEGMENTS)} for _ in range(2)]
        return {"exInputSpikeTimes": spikes[0], "inhInputSpikeTimes": spikes[1],
                "somaVoltageLowRes": rng.uniform(-70, -50, DURATION), "outputSpikeTimes": rng.uniform(520, 690, 5)}  # fmt: skip

    for part, count in (("train", 2), ("test", 1)):
        for k in range(count):
            content = {"Params": {"totalSimDurationInSec": DURATION / 1000, "allSegmentsType": [0] * SEGMENTS},
                       "Results": {"listOfSingleSimulationDicts": [simulation() for _ in range(2)]}}  # fmt: skip
            (tmp_path / f"{part}_{k}.p").write_bytes(pickle.dumps(content))
    report = surrogate.function(replace(SMALL, data=str(tmp_path)), jax.random.key(0), Quiet())
    assert all(np.isfinite(value) for row in report.scalars().values() for value in row.values())
    assert len(report.arrays["voltage"]) == 2 * (DURATION - 500)
    with pytest.raises(MissingDataError, match="Kaggle"):
        surrogate.function(SMALL, jax.random.key(0), Quiet())


def test_models_that_stand_beside_have_as_many_parameters():
    config = Surrogate()
    groups = _cells(config, jax.random.key(0))
    size = {name: _size(model) for group in groups.values() for name, model in group.items()}
    assert size["branch-20"] == size["random-routing"]
    for name in ("lstm", "tcn", "lif"):
        assert 0.9 * size["plain"] < size[name] <= size["plain"]
    assert 0.85 * size["branch-20"] < size["small-plain"] <= size["branch-20"] < size["plain"] / 3


def test_gates_begin_by_remembering():
    """A cell state of 1 without input is what it was after as many steps as its forget gate was made for, but for 1 / e."""
    made = _remembering(Recurrent(1, 300, 1, key=jax.random.key(0)), 100.0, jax.random.key(1))
    bias = np.asarray(made.cell.bias).reshape(4, -1)
    np.testing.assert_array_equal(bias[0], -bias[1])
    kept = -1 / np.log(np.asarray(jax.nn.sigmoid(jnp.asarray(bias[1]))))
    assert 1 < kept.min() < 8
    assert 90 < kept.max() < 101
