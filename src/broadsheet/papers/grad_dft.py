"""Grad DFT: a software library for machine learning enhanced density functional theory, arXiv 2309.15127.

The Kohn-Sham energy and its self-consistency are differentiable in the functional. The controls hold the density fixed where it
should respond, differentiate eigenvectors without care for degenerate levels, or fit one constant in place of a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.electrons.exact_conditions import exchange_scaling, lieb_oxford, nonpositivity, spin_scaling
from broadsheet.electrons.functionals import Functional, Sum, named, pbe_correlation, pw92, pw92_mod, slater
from broadsheet.electrons.kohn_sham import Molecule, energy, fock, grid_density, mean_field, spread, xc_energy
from broadsheet.electrons.neural_functional import FixedDensities, NeuralConfig, NeuralFunctional, train_functional
from broadsheet.electrons.self_consistency import converge, ground_state, next_density, scf
from broadsheet.lab import NONE_YET, Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.numerics import generator, seed_of

paper = Paper(
    slug="grad-dft",
    arxiv="2309.15127",
    title="Grad DFT: A software library for machine learning enhanced density functional theory",
    published="2023-09-27",
    authors=5,
    basis="code",
    code="github.com/XanaduAI/GradDFT (Apache-2.0)",
    summary="Density functional theory that can be differentiated from the density matrix to the total energy, the "
    "self-consistent loop included, so that a neural exchange-correlation functional is trained on energies or densities like "
    "any other network. Here with PySCF's integrals, LDA to hybrid functionals that agree with libxc to rounding, gradients "
    "through self-consistency by one linear solve, and exact conditions as losses.",
    topics=("density functional theory", "differentiable physics", "machine-learned functionals"),
    parts=("broadsheet.electrons.Molecule", "broadsheet.electrons.ground_state", "broadsheet.electrons.NeuralFunctional",
           "broadsheet.electrons.KohnShamCalculator"),
    verbs=("broadsheet atoms dft molecules.xyz --functional scan",),
    requires=("atoms",),
    tasks={"learn a density functional": "dissociation:gain"},
    notes=(
        "The derivative of the occupied density knows only pairs of levels with different occupations, so that degenerate "
        "levels need no regularisation; the authors replace 1/d by d/(d² + 1e-10) in the derivative of all eigenvectors.",
        "LYP is libxc's form without the Laplacian; the authors keep that of 1988. In their combined feature set the "
        "correlation energies of PW92 are rounded to zero; here they act.",
        "The network is asked about the spins in both orders and the answers are averaged; the authors ask once, and their "
        "energy depends on which spin is called up.",
        "No table of the paper was at hand. References are FCI and CCSD(T) by PySCF on the spot, in the basis of the run; "
        "the experimental dissociation energies of dimers were not.",
        "On H2 alone four constants on the same energy densities, outside what the network may give, do as well: the curve "
        "does not show that a network is needed.",
    ),
)  # fmt: skip


def field_of(name: str, grid: int, basis: str = "def2-svp") -> Any:
    """PySCF's mean field of one of ASE's molecules, of an atom, or of H2 at a distance (`H2@1.5`, Å)."""
    from ase import Atoms
    from ase.build import molecule

    if "@" in name:
        symbols, distance = name.split("@")
        return mean_field(Atoms(symbols, [[0, 0, 0], [0, 0, float(distance)]]), grid=grid, basis=basis)
    made = molecule(name)
    made.info["spin"] = round(abs(made.get_initial_magnetic_moments().sum())) + 1
    return mean_field(made, grid=grid, basis=basis)


LIBXC = {"lda": "lda,pw", "pbe": "pbe,pbe", "scan": "scan,scan", "b3lyp": "b3lyp"}
"""What PySCF calls our functionals."""


@dataclass(frozen=True)
class Against:
    """Molecules, open shells among them, and functionals of four kinds."""

    molecules: tuple[str, ...] = ("H2O", "LiH", "CH3", "O2", "N2")
    functionals: tuple[str, ...] = ("lda", "pbe", "scan", "b3lyp")
    grid: int = 1


@paper.experiment(
    presets={
        "smoke": Against(molecules=("H2",), functionals=("pbe",), grid=0),
        "quick": Against(molecules=("CH3",), functionals=("lda", "pbe", "scan"), grid=0),
        "paper": Against(grid=3),
    },
    precision="float64",
    deterministic=True,
    claims=[
        Claim("G1", "energies of functionals at PySCF's density", kind="check", reference="PySCF and libxc; control: PW92 with "
              "more digits of its constants", ablation="other-digits", checks=[at_most("density_error", 1e-6)]),
        Claim("G2", "self-consistent energies", kind="check", reference="PySCF on the same grid; control: its start density",
              ablation="start", checks=[at_most("scf_error", 1e-6)]),
        Claim("G3", "the Fock matrix by differentiation", kind="check", reference="PySCF's potential matrix; control: the "
              "gradient's part left out", ablation="no-gradient", checks=[at_most("fock_error", 1e-6)]),
    ],
    cost=25.0,
)  # fmt: skip
def verification(config: Against, key, log: Log) -> Report:
    """Largest differences from PySCF over molecules and functionals, Hartree."""
    errors: dict[str, list[list[float]]] = {name: [] for name in ("density", "fock", "scf")}
    controls: dict[str, list[float]] = {"other-digits": [], "start": [], "no-gradient": []}
    digits = Sum((pw92_mod, pw92), "lda", (1.0, -1.0))
    for k, name in enumerate(config.molecules):
        field = field_of(name, config.grid)
        molecule = Molecule.from_pyscf(field)
        for table in errors.values():
            table.append([])
        for kind in config.functionals:
            functional = named(kind)
            field.xc, field.conv_tol = LIBXC[kind], 1e-10
            total = field.kernel()
            matrix = np.asarray(field.make_rdm1())
            D = jnp.asarray(matrix[None] / 2 if molecule.restricted else matrix)
            integrate = field._numint.nr_rks if molecule.restricted else field._numint.nr_uks
            _, theirs, V = integrate(field.mol, field.grids, field.xc, matrix)
            errors["density"][-1].append(abs(float(xc_energy(functional, molecule, D)) - theirs))
            errors["fock"][-1].append(_potential_error(functional, molecule, D, V))
            errors["scf"][-1].append(abs(float(converge(functional, molecule, energy_change=1e-10).energy) - total))
            controls["start"].append(abs(float(energy(functional, molecule, molecule.guess)) - total))
            if functional.level != "lda":
                controls["no-gradient"].append(_potential_error(Sum((slater,), "lda"), molecule, D, V))
        controls["other-digits"].append(abs(float(xc_energy(digits, molecule, D))))
        log.progress((k + 1) / len(config.molecules))
    tables = {f"{name}_error": np.array(rows) for name, rows in errors.items()}
    return Report(
        arms={"system": {name: table.max() for name, table in tables.items()},
              "other-digits": {"density_error": max(controls["other-digits"])}, "start": {"scf_error": min(controls["start"])},
              "no-gradient": {"fock_error": min(controls["no-gradient"])}},
        arrays=tables | {"molecules": np.array(config.molecules), "functionals": np.array(config.functionals)},
    )  # fmt: skip


def _potential_error(functional: Functional, molecule: Molecule, D: Any, V: Any) -> float:
    slope = jax.grad(lambda D: xc_energy(functional, molecule, D))(D) / (2 if molecule.restricted else 1)
    return float(np.abs(np.asarray((slope + jnp.swapaxes(slope, 1, 2)) / 2) - (V[None] if molecule.restricted else V)).max())


@verification.figure
def agreement(runs: Runs):
    """Differences of self-consistent energies from PySCF's."""
    data = runs["system"].arrays
    fig, axis = figure()
    functionals = [str(each) for each in data["functionals"]]
    for k, (name, row) in enumerate(zip(data["molecules"], data["scf_error"], strict=True)):
        axis.semilogy(range(len(functionals)), np.maximum(row, 1e-15), "o", color=COLOURS[k % len(COLOURS)], label=str(name))
    axis.axhline(1e-6, color=CONTROL_COLOUR, lw=1, label="bound")
    axis.set_xticks(range(len(functionals)), functionals)
    label(axis, "functional", "|energy - PySCF's| (Hartree)")
    return fig


@dataclass(frozen=True)
class Gradients:
    """Molecules whose response to a functional's constant is taken by differentiation and by differences."""

    molecules: tuple[str, ...] = ("LiH",)
    degenerate: tuple[str, ...] = ("N",)  # the p shell of an atom
    grid: int = 0
    cycles: int = 25
    few: int = 5  # cycles after which dE/dc is taken, before convergence
    step: float = 1e-3


@paper.experiment(
    presets={
        "smoke": Gradients(molecules=("H2",), degenerate=("H2",), cycles=4, few=2),
        "quick": Gradients(),
        "paper": Gradients(molecules=("H2", "LiH", "H2O", "N2"), degenerate=("LiH", "N", "N2"), grid=3, cycles=80),
    },
    precision="float64",
    deterministic=True,
    claims=[
        Claim("G4", "gradients go through self-consistency", kind="check", ablation="fixed-density", reference="finite "
              "differences of <r²> and of the energy after five cycles; control: the density held fixed", checks=[
                  at_most("spread_error", 1e-4), at_most("solved_error", 1e-4), at_most("energy_error", 1e-4)]),
        Claim("G7", "degenerate levels leave gradients finite and right", kind="check", ablation="plain-eigh",
              reference="finite"
              " differences; control: JAX's derivative of eigenvectors as it is", checks=[
                  at_least("finite", 1.0), at_most("degenerate_error", 1e-3)]),
    ],
    cost=25.0,
)  # fmt: skip
def gradients(config: Gradients, key, log: Log) -> Report:
    """Relative errors of derivatives in c, for c times the uniform gas's exchange plus PW92."""
    base = Sum((slater, pw92), "lda")
    worst = {name: {"spread_error": 0.0, "energy_error": 0.0, "solved_error": 0.0} for name in ("system", "fixed-density")}

    def at(c: Any) -> Sum:
        return eqx.tree_at(lambda f: f.weights, base, jnp.stack([jnp.asarray(c, float), jnp.ones(())]))

    for k, name in enumerate(config.molecules):
        molecule = Molecule.from_pyscf(field_of(name, config.grid))
        size = jax.jit(jax.value_and_grad(lambda c, m=molecule: spread(m, scf(at(c), m, cycles=config.cycles).D)))
        early = jax.jit(jax.value_and_grad(lambda c, m=molecule: scf(at(c), m, cycles=config.few).energy))
        solved = jax.jit(jax.value_and_grad(lambda c, m=molecule: spread(m, ground_state(at(c), m).D)))
        still = jax.lax.stop_gradient(scf(base, molecule, cycles=config.few).D)
        held = jax.grad(lambda c, m=molecule, D=still: energy(at(c), m, D))(1.0)
        for metric, function, unmoved in (
            ("spread_error", size, 0.0),
            ("energy_error", early, held),
            ("solved_error", solved, 0.0),
        ):
            truth = _difference(function, config.step)
            for arm, slope in (("system", function(1.0)[1]), ("fixed-density", unmoved)):
                worst[arm][metric] = max(worst[arm][metric], abs(float(slope) / truth - 1))
        log.progress((k + 1) / (len(config.molecules) + 1))
    ruled: tuple[list[float], list[float]] = ([], [])
    plain: tuple[list[float], list[float]] = ([], [])
    for name in config.degenerate:
        molecule = Molecule.from_pyscf(field_of(name, config.grid))
        for (finite, errors), density in ((ruled, next_density), (plain, _plain_density)):
            function = jax.jit(jax.value_and_grad(lambda c, m=molecule, d=density: _iterated_spread(at(c), m, d, config.few)))
            slope, truth = float(function(1.0)[1]), _difference(function, config.step)
            finite.append(float(np.isfinite(slope)))
            errors.append(abs(slope / truth - 1) if np.isfinite(slope) else 1.0)
    worst["system"] |= {"finite": float(np.mean(ruled[0])), "degenerate_error": float(max(ruled[1]))}
    return Report(arms=worst | {"plain-eigh": {"finite": float(np.mean(plain[0])), "degenerate_error": float(max(plain[1]))}})


def _difference(function: Any, step: float) -> float:
    """Central differences of fourth order at 1, of a function that gives its value first."""
    near, far = (float(function(1 + n * step)[0]) - float(function(1 - n * step)[0]) for n in (1, 2))
    return (8 * near - far) / (12 * step)


def _iterated_spread(functional: Functional, molecule: Molecule, following: Any, cycles: int) -> Any:
    def cycle(D: Any, _: None) -> tuple[Any, None]:
        return 0.6 * D + 0.4 * following(functional, molecule, D), None

    return spread(molecule, jax.lax.scan(cycle, molecule.guess, None, cycles)[0])


def _plain_density(functional: Functional, molecule: Molecule, D: Any) -> Any:
    """The next density with JAX's own derivative of eigenvectors."""
    X = molecule.orthogonal
    found = []
    for F, filled in zip(fock(functional, molecule, D), molecule.occupations(), strict=True):
        C = X @ jnp.linalg.eigh(X.T @ F @ X)[1]
        found.append((C * filled) @ C.T)
    return jnp.stack(found)


SMALL, SMALLER, SMALLEST = (NeuralConfig(width, layers) for width, layers in ((32, 2), (16, 2), (4, 1)))


@dataclass(frozen=True)
class Dissociation:
    """H2 stretched: a neural functional trained at a few distances and tested between them."""

    basis: str = "def2-svp"
    grid: int = 0
    distances: tuple[float, ...] = (0.5, 0.74, 1.0, 1.5, 2.5)  # Å; training
    between: tuple[float, ...] = (0.6, 0.87, 1.25, 2.0)  # Å; test
    beyond: tuple[float, ...] = ()  # Å; test of extrapolation
    network: NeuralConfig = SMALL
    steps: int = 400
    learning_rate: float = 3e-3
    self_consistent: bool = False  # also train through self-consistency


@paper.experiment(
    presets={
        "smoke": Dissociation(distances=(0.74,), between=(0.9,), beyond=(1.5,), network=SMALLEST, steps=2,
                              self_consistent=True),
        "quick": Dissociation(),
        "paper": Dissociation(basis="def2-tzvp", grid=2, distances=tuple(np.linspace(0.5, 1.5, 11)), steps=45_000,
                              between=tuple(np.linspace(0.55, 1.45, 10)), beyond=tuple(np.linspace(2.5, 5, 6)),
                              network=NeuralConfig(), learning_rate=1e-4, self_consistent=True),
    },
    precision="float64",
    claims=[
        Claim("G5", "a small neural functional learns the curve of H2 far better than one constant does", kind="paper",
              where="experiments: dissociation", ablation="one-constant", null="lda", grows="steps", checks=[
                  at_least("gain", {"quick": 5.0}), at_most("gain", {"quick": 3.0}, of="one-constant")]),
        Claim("G6", "training through self-consistency lowers the self-consistent error", kind="paper", where="training "
              "through the loop", about="through-scf", ablation="system", null=NONE_YET, grows="steps",
              checks=[at_least("scf_gain", {"paper": 1.2}, of="through-scf")]),
        Claim("G8", "errors grow where the curve is extrapolated", kind="paper", where="experiments: extrapolation",
              null="lda", no_ablation="a functional without a network is the null model", grows="steps",
              checks=[at_least("growth", {"paper": 1.0})]),
    ],
    cost=35.0,
)  # fmt: skip
def dissociation(config: Dissociation, key, log: Log) -> Report:
    """Mean absolute errors to full configuration interaction between the distances of training, over that of LDA."""
    every = (*config.distances, *config.between, *config.beyond)
    fields = [field_of(f"H2@{r}", config.grid, config.basis) for r in every]
    molecules, exact = [Molecule.from_pyscf(field) for field in fields], np.array([_exact(field) for field in fields])
    lda = named("lda")
    densities = [converge(lda, molecule).D for molecule in molecules]
    n = len(config.distances)
    taught, known = FixedDensities.of(molecules[:n], densities[:n]), FixedDensities.of(molecules, densities)
    trained = train_functional(
        NeuralFunctional(config.network, seed_of(key)), molecules[:n], exact[:n], densities=densities[:n], steps=config.steps,
        learning_rate=config.learning_rate, report=lambda done, loss: log.progress(0.9 * done / config.steps, loss=loss),
    )  # fmt: skip
    unit = Sum((slater,), "lda")
    scale = float(np.linalg.lstsq(np.asarray(taught.xc(unit))[:, None], exact[:n] - np.asarray(taught.rest), rcond=None)[0][0])
    curves = {"exact": exact, "lda": known.energies(lda), "system": known.energies(trained),
              "one-constant": known.rest + scale * known.xc(unit)}  # fmt: skip
    if config.self_consistent:
        through = train_functional(trained, molecules[:n], exact[:n], steps=max(1, config.steps // 100),
                                   learning_rate=config.learning_rate)  # fmt: skip
        for name, functional in (("system", trained), ("through-scf", through)):
            curves[f"{name}_scf"] = jnp.stack([converge(functional, molecule, cycles=300).energy for molecule in molecules])
    curves = {name: np.asarray(curve) for name, curve in curves.items()}
    inside, outside = slice(n, n + len(config.between)), slice(n + len(config.between), None)

    def error(name: str, where: slice = inside) -> float:
        return float(np.abs(curves[name] - exact)[where].mean())

    arms = {name: {"mae": 1000 * error(name), "gain": error("lda") / error(name)} for name in ("system", "one-constant", "lda")}
    if config.beyond:
        for name in ("system", "lda"):
            arms[name]["growth"] = error(name, outside) / error(name)
    if config.self_consistent:
        arms["through-scf"] = {"scf_gain": error("system_scf") / error("through-scf_scf")}
        arms["system"]["scf_gain"] = 1.0
    return Report(arms=arms, arrays={"distance": np.array(every), "trained": np.arange(len(every)) < n,
                                     **{name.replace("-", "_"): curve for name, curve in curves.items()}})  # fmt: skip


def _exact(field: Any) -> float:
    """Full configuration interaction in the field's basis, Hartree."""
    from pyscf import fci, scf

    return float(fci.FCI(scf.RHF(field.mol).run()).kernel()[0])


@dissociation.figure
def curve(runs: Runs):
    """Energy of H2 against distance, and errors."""
    data = runs["system"].arrays
    fig, axes = figure(2)
    order = np.argsort(data["distance"])
    r, exact = data["distance"][order], data["exact"][order]
    shown = (("exact", "0.2", "FCI"), ("lda", COLOURS[1], "LDA"), ("one_constant", CONTROL_COLOUR, "one constant"),
             ("system", SYSTEM_COLOUR, "neural functional"))  # fmt: skip
    for name, colour, text in shown:
        axes[0].plot(r, data[name][order], color=colour, label=text)
        if name != "exact":
            axes[1].semilogy(r, np.maximum(1000 * np.abs(data[name][order] - exact), 1e-2), "o-", ms=4, color=colour)
    taught = data["trained"]
    axes[0].plot(data["distance"][taught], data["exact"][taught], "o", color="0.2", ms=4, label="trained on")
    label(axes[0], "distance (Å)", "energy (Hartree)")
    label(axes[1], "distance (Å)", "|error| (mHartree)", legend=False)
    return fig


@dataclass(frozen=True)
class Transfer:
    """Atoms and dimers: total energies of some, to others; with noise on the energies of training."""

    basis: str = "def2-svp"
    grid: int = 0
    taught: tuple[str, ...] = ("H", "Li", "H2", "LiH", "N")
    unseen: tuple[str, ...] = ("Be", "Li2", "N2")
    noise: tuple[float, ...] = (0.0,)  # kcal/mol, of the energies of training
    network: NeuralConfig = SMALLER
    steps: int = 100
    learning_rate: float = 3e-3


KCAL = 627.5094740631
"""kcal/mol in a Hartree."""


@paper.experiment(
    presets={
        "smoke": Transfer(taught=("H",), unseen=("H2",), noise=(0.0,), network=SMALLEST, steps=2),
        "quick": Transfer(),
        "paper": Transfer(
            basis="def2-tzvp", grid=2, taught=("H", "He", "Li", "Be", "N", "O", "F", "H2", "LiH", "N2", "O2", "F2", "CO", "HF"),
            unseen=("B", "C", "Ne", "Li2", "C2", "OH", "NO"), noise=(0.0, 0.1, 1.0), network=NeuralConfig(width=64, layers=4),
            steps=20_000, learning_rate=1e-4,
        ),
    },
    precision="float64",
    cost=15.0,
)  # fmt: skip
def transfer(config: Transfer, key, log: Log) -> Report:
    """Errors to CCSD(T) of seen and unseen systems, for each noise, and for LDA; kcal/mol."""
    rng = generator(key)
    names = (*config.taught, *config.unseen)
    fields = [field_of(name, config.grid, config.basis) for name in names]
    molecules = [Molecule.from_pyscf(field) for field in fields]
    exact = np.array([_coupled_cluster(field) for field in fields])
    lda = named("lda")
    densities = [converge(lda, molecule).D for molecule in molecules]
    known, n = FixedDensities.of(molecules, densities), len(config.taught)
    errors = {"lda": KCAL * (np.asarray(known.energies(lda)) - exact)}
    drawn = rng.standard_normal(n)
    for k, noise in enumerate(config.noise):
        trained = train_functional(
            NeuralFunctional(config.network, seed_of(key)), molecules[:n], exact[:n] + noise / KCAL * drawn,
            densities=densities[:n], steps=config.steps, learning_rate=config.learning_rate,
        )  # fmt: skip
        errors["system" if noise == 0 else f"noise-{noise:g}"] = KCAL * (np.asarray(known.energies(trained)) - exact)
        log.progress((k + 1) / len(config.noise))
    arms = {name: {"taught_mae": np.abs(row[:n]).mean(), "unseen_mae": np.abs(row[n:]).mean()} for name, row in errors.items()}
    return Report(arms=arms, arrays={"names": np.array(names), "taught": np.arange(len(names)) < n,
                                     **{name.replace("-", "_"): row for name, row in errors.items()}})  # fmt: skip


def _coupled_cluster(field: Any) -> float:
    """CCSD(T) in the field's basis, Hartree; of one electron Hartree-Fock, which is exact."""
    from pyscf import cc, scf

    found = (scf.UHF if field.mol.spin else scf.RHF)(field.mol).run(verbose=0)
    if field.mol.nelectron == 1:
        return float(found.e_tot)
    correlated = cc.CCSD(found).run(verbose=0)
    return float(correlated.e_tot + (correlated.ccsd_t() if field.mol.nelectron > 2 else 0.0))


@transfer.figure
def unseen(runs: Runs):
    """Errors of total energies of each system, and mean errors against the noise, where there was any."""
    data, arms = runs["system"].arrays, runs["system"].scalars()
    noisy = sorted((float(name.split("-")[1]), name) for name in arms if name.startswith("noise-"))
    fig, axes = figure(2 if noisy else 1)
    axes = np.atleast_1d(axes)
    place = np.arange(len(data["names"]))
    for name, colour, text, shift in (
        ("lda", CONTROL_COLOUR, "LDA", -0.2),
        ("system", SYSTEM_COLOUR, "neural functional", 0.2),
    ):
        axes[0].bar(place + shift, np.abs(data[name]), 0.4, color=colour, label=text)
    axes[0].set_xticks(place, [str(each) for each in data["names"]], rotation=60)
    axes[0].set_yscale("log")
    label(axes[0], "system", "|error| (kcal/mol)")
    if not noisy:
        return fig
    levels = [(0.0, "" if "" in arms else "system"), *noisy]
    for metric, colour, text in (("taught_mae", COLOURS[2], "trained on"), ("unseen_mae", SYSTEM_COLOUR, "unseen")):
        axes[1].plot([x for x, _ in levels], [arms[name][metric] for _, name in levels], "o-", color=colour, label=text)
    label(axes[1], "noise of the energies (kcal/mol)", "mean |error| (kcal/mol)")
    return fig


@dataclass(frozen=True)
class Conditions:
    """Exact conditions on the density of one molecule."""

    molecule: str = "CH3"
    grid: int = 1
    gammas: tuple[float, ...] = (0.5, 2.0, 3.0)


@paper.experiment(
    presets={"smoke": Conditions(grid=0, gammas=(2.0,)), "quick": Conditions(), "paper": Conditions(molecule="O2", grid=3)},
    precision="float64",
    deterministic=True,
    claims=[
        Claim("G9", "the uniform gas's exchange scales with the density and with spin, and keeps its bounds", kind="check",
              reference="E_x[rho_gamma] = gamma E_x[rho]; control: PBE's correlation", ablation="correlation", checks=[
                  at_most("scaling", 1e-3), at_most("spin_scaling", 1e-9), at_most("bounds", 1e-9)]),
    ],
    cost=3.0,
)  # fmt: skip
def conditions(config: Conditions, key, log: Log) -> Report:
    """Violations of uniform scaling, spin scaling, and of sign and Lieb-Oxford bound together."""
    molecule = Molecule.from_pyscf(field_of(config.molecule, config.grid))
    D = converge(named("lda"), molecule).D
    density, weights = grid_density(molecule, D), molecule.weights.reshape(-1)
    density = eqx.tree_at(lambda d: d.rho, density, jnp.maximum(density.rho, 1e-12))  # formulas divide by it
    arms = {}
    for name, formula in (("system", slater), ("correlation", pbe_correlation)):
        arms[name] = {
            "scaling": max(float(exchange_scaling(formula, density, weights, gamma)) for gamma in config.gammas),
            "spin_scaling": float(spin_scaling(formula, density, weights)),
            "bounds": float(nonpositivity(formula, density, weights) + lieb_oxford(formula, density, weights)),
        }
    return Report(arms=arms)
