import jax
import numpy as np
import pytest
from ase import Atoms

from broadsheet.atoms.pair_table import PairTable, fit_pair_table
from broadsheet.atoms.potential import ScaledPotential, compiled_predict
from broadsheet.atoms.structures import MAX_NUMBER, batch_atoms, labelled
from broadsheet.errors import InputError


def structures(count, rng, periodic):
    made = []
    for _ in range(count):
        numbers = rng.choice([1, 6], 7)
        positions = np.array([[x, y, 0.0] for x in range(3) for y in range(3)][:7]) * 1.3 + rng.uniform(-0.3, 0.3, (7, 3))
        made.append(Atoms(numbers, positions, cell=[6, 6, 6] if periodic else None, pbc=periodic))
    return made


def answers(potential, batch):
    with jax.enable_x64(True):
        found = compiled_predict(potential, batch, potential.neighbours(batch))
        return np.asarray(found.energy), np.asarray(found.forces)


@pytest.mark.parametrize("periodic", [False, True])
def test_a_table_is_found_again_from_energies_and_differentiated_forces(periodic):
    rng = np.random.default_rng(0)
    table = rng.standard_normal((2, 2, 8))
    row, references = np.zeros(MAX_NUMBER + 1, int), np.full(MAX_NUMBER + 1, np.nan)
    row[6], references[[0, 1, 6]] = 1, (0.0, -3.0, -30.0)
    truth = ScaledPotential(PairTable(row=row, table=table + table.transpose(1, 0, 2), cutoff=3.5), references)
    with jax.enable_x64(True):
        bare = structures(40, rng, periodic)
        energy, forces = answers(truth, batch_atoms(bare))
        made = [labelled(each, energy[k], forces[7 * k : 7 * k + 7]) for k, each in enumerate(bare)]
        found = fit_pair_table(made[:30], made[30:35], cutoff=3.5, basis=8)
        again = answers(found, batch_atoms(made[35:]))
    np.testing.assert_allclose(again[0][:5], energy[35:40], atol=1e-3)
    np.testing.assert_allclose(again[1][:35], forces[245:280], atol=1e-3 * np.abs(forces).max())


def test_validation_of_unseen_elements_is_refused():
    one, other = (labelled(Atoms(name, [[0, 0, 0], [0, 0, 1.0]]), 0.0, np.zeros((2, 3))) for name in ("H2", "N2"))
    with pytest.raises(InputError, match="element 7"):
        fit_pair_table([one], [other])
