"""The energy of Harris and Foulkes: of a density that is not self-consistent, right to second order in its error."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from broadsheet.electrons.functionals import Functional
from broadsheet.electrons.kohn_sham import Molecule, energy_and_fock


def harris_energy(functional: Functional, molecule: Molecule, D: Float[Array, "spins n n"]) -> Float[Array, ""]:
    """Energies of the occupied levels in the field of D, less what they count twice: without another cycle, Hartree.

    sum_i n_i e_i - E_H + E_xc - tr(D V_xc) + E_nuc, all at D. At a self-consistent density it is the total energy; near one its
    error goes with the square of the density's, where that of the total energy goes with the density's. Differentiable.

    **Source:** Harris, Phys. Rev. B 31, 1770 (1985); Foulkes and Haydock, Phys. Rev. B 39, 12520 (1989).
    """
    found, F = energy_and_fock(functional, molecule, D)
    X = molecule.orthogonal
    levels = jnp.linalg.eigvalsh(jnp.einsum("nm,snp,pq->smq", X, F, X))
    difference = jnp.sum(levels * jnp.asarray(molecule.occupations())) - jnp.vdot(D, F)
    return found + difference * (2 if molecule.restricted else 1)
