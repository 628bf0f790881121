"""Populations recorded in a uniform and in a biased context, from files.

A file has, of each stimulus, its orientation (degrees), its probability in the biased context, and the mean response of each
neuron in both contexts:

- `.npz`: `orientations` (stimuli,), `ensemble` (stimuli,), `before` and `after` (neurons, stimuli), where wanted `adapter`
  (degrees; by default the most frequent stimulus);
- CSV: a row a stimulus, the columns `orientation`, `ensemble`, `before_<name>` … and `after_<name>` …;
- `.mat`: the layout of BenucciTuningData.mat, as code of the paper's first author reads it: `resps`, a cell a session, each
  (units, stimuli, 2 contexts) over orientations from -90 to 90 degrees. How often the adapter came is no part of it.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from broadsheet.errors import DataError, InputError
from broadsheet.networks.adaptation_effects import Effects, effects

ADAPTER_SHARES = (0.5, 0.35, 0.35, 0.5, 0.5, 0.5, 0.5, 0.4, 0.4, 0.3, 0.3)
"""How often the adapter came in each of the eleven sessions of BenucciTuningData.mat."""
LARGEST = 512 * 2**20


@dataclass(frozen=True)
class AdaptedPopulation:
    """Mean responses of neurons to gratings, in two contexts. Orientations in radians.

    **Raises:** `DataError` for shapes that do not fit, NaN, negative probabilities, or fewer than 2 neurons or 4 orientations.
    """

    orientations: np.ndarray  # (stimuli,)
    ensemble: np.ndarray
    before: np.ndarray  # (neurons, stimuli)
    after: np.ndarray
    adapter: float  # radians
    name: str = ""

    def __post_init__(self) -> None:
        where = self.name or "the population"
        shape = np.shape(self.before)
        if (
            len(shape) != 2
            or shape != np.shape(self.after)
            or {*np.shape(self.orientations), *np.shape(self.ensemble)} != {shape[1]}
        ):
            raise DataError(
                f"{where}: before and after have the shapes {shape} and {np.shape(self.after)}, with "
                f"{np.size(self.orientations)} orientations and {np.size(self.ensemble)} probabilities; (neurons, stimuli) "
                "twice and one of each a stimulus are wanted."
            )
        for field in ("orientations", "ensemble", "before", "after"):
            if not np.isfinite(getattr(self, field)).all():
                raise DataError(f"{where}: {field} holds NaN or infinity; finite numbers are wanted.")
        if not ((self.ensemble >= 0).all() and abs(self.ensemble.sum() - 1) < 0.02):
            raise DataError(f"{where}: the ensemble sums to {self.ensemble.sum():g}; probabilities that sum to 1 are wanted.")
        if shape[0] < 2 or shape[1] < 4:
            raise DataError(f"{where}: {shape[0]} neurons and {shape[1]} stimuli; 2 and 4 or more are wanted.")
        distinct = np.unique(np.round(np.rad2deg(self.orientations) % 180, 6))
        if len(distinct) < shape[1]:
            self._merge()

    def _merge(self) -> None:
        """Stimuli half a turn apart are one: their responses are averaged and their probabilities added."""
        angle = np.round(np.rad2deg(self.orientations) % 180, 6)
        distinct, place = np.unique(angle, return_inverse=True)
        if len(distinct) < 4:
            raise DataError(f"{self.name or 'the population'}: {len(distinct)} different orientations; 4 or more are wanted.")
        members = np.eye(len(distinct))[place]
        for field in ("before", "after"):
            object.__setattr__(self, field, getattr(self, field) @ members / members.sum(axis=0))
        object.__setattr__(self, "ensemble", np.bincount(place, self.ensemble))
        object.__setattr__(self, "orientations", np.deg2rad(distinct))

    def effects(self) -> Effects:
        """What adaptation changed."""
        return effects(self.before, self.after, self.ensemble / self.ensemble.sum(), self.adapter, self.orientations)


def read_population(file: str | Path) -> list[AdaptedPopulation]:
    """The populations of a file, one a session.

    **Raises:** `DataError` for a file of another format or that lacks what it must have.
    """
    path = Path(file)
    if not path.is_file():
        raise DataError(f"{path} is no file; an .npz, .csv or .mat file is wanted.")
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path} has {path.stat().st_size / 2**20:.0f} MB; up to {LARGEST / 2**20:.0f} MB are read.")
    kinds = {".npz": _read_npz, ".csv": _read_csv, ".mat": _read_mat}
    if path.suffix.lower() not in kinds:
        raise DataError(f"{path} ends in {path.suffix or 'nothing'!r}; .npz, .csv or .mat is wanted.")
    return kinds[path.suffix.lower()](path)


def write_population(population: AdaptedPopulation, file: str | Path) -> None:
    """Writes an .npz or a CSV file that `read_population` reads."""
    path = Path(file)
    degrees = np.rad2deg(population.orientations)
    if path.suffix.lower() == ".npz":
        np.savez(
            path,
            orientations=degrees,
            ensemble=population.ensemble,
            before=population.before,
            after=population.after,
            adapter=np.rad2deg(population.adapter),
        )
    elif path.suffix.lower() == ".csv":
        neurons = range(len(population.before))
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["orientation", "ensemble", *(f"{c}_{k}" for c in ("before", "after") for k in neurons)])
            rows = np.column_stack([degrees, population.ensemble, population.before.T, population.after.T])
            writer.writerows(rows.tolist())
    else:
        raise InputError(f"{path} ends in {path.suffix!r}; .npz or .csv is wanted.")


def _population(path: Path, degrees: np.ndarray, p: np.ndarray, before: np.ndarray, after: np.ndarray, adapter: float | None):
    if adapter is None:
        if p.max() <= p.min() + 1e-12:
            raise DataError(
                f"{path}: all stimuli are alike in the ensemble; a biased one is wanted, or the adapter's orientation."
            )
        adapter = float(degrees[p.argmax()])
    return AdaptedPopulation(np.deg2rad(degrees), p, before, after, float(np.deg2rad(adapter)), path.name)


def _read_npz(path: Path) -> list[AdaptedPopulation]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: np.asarray(stored[name], float) for name in stored.files}
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is no readable .npz file of numbers ({error}).") from None
    missing = [name for name in ("orientations", "ensemble", "before", "after") if name not in arrays]
    if missing:
        raise DataError(f"{path} has no array {missing[0]!r}; orientations, ensemble, before and after are wanted.")
    adapter = float(arrays["adapter"].ravel()[0]) if arrays.get("adapter", np.empty(0)).size else None
    order = ("orientations", "ensemble", "before", "after")
    degrees, p, before, after = (arrays[name] for name in order)
    if degrees.ndim != 1 or p.ndim != 1 or p.size != degrees.size:
        raise DataError(
            f"{path}: orientations and ensemble have the shapes {degrees.shape} and {p.shape}; one row of each is wanted."
        )
    return [_population(path, degrees, p, before, after, adapter)]


def _read_csv(path: Path) -> list[AdaptedPopulation]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text file in UTF-8.") from None
    if len(rows) < 2:
        raise DataError(f"{path} has {len(rows)} rows; a header and a row a stimulus are wanted.")
    header = [name.strip() for name in rows[0]]
    if len(set(header)) < len(header):
        raise DataError(f"{path} names a column twice.")
    names = [name.removeprefix("before_") for name in header if name.startswith("before_")]
    wanted = ["orientation", "ensemble", *(f"{c}_{name}" for c in ("before", "after") for name in names)]
    if missing := next((name for name in wanted if name not in header), None):
        raise DataError(f"{path} has no column {missing!r}; orientation, ensemble, before_<name> and after_<name> are wanted.")
    if extra := next((name for name in header if name not in wanted), None):
        raise DataError(f"{path} has a column {extra!r}, which says nothing here; rename it to before_<name> or after_<name>.")
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise DataError(f"{path}, row {line}: {len(row)} values in {len(header)} columns.")
    columns = {}
    for k, name in enumerate(header):
        try:
            columns[name] = np.array([float(row[k]) for row in rows[1:]])
        except ValueError:
            raise DataError(f"{path}: the column {name!r} holds something that is no number.") from None
    before, after = (
        np.array([columns[f"{c}_{name}"] for name in names]).reshape(len(names), len(rows) - 1) for c in ("before", "after")
    )
    return [_population(path, columns["orientation"], columns["ensemble"], before, after, None)]


def _read_mat(path: Path) -> list[AdaptedPopulation]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        cells = loadmat(path).get("resps")
    except (ValueError, OSError, NotImplementedError, MatReadError) as error:
        raise DataError(f"{path} is no readable .mat file of version 7 or below ({error}).") from None
    if cells is None or cells.dtype != object:
        raise DataError(f"{path} has no cell array 'resps' of (units, stimuli, 2); BenucciTuningData.mat has.")
    sessions = cells.ravel()
    if len(sessions) != len(ADAPTER_SHARES):
        raise DataError(
            f"{path} has {len(sessions)} sessions, where how often the adapter came is known of the {len(ADAPTER_SHARES)} of "
            "BenucciTuningData.mat; write yours as .npz with its ensemble."
        )
    return [_session(path, k, responses) for k, responses in enumerate(sessions)]


def _session(path: Path, k: int, responses: np.ndarray) -> AdaptedPopulation:
    if responses.ndim != 3 or responses.shape[2] != 2:
        raise DataError(f"{path}, session {k + 1} has the shape {responses.shape}; (units, stimuli, 2 contexts) is wanted.")
    degrees = np.linspace(-90, 90, responses.shape[1])
    p = adapter_ensemble(responses.shape[1], ADAPTER_SHARES[k])
    before, after = np.moveaxis(np.asarray(responses, float), 2, 0)
    return AdaptedPopulation(np.deg2rad(degrees), p, before, after, 0.0, f"{path.name}, session {k + 1}")


def adapter_ensemble(stimuli: int, share: float) -> Float[np.ndarray, " stimuli"]:
    """An adapter in the middle of -90 to 90 degrees, half of its share on it and a quarter on each neighbour."""
    p = np.full(stimuli, (1 - share) / (stimuli - 3))
    middle = stimuli // 2
    p[middle - 1 : middle + 2] = share * np.array([0.25, 0.5, 0.25])
    return p


def noisy_population(
    before: Float[np.ndarray, "neurons stimuli"],
    after: Float[np.ndarray, "neurons stimuli"],
    p: Float[np.ndarray, " stimuli"],
    adapter: float,
    orientations: Float[np.ndarray, " stimuli"],
    noise: float,
    rng: np.random.Generator,
) -> AdaptedPopulation:
    """A recording of a model: tuning curves with independent normal noise, `noise` times their largest response."""
    spread = noise * before.max()
    measured = [each + spread * rng.standard_normal(each.shape) for each in (before, after)]
    return AdaptedPopulation(orientations, p, measured[0], measured[1], adapter, "a model's population")


def mean_effects(populations: Sequence[AdaptedPopulation]) -> dict[str, float]:
    """The effects in numbers, averaged over populations."""
    rows = [population.effects().summary() for population in populations]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def explained_change(population: AdaptedPopulation, fitted: Float[np.ndarray, "neurons stimuli"]) -> float:
    """Share of the change between contexts that fitted responses explain: 1 for all, 0 for none, below for worse than none."""
    change = ((population.after - population.before) ** 2).sum()
    return float(1 - ((population.after - fitted) ** 2).sum() / change)
