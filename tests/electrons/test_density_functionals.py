"""Functionals against libxc, energies and forces against PySCF, gradients against differences, and exact conditions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from broadsheet.electrons.calculator import KohnShamCalculator
from broadsheet.electrons.exact_conditions import correlation_scaling, self_correlation, uniform_gas
from broadsheet.electrons.functionals import NAMED, Density, Sum, named, pbe_correlation, pbe_exchange, pw92, slater
from broadsheet.electrons.kohn_sham import Molecule, energy_and_fock, energy_and_fock_of_orbitals, mean_field, spread
from broadsheet.electrons.neural_functional import NeuralConfig, NeuralFunctional, basis_densities
from broadsheet.electrons.self_consistency import converge, ground_state, safe_eigh
from broadsheet.errors import InputError

pytest.importorskip("pyscf", reason="pip install '.[atoms]'")
LIBXC = {"lda": "lda,pw", "svwn": "lda,vwn", "pbe": "pbe,pbe", "blyp": "b88,lyp", "scan": "scan,scan", "b3lyp": "b3lyp",
         "b3lyp5": "b3lyp5", "pbe0": "pbe0"}  # fmt: skip


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def points(count=500):
    """Random spin densities with gradients and kinetic energy densities that a system could have."""
    rng = np.random.default_rng(0)
    rho = np.exp(rng.uniform(-10, 3, (2, count)))
    slope = rng.standard_normal((2, 3, count))
    slope *= (
        np.exp(rng.uniform(-4, 1.5, (2, 1, count))) * rho[:, None] ** (4 / 3) / np.linalg.norm(slope, axis=1, keepdims=True)
    )
    squares = [(slope[a] * slope[b]).sum(axis=0) for a, b in ((0, 0), (0, 1), (1, 1))]
    tau = np.stack(squares[::2]) / (8 * rho) + np.exp(rng.uniform(-6, 1, (2, count))) * rho ** (5 / 3)
    return Density(*map(jnp.asarray, (rho, np.stack(squares), tau))), slope


@pytest.mark.parametrize("name", list(NAMED))
def test_functionals_are_those_of_libxc(name):
    from pyscf.dft import libxc

    density, slope = points()
    functional = named(name)
    parts = {"lda": 1, "gga": 4, "mgga": 6}[functional.level]
    rho, tau = np.asarray(density.rho), np.asarray(density.tau)
    given = [np.vstack([rho[s], slope[s], 0 * rho[s], tau[s]])[:parts] for s in range(2)]
    wanted, potential = libxc.eval_xc(LIBXC[name], [g[0] for g in given] if parts == 1 else given, spin=1, deriv=1)[:2]
    values, found = eqx.filter_jit(lambda d: (functional.energy_density(d), jax.grad(
        lambda d: jnp.sum(functional.energy_density(d)))(d)))(density)  # fmt: skip
    np.testing.assert_allclose(values, wanted * rho.sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.rho.T, potential[0], rtol=1e-7, atol=1e-9)
    if parts > 1:
        np.testing.assert_allclose(found.sigma.T, potential[1], rtol=1e-7, atol=1e-9)
    if parts > 4:
        np.testing.assert_allclose(found.tau.T, potential[3], rtol=1e-7, atol=1e-9)
    if functional.exact_exchange:
        assert functional.exact_exchange == libxc.hybrid_coeff(LIBXC[name])


@pytest.fixture(scope="module")
def radical():
    made = molecule("CH3")
    made.rattle(0.05, seed=0)
    made.info["spin"] = 2
    return made


@pytest.mark.parametrize("fitted", [False, True])
def test_an_open_shell_is_that_of_pyscf(radical, fitted):
    field = mean_field(radical, grid=0, fitted=fitted)
    made = Molecule.from_pyscf(field)
    functional = Sum((slater, pw92), "lda", (0.75, 1.0), exact_exchange=0.25)
    field.xc, field.conv_tol = "0.25*HF + 0.75*LDA, PW", 1e-11
    found = converge(functional, made, energy_change=1e-10)
    np.testing.assert_allclose(found.energy, field.kernel(), atol=1e-8)
    occupied = (found.orbitals * np.sqrt(made.occupations())[:, None])[:, :, : max(made.electrons)]
    by_matrix, by_orbitals = eqx.filter_jit(
        lambda made, D, occupied: (
            energy_and_fock(functional, made, D),
            energy_and_fock_of_orbitals(functional, made, occupied),
        )
    )(made, found.D, occupied)
    np.testing.assert_allclose(by_matrix[0], by_orbitals[0], rtol=1e-12)
    np.testing.assert_allclose(by_matrix[1], by_orbitals[1], atol=1e-10)
    electrons = np.einsum("snm,nm->s", found.D, made.overlap)
    np.testing.assert_allclose(electrons, made.electrons, atol=1e-9)


def test_forces_are_those_of_pyscf(radical):
    from ase.units import Bohr, Hartree

    atoms = radical.copy()
    atoms.calc = KohnShamCalculator("pbe", grid=0)
    field = mean_field(radical, grid=0)
    field.xc, field.conv_tol = "pbe,pbe", 1e-11
    field.kernel()
    np.testing.assert_allclose(atoms.get_forces(), -field.nuc_grad_method().kernel() * Hartree / Bohr, atol=2e-4)
    np.testing.assert_allclose(atoms.get_potential_energy(), field.e_tot * Hartree, atol=1e-6)


def test_the_gradient_of_the_ground_state():
    """Of the energy, and of <r^2>, which goes through the density's response, against differences."""
    made = Molecule.from_atoms(Atoms("LiH", [[0, 0, 0], [0, 0, 1.6]]), grid=0)

    def both(c):
        functional = eqx.tree_at(lambda f: f.weights, Sum((slater, pw92), "lda"), jnp.stack([c, jnp.ones(())]))
        found = ground_state(functional, made)
        values = jnp.stack([found.energy, spread(made, found.D)])
        return values, values

    slopes_and_values = jax.jit(jax.jacrev(both, has_aux=True))
    ahead, behind = ([np.asarray(slopes_and_values(1 + sign * s)[1]) for s in (1e-3, 2e-3)] for sign in (1, -1))
    near, far = np.subtract(ahead, behind)
    np.testing.assert_allclose(slopes_and_values(1.0)[0], (8 * near - far) / 12e-3, rtol=1e-6)


def test_eigenvectors_of_equal_eigenvalues():
    """The projector on a degenerate pair moves as perturbation theory says; JAX's own derivative is NaN there."""
    A, change = jnp.diag(jnp.array([1.0, 1.0, 3.0])), jnp.array([[0.0, 1, 2], [1, 0, 3], [2, 3, 0]])

    def mean(t, eigh):
        V = eigh(A + t * change)[1][:, :2]
        return (V @ V.T)[0, 2]

    ruled, plain = jax.jit(lambda t: [jax.grad(mean)(t, eigh) for eigh in (safe_eigh, jnp.linalg.eigh)])(0.0)
    np.testing.assert_allclose(ruled, 2 / (1 - 3), rtol=1e-9)
    assert not np.isfinite(plain)


def test_a_neural_functional_is_blind_to_which_spin_is_up():
    density, _ = points(20)
    rho, sigma, tau = map(np.asarray, (density.rho, density.sigma, density.tau))
    seen = eqx.filter_jit(lambda net, density: (net.energy_density(density), net.coefficients(density)))
    net = NeuralFunctional(NeuralConfig(8, 2), 0)
    whole, coefficients = map(np.asarray, seen(net, density))
    swapped = Density(*(jnp.asarray(part[::-1]) for part in (rho, sigma, tau)))
    np.testing.assert_allclose(whole, seen(net, swapped)[0], rtol=1e-12)
    assert coefficients.min() > 0
    assert coefficients.max() < 2
    polarised = Density(jnp.asarray(rho * np.array([[1.0], [0]])), density.sigma, density.tau)
    first, exchange = jax.jit(lambda density: (basis_densities(density)[0], slater(density)))(polarised)
    np.testing.assert_allclose(first, exchange, rtol=1e-6)  # the first is exact exchange of LDA


def test_exact_conditions():
    r = np.linspace(0, 5, 50)
    hydrogen = Density(*map(jnp.asarray, (np.stack([np.exp(-2 * r) / np.pi, np.full(50, 1e-14)]),
                                          np.zeros((3, 50)), np.zeros((2, 50)))))  # fmt: skip

    @jax.jit
    def violations(rho, hydrogen, weights):
        gas = uniform_gas(pbe_exchange, slater, rho), uniform_gas(pbe_correlation, pw92, rho)
        return gas, self_correlation(pw92, hydrogen, weights), correlation_scaling(pw92, hydrogen, weights)

    (exchange, correlation), own, scaling = violations(np.geomspace(1e-3, 1e2, 9), hydrogen, 4 * np.pi * r**2 * 5 / 49)
    assert float(exchange) < 1e-12
    assert float(correlation) < 1e-3  # constants with fewer digits
    assert float(own) > 1e-2  # LDA does not meet it
    assert float(scaling) == 0


@pytest.mark.parametrize(("atoms", "options", "words"), [
    (bulk("Cu"), {}, "periodic"), (molecule("CH4"), {"basis": "nonsense"}, "no basis"),
    (Atoms("H", info={"spin": 3}), {}, "multiplicity"), (molecule("CH4"), {"functional": "mystery"}, "no functional"),
])  # fmt: skip
def test_mistakes(atoms, options, words):
    with pytest.raises(InputError, match=words):
        KohnShamCalculator(**options).calculate(atoms)


def test_a_field_that_does_not_converge_and_single_precision():
    made = Molecule.from_atoms(molecule("H2"), grid=0)
    with pytest.raises(InputError, match="isn't converged"):
        converge(named("lda"), made, cycles=1)
    with jax.enable_x64(False), pytest.raises(InputError, match="double precision"):
        Molecule.from_atoms(molecule("H2"), grid=0)
    with pytest.raises(InputError, match="width"):
        NeuralFunctional(NeuralConfig(0, 1), 0)
