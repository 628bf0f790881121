"""Cells with the time at which each was taken, from AnnData, tables and arrays, and trajectories back into AnnData."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from broadsheet.cache import writing
from broadsheet.errors import DataError, InputError, MissingExtraError
from broadsheet.files import existing, load_arrays, trusted
from broadsheet.numerics.number_tables import read_numbers


class Cells(NamedTuple):
    """- `x` (cells, d), `t` (cells,); `basis`: what the columns of x are; `columns`: their names; `names` of the cells.
    - `width`: how many columns the basis has in the file.
    """

    x: Float[np.ndarray, "cells d"]
    t: Float[np.ndarray, " cells"]
    basis: str
    columns: tuple[str, ...]
    names: tuple[str, ...]
    width: int


def read_cells(path: str | Path, time: str | None = None, basis: str | None = None, dims: int | None = None) -> Cells:
    """Cells of a file, all of them.

    - `.h5ad`: `time` is a column of `obs`, numbers or categories that are numbers; `basis` is an entry of `obsm`, by default
      `X_pca`, or the only one. Nothing else of the file is read.
    - `.csv`, `.tsv`: `time` is a column, all others are dimensions.
    - `.npz`, `.safetensors`: `time` and `basis` are names of arrays.
    - `.npy`: (snapshots, points, dimensions) at times 0, 1, 2 and on; a list of snapshots of different sizes is a Python pickle
      and read with `--trust` only.

    **Arguments:** `dims`: how many of the basis's columns, from the first; by default all.

    **Raises:** `DataError` with what the file has in place of what is missing, and for times or cells that are no finite
    numbers; `MissingExtraError` without anndata.
    """
    path = existing(path)
    readers = {".h5ad": _anndata, ".csv": _table, ".tsv": _table, ".npz": _arrays, ".safetensors": _arrays, ".npy": _snapshots}
    if path.suffix not in readers:
        raise DataError(f"{path}: cells are read from {', '.join(readers)}.")
    if time is None and path.suffix != ".npy":
        raise InputError(f"{path}: which column holds the times is to be named.")
    x, t, basis, columns, names = readers[path.suffix](path, time or "", basis)
    width = x.shape[1]
    if dims is not None and not 1 <= dims <= width:
        raise InputError(f"{path}: {basis} has {width} columns, not {dims}.")
    x, columns = x[:, :dims], columns[:dims]
    bad = np.flatnonzero(~(np.isfinite(x).all(axis=1) & np.isfinite(t)))
    if len(bad):
        raise DataError(
            f"{path}: {len(bad)} cells have no finite place or time, the first of them {names[bad[0]]}; leave them out."
        )
    return Cells(x, t, basis, columns, names, width)


def _numbered(basis: str, width: int) -> tuple[str, ...]:
    return tuple(f"{basis.removeprefix('X_')}{k + 1}" for k in range(width))


def _anndata(path: Path, time: str, basis: str | None) -> tuple[Any, Any, str, tuple[str, ...], tuple[str, ...]]:
    try:
        import h5py
        from anndata.io import read_elem
    except ImportError:
        raise MissingExtraError("Reading AnnData", "transport") from None
    try:
        with h5py.File(path, "r") as file:
            if "obs" not in file or "obsm" not in file:
                raise DataError(f"{path} has {', '.join(file) or 'nothing'}; obs and obsm of AnnData are wanted.")
            obs, entries = read_elem(file["obs"]), sorted(file["obsm"])
            if time not in obs:
                raise DataError(f"{path}: obs has no column {time!r}; it has {', '.join(map(str, obs.columns)) or 'none'}.")
            if basis is None:
                basis = "X_pca" if "X_pca" in entries or len(entries) != 1 else entries[0]
            if basis not in entries:
                raise DataError(
                    f"{path}: obsm has no {basis!r}; it has {', '.join(entries) or 'nothing'}: name one as the basis."
                )
            x = read_elem(file["obsm"][basis])
    except OSError as error:
        raise DataError(f"{path} is no HDF5 file that can be read: {error}.") from None
    x = np.asarray(getattr(x, "values", x))
    if x.ndim != 2 or x.dtype.kind not in "biuf" or not x.size:
        raise DataError(f"{path}: obsm[{basis!r}] holds {x.dtype} of {x.shape}; numbers (cells, dimensions) are wanted.")
    try:
        t = np.asarray(obs[time].astype(str) if obs[time].dtype.kind not in "biuf" else obs[time]).astype(float)
    except ValueError:
        said = ", ".join(map(repr, obs[time].astype(str).unique()[:5]))
        raise DataError(f"{path}: obs[{time!r}] holds {said}; numbers are wanted.") from None
    return x.astype(float), t, basis, _numbered(basis, x.shape[1]), tuple(map(str, obs.index))


def _table(path: Path, time: str, basis: str | None) -> tuple[Any, Any, str, tuple[str, ...], tuple[str, ...]]:
    table = read_numbers(path)
    if basis is not None:
        raise InputError(f"{path}: a table has no basis; all its columns but the time are dimensions.")
    if time not in table.names:
        raise DataError(f"{path} has no column {time!r}; it has {', '.join(table.names)}.")
    if len(table.names) < 2 or not len(table.values):
        raise DataError(
            f"{path} has {len(table.values)} rows of {len(table.names)} columns; a time and a dimension are wanted."
        )
    at = table.names.index(time)
    columns = tuple(name for name in table.names if name != time)
    rows = tuple(f"row {k + 1}" for k in range(len(table.values)))
    return np.delete(table.values, at, axis=1), table.values[:, at], "columns", columns, rows


def _arrays(path: Path, time: str, basis: str | None) -> tuple[Any, Any, str, tuple[str, ...], tuple[str, ...]]:
    arrays = load_arrays(path)
    flat = sorted(name for name, value in arrays.items() if value.ndim == 2)
    if basis is None and len(flat) == 1:
        basis = flat[0]
    if time not in arrays or basis not in arrays:
        raise DataError(f"{path} holds {', '.join(arrays)}; the times ({time!r}) and the basis ({basis!r}) are wanted.")
    x, t = arrays[basis], arrays[time]
    if x.ndim != 2 or t.shape != (len(x),) or x.dtype.kind not in "biuf" or t.dtype.kind not in "biuf" or not x.size:
        raise DataError(
            f"{path}: {basis} holds {x.dtype} of {x.shape} and {time} {t.dtype} of {t.shape}; numbers (cells, dimensions) and "
            "one time a cell are wanted."
        )
    return x.astype(float), t.astype(float), basis, _numbered(basis, x.shape[1]), tuple(f"row {k}" for k in range(len(x)))


def _snapshots(path: Path, time: str, basis: str | None) -> tuple[Any, Any, str, tuple[str, ...], tuple[str, ...]]:
    for name, value in (("time", time), ("basis", basis)):
        if value:
            raise InputError(f"{path}: snapshots in one array have no {name} by name; their times are 0, 1, 2 and on.")
    try:
        stacked = np.load(path, allow_pickle=True) if trusted() else load_arrays(path)[""]
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is no array that can be read: {error}.") from None
    parts = list(stacked) if stacked.dtype == object else list(stacked) if stacked.ndim == 3 else []
    if not parts or any(np.ndim(part) != 2 or np.shape(part)[1] != np.shape(parts[0])[1] for part in parts):
        raise DataError(f"{path} holds {stacked.dtype} of {stacked.shape}; (snapshots, points, dimensions) are wanted.")
    x = np.concatenate([np.asarray(part, float) for part in parts])
    t = np.repeat(np.arange(float(len(parts))), [len(part) for part in parts])
    return x, t, "columns", tuple(f"x{k + 1}" for k in range(x.shape[1])), tuple(f"point {k}" for k in range(len(x)))


def write_trajectories(
    path: str | Path,
    cells: Cells,
    time: str,
    drift: Float[np.ndarray, "cells d"],
    grid: Float[np.ndarray, " times"],
    paths: Float[np.ndarray, "times paths d"],
) -> None:
    """Trajectories as `.h5ad` (cells with `obs[time]`, `obsm[basis]` and `obsm["drift"]`, trajectories (paths, times, d) and
    their times in `uns`), `.npz`, or `.csv` (a row a path and time).

    **Raises:** `InputError` for another ending; `MissingExtraError` without anndata.
    """
    path = Path(path)
    if path.suffix == ".npz":
        with writing(path) as stream:
            np.savez_compressed(stream, times=grid, trajectories=np.swapaxes(paths, 0, 1), x=cells.x, t=cells.t, drift=drift)
    elif path.suffix == ".csv":
        index = np.indices(paths.shape[:2]).reshape(2, -1)
        rows = np.column_stack([index[1], grid[index[0]], paths.reshape(-1, paths.shape[2])])
        with writing(path) as stream:
            np.savetxt(stream, rows, delimiter=",", header=",".join(("path", time, *cells.columns)), comments="", fmt="%.8g")
    elif path.suffix == ".h5ad":
        try:
            import anndata
            import pandas
        except ImportError:
            raise MissingExtraError("Writing AnnData", "transport") from None
        made = anndata.AnnData(
            obs=pandas.DataFrame({time: cells.t}, index=list(cells.names)),
            obsm={cells.basis: cells.x, "drift": drift},
            uns={"trajectories": np.swapaxes(paths, 0, 1), "trajectory_times": grid},
        )
        part = path.with_suffix(".part.h5ad")
        try:
            made.write_h5ad(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    else:
        raise InputError(f"{path}: trajectories are written as .h5ad, .npz or .csv.")
