from types import SimpleNamespace

import equinox as eqx
import jax
import numpy as np
import pytest
from scipy.stats import spearmanr

from broadsheet.atoms.labels import molecules
from broadsheet.atoms.message_passing import MessageConfig
from broadsheet.atoms.structures import batch_atoms
from broadsheet.papers.pubchemqcr import ScalarPaiNN, _agreement, as_large_schnet

CONFIG = MessageConfig(width=8, interactions=2, basis=8)


def test_painn_without_directions_has_no_vectors():
    net = ScalarPaiNN(CONFIG, 0)
    batch = batch_atoms(molecules(("CH3CH2OH",), 1)[0])
    s, v = eqx.filter_jit(lambda near: net.features(batch, near))(net.neighbours(batch))
    assert np.abs(v).max() == 0
    assert np.ptp(np.asarray(s)[:9], axis=0).max() > 0


def test_the_larger_schnet_has_as_many_weights_and_not_many_more():
    painn, schnet = ScalarPaiNN(CONFIG, 0), as_large_schnet(CONFIG, 0)

    def weights(net):
        return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(net, eqx.is_inexact_array))) - net.atom_embedding.size

    assert weights(painn) <= weights(schnet) < 2 * weights(painn)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_rankings_of_halves_agree_as_scipy_says(noise):
    rng = np.random.default_rng(0)
    molecule = np.repeat(np.arange(4), 6)
    starts = np.arange(0, 24, 3)
    judged = {}
    for k in range(5):
        errors = SimpleNamespace(force=k + noise * rng.standard_normal(24))
        judged[f"p{k}"] = (errors, SimpleNamespace(excess=-k + noise * rng.standard_normal(8)))
    judged["unrelaxed"] = (errors, None)
    found = _agreement(judged, molecule, starts)
    force = [[row[0].force[part].mean() for row in list(judged.values())[:5]] for part in (slice(12), slice(12, None))]
    excess = [[np.median(row[1].excess[part]) for row in list(judged.values())[:5]] for part in (slice(4), slice(4, None))]
    crossed = (spearmanr(force[0], excess[1]).statistic + spearmanr(force[1], excess[0]).statistic) / 2
    assert found["ranks"]["agreement"] == pytest.approx(crossed)
    assert found["forces"]["agreement"] == pytest.approx(spearmanr(*force).statistic)
    assert found["relaxations"]["agreement"] == pytest.approx(spearmanr(*excess).statistic)
