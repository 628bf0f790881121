"""The strength of a quark-nucleon potential from measured cross sections, with uncertainties, as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.optimize import brentq
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.matter.charmonium import CharmoniumCQM, CharmoniumState
from broadsheet.matter.measured_cross_sections import check_energies, check_measured, pulls
from broadsheet.matter.photoproduction import Photoproduction, Tables, total_and_slopes, total_energy
from broadsheet.matter.pomeron import Pomeron
from broadsheet.matter.quark_nucleon import QuarkNucleonPotential
from broadsheet.numerics.blas import one_thread
from broadsheet.numerics.bounded_least_squares import Minimum, bounded_least_squares

PARAMETERS = ("alpha", "mu", "strength", "scale")
LIMITS = {"alpha": (1e-6, 2.0), "mu": (0.05, 3.0), "strength": (0.0, np.inf), "scale": (0.05, 20.0)}


@lru_cache(maxsize=1)
def jpsi() -> CharmoniumState:
    """J/psi of the quark model."""
    return CharmoniumCQM().solve()


class PhotoproductionFit(RegressorMixin, BaseEstimator):
    """Fits the potential between a charm quark and the nucleon to total cross sections of J/psi photoproduction.

    **Arguments:** `kind`, `mu` (GeV), `core`, `ratio`: shape of the potential; `alpha`: its strength, where it is not fitted;
    `free`: what is fitted of `"alpha"`, `"mu"` and `"strength"` (a factor of loop and rescattering); `born`, `fsi`, `pomeron`,
    `waves`, `nodes`: as `Photoproduction` has them; `scale_error`: relative error common to all points (GlueX 2019: 0.27),
    which adds their common scale as a parameter with this prior.

    After `fit`: `parameters_`, `errors_` (from the covariance) by name, `covariance_`, `chi2_`, `dof_`, `pulls_`,
    `scattering_length_` and `scattering_length_error_` (fm), `potential_`, `evaluations_`, and `at_limit_`: what was stopped by
    a limit, so that its error means nothing.
    """

    def __init__(
        self, kind: str = "1Y", mu: float = 0.3, core: float = 1.0, ratio: float = 2.0, alpha: float = 0.03,
        free: Sequence[str] = ("alpha",), born: str = "loop", fsi: bool = True, pomeron: bool = True, waves: int = 2,
        nodes: int = 24, scale_error: float = 0.0,
    ) -> None:  # fmt: skip
        self.kind, self.mu, self.core, self.ratio, self.alpha = kind, mu, core, ratio, alpha
        self.free, self.born, self.fsi, self.pomeron = free, born, fsi, pomeron
        self.waves, self.nodes, self.scale_error = waves, nodes, scale_error

    def model(self) -> Photoproduction:
        """The model without the potential's parameters."""
        return Photoproduction(
            jpsi(),
            born=self.born,
            fsi=self.fsi,
            pomeron=Pomeron() if self.pomeron else None,
            waves=self.waves,
            nodes=self.nodes,
        )

    def fit(self, energies: Any, measured: Any) -> PhotoproductionFit:
        """**Arguments:** `energies`: of the photons, GeV; `measured`: as `check_measured` takes them."""
        problem = self.problem(energies, measured)
        values = min((problem.minimise(start) for start in problem.starts()), key=lambda found: found.total)
        self._finish(problem, values)
        return self

    def problem(self, energies: Any, measured: Any) -> FitProblem:
        """What `fit` minimises; raises `InputError` where data or parameters do not do."""
        energies, measured = check_measured(energies, measured)
        unknown = [name for name in self.free if name not in PARAMETERS[:3]]
        if unknown or not self.free:
            raise InputError(f"free is {tuple(self.free)}; one or more of {', '.join(PARAMETERS[:3])} is wanted.")
        if len(energies) <= len(self.free):
            raise InputError(f"{len(energies)} cross sections cannot determine {len(self.free)} parameters.")
        names = [*self.free, *(["scale"] if self.scale_error else [])]
        return FitProblem(self, self.model().tables(total_energy(energies)), measured, names)

    def _finish(self, problem: FitProblem, found: Minimum) -> None:
        self.parameters_ = dict(zip(problem.names, (float(each) for each in found.x), strict=True))
        information = found.jac.T @ found.jac
        self.covariance_ = np.linalg.pinv(information)
        self.errors_ = dict(zip(problem.names, np.sqrt(np.diag(self.covariance_)).tolist(), strict=True))
        self.chi2_, self.dof_ = found.total, len(problem.measured) - len(self.free)
        self.pulls_ = found.residuals[: len(problem.measured)]
        self.evaluations_ = problem.evaluations
        self.at_limit_ = tuple(
            name for name, value in self.parameters_.items() if min(abs(value / end - 1) for end in LIMITS[name] if end) < 1e-3
        )
        self._problem = problem
        known = {"alpha": self.alpha, "mu": self.mu} | self.parameters_
        core = self.core if self.kind == "2Y" else 1.0
        self.potential_ = QuarkNucleonPotential(self.kind, known["alpha"], known["mu"], core, self.ratio)
        self.scattering_length_ = self._length(self.potential_)
        slopes = []
        for name in problem.names:
            if name not in ("alpha", "mu"):
                slopes.append(0.0)
                continue
            step = 1e-4 * known[name]
            pair = [{name: known[name] + sign * step} for sign in (1, -1)]
            ends = [self._length(replace(self.potential_, **changed)) for changed in pair]  # type: ignore[arg-type]
            slopes.append((ends[0] - ends[1]) / (2 * step))
        self.scattering_length_error_ = float(np.sqrt(np.array(slopes) @ self.covariance_ @ np.array(slopes)))

    def _length(self, potential: QuarkNucleonPotential) -> float:
        return self.model().scattering(potential).scattering_length()

    def predict(self, energies: Any) -> np.ndarray:
        """Total cross sections, nb, at photon energies, GeV; the data's common scale is not in them."""
        return self._curve(energies)[0]

    def band(self, energies: Any) -> tuple[np.ndarray, np.ndarray]:
        """Cross sections and their standard errors from the covariance of the parameters, nb."""
        return self._curve(energies)

    def _curve(self, energies: Any) -> tuple[np.ndarray, np.ndarray]:
        check_is_fitted(self)
        energies = np.asarray(energies, float).reshape(len(energies), -1)[:, 0]
        check_energies(energies)
        vector = self._problem.whole(np.array([self.parameters_[name] for name in self._problem.names]))
        vector[PARAMETERS.index("scale")] = 1.0
        values, slopes = self._problem.evaluate(self.model().tables(total_energy(energies)), vector)
        slopes[:, PARAMETERS.index("scale")] = 0.0
        slopes = slopes[:, self._problem.columns]
        return values, np.sqrt(np.einsum("ei,ij,ej->e", slopes, self.covariance_, slopes))

    def score(self, energies: Any, measured: Any) -> float:
        """Minus chi squared a point."""
        energies, measured = check_measured(energies, measured)
        return -float(np.mean(pulls(self.predict(energies), measured) ** 2))

    def profile(self, name: str = "alpha", rise: float = 1.0) -> tuple[float, float]:
        """Where chi squared, minimised over all other parameters, has risen by `rise`: lower and upper end.

        An end at which it does not rise so far is the parameter's limit.
        """
        check_is_fitted(self)
        if name not in self.parameters_:
            raise InputError(f"{name} was not fitted; {', '.join(self.parameters_)} can be profiled.")
        best, low, high = self.parameters_[name], *LIMITS[name]

        def above(value: float) -> float:
            return self._problem.profiled(name, value, self.parameters_) - self.chi2_ - rise

        ends = []
        for sign, limit in ((-1, low), (1, high)):
            step = max(self.errors_[name], 1e-6 * abs(best))
            end = best
            while True:
                end = min(max(end + sign * step, low), high)
                if above(end) > 0:
                    ends.append(float(brentq(above, best, end, xtol=1e-5 * abs(best))))
                    break
                if end == limit or abs(end - best) > 1e3 * abs(best):
                    ends.append(float(limit))
                    break
                step *= 2
        return ends[0], ends[1]


class FitProblem:
    """Residuals of a fit, with their slopes, and their least sum of squares."""

    def __init__(self, owner: PhotoproductionFit, tables: Tables, measured: np.ndarray, names: list[str]) -> None:
        self.tables, self.measured, self.names = tables, measured, names
        self.columns = [PARAMETERS.index(name) for name in names]
        self.fixed = np.array([owner.alpha, owner.mu, 1.0, 1.0])
        self.shape = (owner.core if owner.kind == "2Y" else 0.0, owner.ratio)
        self.fsi, self.scale_error, self.evaluations = owner.fsi, owner.scale_error, 0

    def whole(self, values: np.ndarray) -> np.ndarray:
        """All of `PARAMETERS`."""
        vector = self.fixed.copy()
        vector[self.columns] = values
        return vector

    def evaluate(self, tables: Tables, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cross sections, nb, and their slopes by each of `PARAMETERS`."""
        alpha, mu, strength, scale = vector
        values, slopes = total_and_slopes(tables, (alpha, mu, *self.shape), self.fsi, strength)
        return scale * values, np.column_stack([scale * slopes, values])

    def at(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pulls, and that of the scale where it has a prior, and their slopes."""
        self.evaluations += 1
        predicted, slopes = self.evaluate(self.tables, self.whole(values))
        errors = np.where(predicted > self.measured[:, 0], self.measured[:, 1], self.measured[:, 2])
        found, slopes = (predicted - self.measured[:, 0]) / errors, slopes[:, self.columns] / errors[:, None]
        if self.scale_error:
            prior = np.array([[name == "scale" for name in self.names]]) / self.scale_error
            found, slopes = np.append(found, (values[-1] - 1) / self.scale_error), np.vstack([slopes, prior])
        return found, slopes

    def starts(self) -> list[np.ndarray]:
        """The best of a few strengths, at most two, so that no far minimum is taken for the nearest."""
        lead = next((name for name in ("alpha", "strength") if name in self.names), None)
        base = self.fixed[self.columns]
        if lead is None:
            return [base]
        k = self.names.index(lead)
        tried = []
        for value in base[k] * np.geomspace(0.05, 8.0, 8):
            start = base.copy()
            start[k] = np.clip(value, *LIMITS[lead])
            tried.append((float(np.sum(self.at(start)[0] ** 2)), value, start))
        return [start for _, _, start in sorted(tried, key=lambda each: each[0])[:2]]

    def minimise(self, start: np.ndarray, held: str = "") -> Minimum:
        """The least sum of squares from a start; `held` stays as it is, and is not among what is found."""
        free = [k for k, name in enumerate(self.names) if name != held]

        def at(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            vector = np.array(start, float)
            vector[free] = values
            found, slopes = self.at(vector)
            return found, slopes[:, free]

        with one_thread():
            return bounded_least_squares(at, start[free], np.array([LIMITS[self.names[k]] for k in free]).T)

    def profiled(self, name: str, value: float, best: dict[str, float]) -> float:
        """Chi squared with one parameter held and the others fitted."""
        start = np.array([value if each == name else best[each] for each in self.names])
        if len(self.names) == 1:
            return float(np.sum(self.at(start)[0] ** 2))
        return self.minimise(start, name).total
