"""The atlas of signal propagation: how a neuron answers when another one is stimulated (Randi et al. 2023), and what the wiring
says of it. Row = stimulated (pre), column = responding (post).

The data are the file `funatlas.h5` of `wormneuroatlas`, a package under the GPL: it is read where a user has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from broadsheet.cache import write_atomic
from broadsheet.errors import DataError, InputError
from broadsheet.files import read_text
from broadsheet.recordings.worm.connectomes import Connectome
from broadsheet.recordings.worm.names import canonical_names, canonicalise, slots
from broadsheet.recordings.worm.packages import package_files, read_h5

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class FunctionalAtlas:
    """Responses to stimulation of single neurons; every array (300, 300), row = stimulated, column = responding.

    - `q`: false discovery rate of a response; NaN where there is none to tell.
    - `response`: mean change of fluorescence, ΔF/F.
    - `trials`: how often the pair was tested.
    """

    q: np.ndarray
    response: np.ndarray
    trials: np.ndarray
    strain: str = "wt"
    path: Path | None = None

    @classmethod
    def load(cls, folder: str | Path | None = None, strain: Literal["wt", "unc31"] = "wt") -> FunctionalAtlas:
        """From `funatlas.h5` in a folder (or that file itself), the folder named by BROADSHEET_WORM_ATLAS, or an installed
        `wormneuroatlas`.

        **Raises:** `MissingDataError` where there is none; `DataError` for a file of another shape.
        """
        place = Path(folder).expanduser() if folder else None
        path = place if place is not None and place.is_file() else package_files("wormneuroatlas", folder) / "funatlas.h5"
        fields = {"q": f"{strain}/q", "response": f"{strain}/dFF", "trials": f"{strain}/occ1"}
        arrays = read_h5(path, ("neuron_ids", *fields.values()))
        names = [canonicalise(name) for name in np.asarray(arrays["neuron_ids"]).tolist()]
        if None in names or len(set(names)) < len(names):
            bad = next((k for k, name in enumerate(names) if name is None or names.index(name) != k), 0)
            raise DataError(f"{path}: neuron {arrays['neuron_ids'][bad]!r} is no neuron of the list, or stands there twice.")
        order = np.array([slots()[name] for name in names if name is not None])
        made = {}
        for field, name in fields.items():
            if arrays[name].shape != (len(order),) * 2:
                raise DataError(f"{path}: {name} is {arrays[name].shape} for {len(order)} neurons.")
            placed = np.full((len(slots()),) * 2, np.nan if field != "trials" else 0.0)
            placed[np.ix_(order, order)] = np.asarray(arrays[name], float).T  # the file's rows respond
            made[field] = placed
        return cls(**made, strain=strain, path=path)

    @property
    def tested(self) -> Bool[np.ndarray, "pre post"]:
        """Pairs of two cells that were stimulated and have a finite q."""
        return (self.trials > 0) & np.isfinite(self.q) & ~np.eye(len(self.q), dtype=bool)

    @property
    def significant(self) -> Bool[np.ndarray, "pre post"]:
        """Tested pairs with q below 0.05."""
        return self.tested & (np.nan_to_num(self.q, nan=1.0) < SIGNIFICANT)

    def connectome(self) -> Connectome:
        """Responses with q below 0.05 as the layer `Functional`; no synapses."""
        nothing = np.zeros_like(self.q)
        seen = np.asarray((self.tested | self.tested.T).any(0))
        made = Connectome("funatlas", nothing, nothing, seen, "signal propagation")
        made.layers["Functional"] = np.where(self.significant, np.nan_to_num(self.response), 0.0)
        return made

    def kernel(self, pre: str, post: str, times: np.ndarray) -> Float[np.ndarray, " times"]:
        """The fitted response kernel of `post` to a stimulus of `pre` at times (s), in float64: a sum of terms
        `factor t^power exp(-g t)`; terms of near-equal size and opposite sign occur. Zeros where none was fitted.

        **Raises:** `InputError` for names outside the list, `DataError` where the file has no kernels.
        """
        import h5py

        a, b = canonicalise(pre), canonicalise(post)
        if a is None or b is None:
            raise InputError(f"{pre if a is None else post!r} is no neuron of the list.")
        if self.path is None:
            raise DataError("This atlas has no file behind it, so that it has no kernels.")
        with h5py.File(self.path, "r") as file:
            if f"{self.strain}/kernels" not in file:
                raise DataError(f"{self.path} has no kernels of {self.strain}.")
            names = [canonicalise(name) for name in file["neuron_ids"][()].tolist()]
            flat = np.asarray(file[f"{self.strain}/kernels"][names.index(b), names.index(a)], float)
        return evaluate_kernel(flat, times)


def evaluate_kernel(flat: np.ndarray, times: np.ndarray) -> Float[np.ndarray, " times"]:
    """The kernel of a flat vector of (g, factor, power, branch) at times (s)."""
    times = np.asarray(times, float)
    if flat.size % 4:
        raise DataError(f"A kernel has {flat.size} numbers; groups of four are wanted.")
    terms = flat.reshape(-1, 4)
    out = np.zeros_like(times)
    for g, factor, power, _ in terms:
        out += factor * times**power * np.exp(-g * times)
    return np.where(times < 0, 0.0, out)


def write_atlas(path: str | Path, q: np.ndarray, response: np.ndarray, trials: np.ndarray, strain: str = "wt") -> Path:
    """Writes arrays (300, 300), row = stimulated, in the shape of `funatlas.h5`: rows respond there, and AWCOFF has lost its
    last letter."""
    import h5py

    spelled = {"AWCL": "AWCOF", "AWCR": "AWCON"}
    path = Path(path)
    with h5py.File(path, "a") as file:  # strains lie beside each other
        if "neuron_ids" not in file:
            file["neuron_ids"] = np.array([spelled.get(name, name) for name in canonical_names()], "S5")
        for name, array in (("q", q), ("dFF", response), ("occ1", np.asarray(trials, int))):
            file[f"{strain}/{name}"] = np.asarray(array).T
    return path


def write_positions(path: str | Path, positions: Float[np.ndarray, "300 3"]) -> Path:
    """Writes places of cell bodies as `read_positions` reads them."""
    lines = ["#" + " ".join(canonical_names()), *(" ".join(f"{each:.6f}" for each in row) for row in positions)]
    return write_atomic(Path(path), "\n".join(lines) + "\n")


def planted_atlas(wiring: Connectome, rng: np.random.Generator, gap: float = 0.2, chem: float = 0.09, none: float = 0.04,
                  cells: int = 150) -> FunctionalAtlas:  # fmt: skip
    """An atlas of random answers: `cells` annotated neurons are stimulated, a pair answers with the probability of its wiring.
    A stand-in for tests; it holds what it is given."""
    size = len(wiring.names)
    chosen = rng.permutation(np.flatnonzero(wiring.annotated))[:cells]
    tested = np.zeros((size, size), bool)
    tested[np.ix_(chosen, np.flatnonzero(wiring.annotated))] = True
    tested &= rng.random((size, size)) < 0.8
    np.fill_diagonal(tested, False)
    chance = np.where(wiring.gap > 0, gap, np.where(wiring.chem > 0, chem, none))
    answers = rng.random((size, size)) < chance
    q = np.where(answers, rng.uniform(0, 0.049, (size, size)), rng.uniform(0.051, 1, (size, size)))
    response = np.where(answers, rng.gamma(2, 0.1, (size, size)), rng.normal(0, 0.05, (size, size)))
    nothing = ~tested
    return FunctionalAtlas(
        np.where(nothing, np.nan, q), np.where(nothing, np.nan, response), tested * rng.integers(1, 9, (size, size))
    )


def write_planted(folder: Path, wiring: Connectome, rng: np.random.Generator) -> Path:
    """Files of a made-up atlas in the format of the real ones: both strains, and places at random."""
    made = planted_atlas(wiring, rng)
    for strain in ("wt", "unc31"):
        write_atlas(folder / "funatlas.h5", made.q, made.response, made.trials, strain)
    write_positions(folder / "anatlas_neuron_positions.txt", rng.standard_normal((len(slots()), 3)))
    return folder


class Shares(NamedTuple):
    """Tested pairs and the share with a significant answer, by their wiring; ratios are to pairs with neither connection."""

    gap: float
    chem: float
    unwired: float
    pairs: dict[str, int]

    @property
    def gap_ratio(self) -> float:
        return self.gap / self.unwired if self.unwired else float("nan")

    @property
    def chem_ratio(self) -> float:
        return self.chem / self.unwired if self.unwired else float("nan")


def shares(chem: np.ndarray, gap: np.ndarray, atlas: FunctionalAtlas) -> Shares:
    """How often a pair answers where a gap junction, a chemical synapse pre -> post, or neither joins it; chem and gap are
    (pre, post)."""
    tested, answers = atlas.tested, atlas.significant
    classes = {"gap": gap > 0, "chem": chem > 0, "unwired": (gap <= 0) & (chem <= 0)}
    pairs = {name: int((each & tested).sum()) for name, each in classes.items()}
    found = {
        name: float((each & answers).sum()) / pairs[name] if pairs[name] else float("nan") for name, each in classes.items()
    }
    return Shares(found["gap"], found["chem"], found["unwired"], pairs)


def shares_at_distance(
    wired: np.ndarray, unwired: np.ndarray, atlas: FunctionalAtlas, distance: np.ndarray, bins: int = 20
) -> float:
    """How often wired pairs answer over how often unwired pairs of equal distance do: unwired shares in `bins` of distance,
    weighted as the wired pairs lie (indirect standardisation). Arguments are (pre, post)."""
    known = atlas.tested & np.isfinite(distance)
    pairs, others = (wired > 0) & known, (unwired > 0) & known
    if not pairs.any():
        return float("nan")
    place = np.searchsorted(np.quantile(distance[pairs], np.linspace(0, 1, bins + 1)[1:-1]), distance)
    count, free = (np.bincount(place[each], minlength=bins) for each in (pairs, others))
    answers = np.bincount(place[others & atlas.significant], minlength=bins)
    expected = float((count * answers / np.maximum(free, 1)).sum())
    return float((pairs & atlas.significant).sum()) / expected if expected else float("nan")


def read_positions(folder: str | Path | None = None) -> Float[np.ndarray, "300 3"]:
    """Places of cell bodies from the atlas' `anatlas_neuron_positions.txt`: a line of names, then three numbers each. NaN where
    a neuron is not listed."""
    place = Path(folder).expanduser() if folder else None
    files = place.parent if place is not None and place.is_file() else package_files("wormneuroatlas", folder)
    path = files / "anatlas_neuron_positions.txt"
    lines = read_text(path).splitlines()
    names = lines[0].lstrip("# ").split() if lines else []
    try:
        numbers = np.array([[float(each) for each in line.split()] for line in lines[1:] if line.strip()])
    except ValueError:
        raise DataError(f"{path} should have three numbers a line below its names.") from None
    if numbers.shape != (len(names), 3):
        raise DataError(f"{path} has {len(names)} names and numbers of shape {numbers.shape}.")
    placed = np.full((len(slots()), 3), np.nan)
    for name, where in zip(map(canonicalise, names), numbers, strict=True):
        if name is not None:
            placed[slots()[name]] = where
    return placed


def distances(positions: Float[np.ndarray, "300 3"]) -> Float[np.ndarray, "300 300"]:
    """Between cell bodies; infinite where one is unknown, and of a cell to itself."""
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    return np.where(np.isnan(apart), np.inf, apart)


def nearest(like: Connectome, distance: np.ndarray) -> Connectome:
    """A wiring by place alone: every cell has as many partners as in `like`, those whose bodies are nearest."""
    order = np.argsort(distance, axis=1, kind="stable")

    def partners(weights: np.ndarray) -> np.ndarray:
        made = np.zeros_like(weights)
        for cell, count in enumerate((weights > 0).sum(1)):
            made[cell, order[cell, :count]] = np.isfinite(distance[cell, order[cell, :count]])
        return made

    gap = partners(like.gap)
    return Connectome(f"{like.name}, nearest cells", partners(like.chem), np.maximum(gap, gap.T), like.annotated)


def response_by_count(wiring: Connectome, atlas: FunctionalAtlas) -> list[tuple[str, float, float]]:
    """Numbers of chemical synapses, as text, with the mean response of tested pairs and its standard error."""
    rows = []
    for low, high in ((0, 0), (1, 2), (3, 5), (6, 10), (11, np.inf)):
        picked = atlas.response[atlas.tested & (wiring.chem >= low) & (wiring.chem <= high) & np.isfinite(atlas.response)]
        text = f"{low}" if low == high else f"{low}-{high}" if np.isfinite(high) else f"{low}+"
        spread = picked.std() / np.sqrt(picked.size) if picked.size else 0.0
        rows.append((text, float(picked.mean()) if picked.size else 0.0, float(spread)))
    return rows


def one_way_present(edges: Connectome, atlas_wiring: Connectome) -> float:
    """Of the chemical connections that a map has in one direction only, the share that another map has in that direction."""
    both = np.outer(atlas_wiring.annotated, atlas_wiring.annotated)
    one_way = (edges.chem > 0) & (edges.chem.T <= 0) & both
    return float((atlas_wiring.chem[one_way] > 0).mean()) if one_way.any() else float("nan")
