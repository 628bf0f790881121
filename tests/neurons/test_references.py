"""Single cells against Brian2: the same inputs, the same spikes, the same voltages (traces made by bench/references.py)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import rollout
from broadsheet.neurons import ConductanceLIF, CurrentLIF, Izhikevich

TRACES = np.load(Path(__file__).parents[1] / "references" / "spiking" / "brian2.npz")


def check(name, voltages, spikes):
    """Spike times equal, voltages to 1e-4 of their range from rest."""
    steps, neurons = np.nonzero(np.asarray(spikes))
    order = np.lexsort((TRACES[f"{name}_neurons"], TRACES[f"{name}_steps"]))
    assert len(steps) > 20
    np.testing.assert_array_equal(steps, TRACES[f"{name}_steps"][order])
    np.testing.assert_array_equal(neurons, TRACES[f"{name}_neurons"][order])
    np.testing.assert_allclose(np.asarray(voltages)[::10], TRACES[f"{name}_v"], rtol=1e-4)


@pytest.mark.parametrize("name", ["current", "conductance"])
def test_synaptic_lif_neurons_equal_brian2(name):
    with jax.enable_x64(True):
        options = {"tau": 20.0, "rest": -60.0, "threshold": -50.0, "reset": -60.0, "refractory": 2.0, "dt": 0.1}
        kicks = jnp.asarray(TRACES["kicks"], float)
        if name == "current":
            cell, kicks = CurrentLIF(3, **options), 2 * kicks
        else:
            cell, kicks = ConductanceLIF(3, **options), kicks * jnp.array([[0.05], [-0.05]])
        _, (v, spikes) = rollout(cell, kicks, record=lambda state, out: (state.membrane.v, out))
    check(name, v, spikes)


def test_izhikevich_cells_equal_brian2():
    with jax.enable_x64(True):
        cells = Izhikevich(3, a=[0.02, 0.1, 0.02], b=[0.2, 0.2, 0.25], c=[-65, -65, -55], d=[8, 2, 4], dt=0.1)
        drive = jnp.asarray(TRACES["currents"], float)
        _, (v, spikes) = rollout(cells, drive, record=lambda state, out: (state[0], out))
    check("izhikevich", v, spikes)
