"""Maps that installed packages carry, read from their files without importing them: `cect` and `wormneuroatlas`.

`wormneuroatlas` is under the GPL: its data files are read where a user has them, nothing of its code runs. `cect`'s
dependencies are not needed either; `pip install --no-deps` of any version is enough.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.errors import DataError, MissingDataError, NotFoundError
from broadsheet.files import MIB, existing, read_bytes, read_text
from broadsheet.recordings.worm.connectomes import GAP, Connectome, Edges, from_tables
from broadsheet.recordings.worm.names import canonical_names, canonicalise, slots

PLACES = {"cect": ("BROADSHEET_CECT", "cache"), "wormneuroatlas": ("BROADSHEET_WORM_ATLAS", "data")}
"""Package -> the environment variable that names a folder of its files, and the package's own folder of them."""

NO_SYNAPSES = frozenset({"Functional", "Contact", "Peptidergic", "Monoaminergic"})
AMINES = frozenset({"Tyramine", "Octopamine", "Dopamine", "Serotonin"})
BY_EXPRESSION = ("Bentley", "Wang")
"""Readers whose amines are pairs of releasing and receiving cells, without a synapse between them."""


def package_files(package: str, folder: str | Path | None = None) -> Path:
    """The folder of a package's data files: `folder`, else the one that its environment variable names, else the installed
    package's; the package's own folder stands for its data.

    **Raises:** `MissingDataError` that says what to install.
    """
    variable, inside = PLACES[package]
    given = folder or os.environ.get(variable)
    if given:
        found = existing(given)
        return found / inside if (found / inside).is_dir() else found
    spec = importlib.util.find_spec(package)  # finds it; does not import it
    places = list(spec.submodule_search_locations or []) if spec else []
    for place in places:
        if (Path(place) / inside).is_dir():
            return Path(place) / inside
    raise MissingDataError(
        f"The files of {package} are needed: pip install --no-deps {package}, or name a folder of them with {variable}."
    )


def cect_names(folder: str | Path | None = None) -> tuple[str, ...]:
    """What an installed `cect` carries, by the names that `Connectome.load("cect:NAME")` takes."""
    stems = sorted(path.stem for path in package_files("cect", folder).glob("*.json"))
    return tuple(_short(stem) for stem in stems if stem != "symmetry_measures")


def cect_connectome(name: str, folder: str | Path | None = None) -> Connectome:
    """A cached map of `cect`: kinds of connection are `layers`; `chem` is the sum of all synapses that are no gap junctions."""
    files = package_files("cect", folder)
    stems = {_short(path.stem).lower(): path for path in files.glob("*.json") if path.stem != "symmetry_measures"}
    path = stems.get(_short(name).lower())
    if path is None:
        raise NotFoundError(f"{files} has no map {name!r}; it has {', '.join(cect_names(folder)) or 'none'}.")
    try:
        data = json.loads(read_bytes(path, 128 * MIB))
        nodes = [str(each) for each in data["nodes"]]
        kinds = {str(kind): np.array(matrix, float) for kind, matrix in data["connections"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is no cached map of cect ({str(error)[:80]}).") from None
    if wrong := [kind for kind, matrix in kinds.items() if matrix.shape != (len(nodes),) * 2]:
        raise DataError(f"{path}: {wrong[0]} is {kinds[wrong[0]].shape} for {len(nodes)} cells.")
    amines = AMINES if path.stem.startswith(BY_EXPRESSION) else frozenset()
    chemical = [matrix for kind, matrix in kinds.items() if kind != GAP and kind not in NO_SYNAPSES | amines]
    gap = kinds.get(GAP, np.zeros((len(nodes),) * 2))
    chem = np.sum(chemical, axis=0) if chemical else np.zeros_like(gap)
    symmetric = np.array_equal(gap, gap.T)
    made = from_tables(
        f"cect:{_short(path.stem)}", _edges(chem, nodes), _edges(np.triu(gap) if symmetric else gap, nodes), nodes,
        f"{path.stem} of cect",
    )  # fmt: skip
    made.layers.update({kind: _placed(matrix, nodes) for kind, matrix in kinds.items() if kind != GAP})
    return made


def atlas_connectome(name: str, folder: str | Path | None = None) -> Connectome:
    """A wiring table of `wormneuroatlas`: `default`, the average over brains, or a table by its file's name, as
    `white_1986_whole` and `witvliet_2020_8`."""
    files = package_files("wormneuroatlas", folder)
    if name == "default":
        arrays = read_h5(files / "aconnectome_default.h5", ("chem", "gap"))
        cells = canonical_names()  # the file's order is alphabetical, that of neuron_ids.txt is not
        if arrays["chem"].shape != (len(cells),) * 2 or arrays["gap"].shape != (len(cells),) * 2:
            raise DataError(f"{files}: the averaged wiring is {arrays['chem'].shape}; (300, 300) is wanted.")
        chem, gap = arrays["chem"].T, np.maximum(arrays["gap"], arrays["gap"].T)  # the file's rows are post, columns pre
        seen = [cell for k, cell in enumerate(cells) if chem[k].any() or chem[:, k].any() or gap[k].any()]
        return from_tables("wormneuroatlas:default", _edges(chem, cells), _edges(np.triu(gap), cells), seen,
                           "averaged over White's and Witvliet's adult brains by wormneuroatlas")  # fmt: skip
    path = files / f"aconnectome_{name}.csv"
    if not path.is_file():
        tables = sorted(each.stem.removeprefix("aconnectome_") for each in files.glob("aconnectome_*.csv"))
        raise NotFoundError(f"{files} has no wiring {name!r}; it has {', '.join(['default', *tables])}.")
    rows: dict[str, list[tuple[str, str, float]]] = {"chemical": [], "electrical": []}
    for k, line in enumerate(read_text(path).splitlines()[1:], start=2):
        try:
            pre, post, kind, count = line.split("\t")
            rows[kind].append((pre, post, float(count)))
        except (ValueError, KeyError):
            raise DataError(f"{path}, line {k}: pre, post, chemical or electrical and a number are wanted.") from None
    chemical, electrical = (
        Edges(tuple(pre for pre, _, _ in given), tuple(post for _, post, _ in given), np.array([w for _, _, w in given]))
        for given in rows.values()
    )
    listed = [*chemical.pre, *chemical.post, *electrical.pre, *electrical.post]
    return from_tables(f"wormneuroatlas:{name}", chemical, electrical, listed, path.name)


def read_h5(path: Path, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Data sets of an HDF5 file, whole; raises `DataError` that names what is missing."""
    import h5py

    if not path.is_file():
        raise MissingDataError(f"{path} is missing: it comes with pip install --no-deps wormneuroatlas.")
    try:
        with h5py.File(path, "r") as file:
            return {name: file[name][()] for name in wanted}
    except KeyError as error:
        raise DataError(f"{path} lacks a data set ({str(error).strip(chr(34))[:80]}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read as HDF5 ({str(error)[:60]}).") from None


def _short(stem: str) -> str:
    """A reader's name as a map's: `White_whole`, `Cook2019Herm`, `Witvliet7`."""
    return stem.removeprefix("cect:").replace("DataReader", "").replace("Reader", "")


def _edges(matrix: np.ndarray, cells: Any) -> Edges:
    pre, post = np.nonzero(matrix)
    return Edges(tuple(cells[k] for k in pre), tuple(cells[k] for k in post), matrix[pre, post].astype(float))


def _placed(matrix: np.ndarray, nodes: list[str]) -> np.ndarray:
    """A matrix over any cells on the canonical ones, self-connections left out."""
    place = slots()
    here = [(k, place[name]) for k, name in enumerate(map(canonicalise, nodes)) if name is not None]
    made = np.zeros((len(place),) * 2)
    if here:
        source, target = np.array(here).T
        made[np.ix_(target, target)] = matrix[np.ix_(source, source)]
        np.fill_diagonal(made, 0)
    return made
