"""J/psi on the nucleon: phase shifts against the variable-phase equation, and a fit against SciPy's finite differences."""

import numpy as np

from harness import Comparison

NUCLEON, JPSI = 0.938272, 3.0969  # GeV
STRENGTH, MU = 0.1, 0.6  # of the Yukawa potential; GeV


def inputs(case):
    """Momenta of the phase shifts, or photon energies of cross sections; GeV."""
    if "momenta" in case:
        return {"k": np.linspace(0.05, 1.2, case["momenta"])}
    return {"photons": np.linspace(8.35, 11.6, case["energies"])}


comparison = Comparison(
    "Phase shifts, and fits of cross sections",
    {
        "20 phase shifts": {"momenta": 20},
        "fit of two parameters, 12 cross sections": {"energies": 12, "nodes": 24, "waves": 1},
        "fit of two parameters, 60 cross sections": {"energies": 60, "nodes": 48, "waves": 2},
    },
    inputs,
    text="S-wave phase shifts of a Yukawa potential, from the K matrix with 80 momenta here, by SciPy's DOP853 on Calogero's equation "
    "there, to eight digits each. Fits of strength and range to pseudo-data without noise from the same start: here by Levenberg and "
    "Marquardt's steps from the states that all energies share, with exact slopes, there by SciPy's least squares from a K matrix "
    "for each energy with finite differences in NumPy. Tables of the loop integral are made before, by us.",
    agree={"result": 1e-4},
    shown={"evaluations": "evaluations"},
)


@comparison.side("broadsheet", packages=("numpy", "scipy"))
def ours(case, given):
    if "momenta" in case:
        from broadsheet.matter import LippmannSchwinger, QuarkNucleonPotential

        pair = LippmannSchwinger(QuarkNucleonPotential("1Y", STRENGTH, MU), NUCLEON, JPSI, 80, relativistic=False)
        energies = [float(pair.body.energy(k)) for k in given["k"]]
        return lambda: {"result": sum(pair.phase(W) for W in energies), "evaluations": len(energies)}
    problem, _ = _problem(case, given)

    def run():
        problem.evaluations = 0
        found = problem.minimise(np.array([0.03, 0.3]))
        return {"result": float(found.x.sum()), "evaluations": problem.evaluations}

    return run


@comparison.side("SciPy", packages=("scipy",))
def scipy(case, given):
    if "momenta" in case:
        from scipy.integrate import solve_ivp

        mass = NUCLEON * JPSI / (NUCLEON + JPSI)

        def phase(k):
            def slope(r, delta):
                return 2 * mass * STRENGTH * np.exp(-MU * r) / (r * k) * np.sin(k * r + delta) ** 2

            return solve_ivp(slope, (1e-8, 60), [0.0], method="DOP853", rtol=1e-9, atol=1e-11).y[0, -1]

        return lambda: {"result": float(sum(phase(k) for k in given["k"])), "evaluations": len(given["k"])}
    from scipy.optimize import least_squares

    problem, measured = _problem(case, given)

    def residuals(values):
        return (by_matrices(problem.tables, *values) - measured[:, 0]) / measured[:, 1]

    def run():
        count = 0

        def counted(values):
            nonlocal count
            count += 1
            return residuals(values)

        bounds = ([1e-6, 0.05], [2.0, 3.0])
        found = least_squares(counted, [0.03, 0.3], bounds=bounds, x_scale="jac", xtol=1e-8, ftol=1e-12, gtol=1e-10)
        return {"result": float(found.x.sum()), "evaluations": count}

    return run


def by_matrices(tables, alpha, mu):
    """Total cross sections as programs of the field have them: a K matrix for each energy and wave by a solution of its own."""

    def v(q):
        return -alpha / (2 * np.pi**2) / (q * q + mu**2)

    waves = np.sum(tables.born_waves * (tables.born * v(tables.transfer)), axis=-1)
    inner = np.sum(tables.exchange_waves * v(tables.exchange), axis=-1)
    edge = np.sum(tables.edge_waves * v(tables.edge), axis=-1)
    V = np.empty((*edge.shape, edge.shape[-1]))
    V[..., :-1, :-1], V[..., -1], V[..., -1, :] = inner[:, None], edge, edge
    g = np.column_stack([tables.root**2 / (tables.above[:, None] - tables.free), -tables.pole.real])
    K = np.linalg.solve(np.eye(V.shape[-1]) - V * g[:, None], V[..., -1:])[..., 0]
    full = (waves[..., -1] + np.sum(K * g * waves, axis=-1)) / (1 + 1j * tables.pole.imag * K[..., -1])
    T = tables.seen * v(tables.seen_transfer) + np.sum(tables.legendre * (full - waves[..., -1])[..., None], axis=0)
    return np.sum(tables.weight * (np.abs(T) ** 2 + 2 * np.real(np.conj(T) * tables.pomeron_overlap) + tables.pomeron), axis=-1)


def _problem(case, given):
    """The fit that both sides make, and its data: strength 0.025 and range 0.5 GeV, errors of a tenth."""
    from broadsheet.matter import PhotoproductionFit, QuarkNucleonPotential
    from broadsheet.matter.photoproduction import total_energy

    fit = PhotoproductionFit(free=("alpha", "mu"), nodes=case["nodes"], waves=case["waves"])
    exact = fit.model().sigma(total_energy(given["photons"]), QuarkNucleonPotential(alpha=0.025, mu=0.5))
    measured = np.stack([exact, 0.1 * exact, 0.1 * exact], axis=1)
    return fit.problem(given["photons"], measured), measured
