"""Training functionals, their constants by least squares, Harris energies and closed forms, against what others say of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms

from broadsheet.electrons import functional_training
from broadsheet.electrons.exact_conditions import ExactConditions
from broadsheet.electrons.functional_training import (
    FixedDensities,
    FunctionalLoss,
    Targets,
    fit_weights,
    refit_b3lyp,
    train_functional,
)
from broadsheet.electrons.functionals import Sum, named, pw92, slater
from broadsheet.electrons.harris import harris_energy
from broadsheet.electrons.kohn_sham import Molecule, density_error, grid_density, mean_field
from broadsheet.electrons.neural_functional import BASIS, basis_densities
from broadsheet.electrons.references import LIBXC, dissociation_energy, field_of, full_interaction, solution
from broadsheet.errors import InputError

pytest.importorskip("pyscf", reason="pip install '.[atoms]'")


ratios = eqx.filter_jit(lambda conditions, functional: conditions.ratios(functional))


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def curve():
    """H2 at four distances: molecules, LDA's density matrices, and energies and density matrices of FCI."""
    with jax.enable_x64(True):
        fields = [field_of(f"H2@{r}", 0, "6-31g") for r in (0.6, 0.8, 1.2, 2.0)]
        molecules = [Molecule.from_pyscf(field) for field in fields]
        densities = [solution(field, "lda")[1] for field in fields]
        return molecules, densities, *zip(*(full_interaction(field) for field in fields), strict=True)


@pytest.mark.parametrize("unpaired", [0, 1])
def test_the_harris_energy_from_the_matrices_of_pyscf(unpaired):
    atoms = Atoms("OH" if unpaired else "LiH", [[0, 0, 0], [0, 0, 1.0 if unpaired else 1.6]])
    field = mean_field(atoms, grid=0, basis="6-31g")
    field.xc = LIBXC["lda"]
    D = np.asarray(field.get_init_guess())
    veff = field.get_veff(dm=D)
    levels = field.eig(field.get_hcore() + np.asarray(veff), field.get_ovlp())[0]
    up, down = field.mol.nelec
    band = levels[0][:up].sum() + levels[1][:down].sum() if unpaired else 2 * levels[:up].sum()
    J = field.get_j(dm=D.sum(axis=0) if unpaired else D)
    wanted = band - np.sum(np.asarray(veff) * D) + np.sum(J * (D.sum(axis=0) if unpaired else D)) / 2 + veff.exc
    made = Molecule.from_pyscf(field)
    found = eqx.filter_jit(harris_energy)(named("lda"), made, jnp.asarray(D if unpaired else D[None] / 2))
    np.testing.assert_allclose(found, wanted + field.mol.energy_nuc(), atol=1e-9)


def test_constants_are_found_again(curve):
    molecules, densities, *_ = curve
    known = FixedDensities.of(molecules, densities)
    wanted = Sum((slater, pw92), "lda", (0.7, 1.3))
    np.testing.assert_allclose(
        fit_weights(named("lda"), known, np.asarray(known.energies(wanted))).weights, wanted.weights, rtol=1e-8
    )
    counted = fit_weights(named("lda"), known, np.append(known.energies(wanted)[:3], 5.0), shares=[1.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(counted.weights, wanted.weights, rtol=1e-8)
    found = refit_b3lyp(known, np.asarray(known.energies(named("b3lyp"))))
    np.testing.assert_allclose([found.exact_exchange, *found.weights], [0.2, 0.8, 0.72, 0.19, 0.81], rtol=1e-5)
    with pytest.raises(InputError, match="3 energies for 4"):
        fit_weights(BASIS, known, [0.0, 0.0, 0.0])


def test_many_points_in_parts(curve, monkeypatch):
    molecules, densities, *_ = curve
    known, functional = FixedDensities.of(molecules, densities), named("lda")

    def both():
        total = eqx.filter_value_and_grad(lambda functional: jnp.sum(known.xc(functional) ** 2))
        return eqx.filter_jit(lambda functional: total(functional))(functional)

    whole = both()
    monkeypatch.setattr(functional_training, "AT_ONCE", 300)
    assert len(known.weights) % 300
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), whole, both())


def test_held_densities_have_the_gradient_of_the_energy_and_none_of_the_density(curve):
    molecules, _, energies, wanted = curve
    one, zero = jnp.ones(()), jnp.zeros(())
    targets = Targets(jnp.asarray(energies[:1]), [jnp.asarray(wanted[0])], jnp.ones(1))

    @eqx.filter_jit
    def value_and_slope(weights, weight, response):
        def loss(weights):
            functional = eqx.tree_at(lambda f: f.weights, named("lda"), weights)
            return 1e3 * FunctionalLoss(weight, zero, response, None)(functional, (molecules[:1], targets))

        return jax.value_and_grad(loss)(weights)

    at = jnp.array([0.9, 1.2])
    held, through = (value_and_slope(at, zero, response)[1] for response in (zero, one))
    np.testing.assert_allclose(held, through, rtol=1e-6)
    np.testing.assert_allclose(value_and_slope(at, one, zero)[1], held, rtol=1e-9)
    both = value_and_slope(at, one, one)[1]
    for k, step in enumerate(1e-3 * np.eye(2)):
        ahead, behind = (value_and_slope(at + sign * step, one, one)[0] for sign in (1, -1))
        np.testing.assert_allclose((ahead - behind) / 2e-3, both[k], rtol=1e-4)
    assert np.abs(both - held).max() > 1e-3 * np.abs(held).max()


def test_a_density_is_off_by_the_integral_of_its_difference_squared(curve):
    molecules, densities, _, wanted = curve
    a, b = (grid_density(molecules[0], jnp.asarray(D)).total for D in (densities[0], wanted[0]))
    apart = jnp.sum(molecules[0].weights.ravel() * (a - b) ** 2) / 2
    np.testing.assert_allclose(density_error(molecules[0], densities[0], jnp.asarray(wanted[0])), apart, rtol=1e-9)


def test_least_squares_are_where_energies_and_conditions_together_are_least(curve):
    molecules, densities, energies, _ = curve
    conditions, known = eqx.filter_jit(ExactConditions)(), FixedDensities.of(molecules, densities)

    def missed(functional, weight):
        equalities = sum(np.mean((np.asarray(ratio) - 1) ** 2) for ratio in ratios(conditions, functional))
        return np.mean((np.asarray(known.energies(functional)) - energies) ** 2) + weight * equalities

    for weight in (0.0, 0.1):
        solved = fit_weights(named("lda"), known, energies, conditions=conditions, condition_weight=weight)
        for step in 0.01 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]]):
            moved = eqx.tree_at(lambda f: f.weights, solved, solved.weights + step)
            assert missed(moved, weight) > missed(solved, weight)


def test_closed_forms():
    """Energies of the hydrogen atom that textbooks give: LSDA -0.2680 and -0.0222, B88 -0.3098, PBE -0.3059 and -0.0060."""
    closed = eqx.filter_jit(lambda: ExactConditions((1.0,), (1.0, 2.0)))()

    def energy(name, weights=(1.0, 1.0)):
        terms = named(name)
        functional = Sum(terms.terms, terms.level, weights)
        return float(ratios(closed, functional)[1][0]) * -5 / 16

    assert energy("lda", (1.0, 0.0)) == pytest.approx(-0.2680, abs=1e-4)
    assert energy("lda", (0.0, 1.0)) == pytest.approx(-0.0222, abs=1e-4)
    assert energy("pbe", (1.0, 0.0)) == pytest.approx(-0.3059, abs=1e-4)
    assert energy("pbe", (0.0, 1.0)) == pytest.approx(-0.0060, abs=1e-4)
    assert energy("blyp", (1.0, 1.0, 0.0)) == pytest.approx(-0.3098, abs=1e-4)
    assert energy("scan") == pytest.approx(-0.3125, abs=2e-4)
    violations = eqx.filter_jit(lambda closed, functional: closed.violations(functional))
    gas, one, bounds = violations(closed, named("lda"))
    assert float(gas) < 1e-12
    assert float(one) > 0.05
    assert float(bounds) > 0.01  # its exchange is too weak for two electrons
    assert float(violations(closed, Sum((slater,), "lda", (3.0,)))[2]) > 0.2  # below the bound of Lieb and Oxford
    with pytest.raises(InputError, match="charges above 0"):
        ExactConditions((1.0,), (2.0, 1.0))


def test_dissociation_energies_of_experiment():
    assert dissociation_energy("H2") == pytest.approx(109.5, abs=0.2)  # 4.748 eV, Huber and Herzberg
    assert dissociation_energy("N2") == pytest.approx(228.4, abs=0.5)
    assert dissociation_energy("F2") == pytest.approx(38.2, abs=0.7)


def test_constants_are_what_the_network_weighs(curve):
    molecules, densities, *_ = curve
    density = grid_density(molecules[0], densities[0])
    whole = Sum(BASIS.terms, "mgga", (1.0, 2.0, 3.0, 4.0)).energy_density(density)
    np.testing.assert_allclose(whole, jnp.array([1.0, 2, 3, 4]) @ basis_densities(density), rtol=1e-9)


@pytest.mark.parametrize(("options", "words"), [
    ({"solve": "fixed"}, "wants densities"), ({"shares": [1.0]}, "as many"),
    ({"solve": "held", "wanted_densities": [jnp.zeros((1, 1, 1))] * 4}, "learns nothing"),
])  # fmt: skip
def test_mistakes(curve, options, words):
    with pytest.raises(InputError, match=words):
        train_functional(named("lda"), curve[0], curve[2], steps=1, **options)
