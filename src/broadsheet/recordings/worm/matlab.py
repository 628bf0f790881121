"""MATLAB files as plain values: version 5 by SciPy, version 7.3 as the HDF5 that it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.errors import DataError
from broadsheet.files import MIB

LARGEST = 2048 * MIB
DEEPEST = 8


def read_matlab(path: Path) -> dict[str, Any]:
    """Variables by name: structs as dictionaries (a list of them where there are several), cells as lists, text as `str`,
    numbers as arrays with MATLAB's axes, empty as None.

    **Raises:** `DataError` for files that are damaged, too large, or of another format.
    """
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path} has {path.stat().st_size / MIB:.0f} MiB; at most {LARGEST / MIB:g} MiB are read.")
    with path.open("rb") as stream:
        start = stream.read(128)
        stream.seek(512)
        signature = stream.read(8)
    if b"\x89HDF\r\n\x1a\n" in (start[:8], signature):
        return _read_hdf5(path)
    from scipy.io import loadmat

    try:
        found = loadmat(path, struct_as_record=False, chars_as_strings=True)
    except Exception as error:  # SciPy raises many kinds for damaged files
        raise DataError(f"{path} cannot be read as a MATLAB file ({str(error)[:80]}).") from None
    return {name: _plain(value) for name, value in found.items() if not name.startswith("__")}


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > DEEPEST:
        raise DataError(f"A MATLAB value is nested more than {DEEPEST} deep.")
    if hasattr(value, "_fieldnames"):
        return {name: _plain(getattr(value, name), depth + 1) for name in value._fieldnames}
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == object:
        parts = [_plain(each, depth + 1) for each in value.ravel(order="F")]
        return parts[0] if len(parts) == 1 and isinstance(parts[0], dict) else parts
    if value.size == 0:
        return None
    if value.dtype.kind in "US":
        return str(value.ravel()[0]) if value.size == 1 else [str(each).strip() for each in value.ravel()]
    return value


def _read_hdf5(path: Path) -> dict[str, Any]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return {name: _stored(file, file[name]) for name in file if not name.startswith("#")}
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as a MATLAB 7.3 file ({str(error)[:80]}).") from None


def _stored(file: Any, item: Any, depth: int = 0) -> Any:
    """A value of a 7.3 file; arrays lie there with their axes turned round, cells and arrays of structs as references."""
    import h5py

    if depth > DEEPEST:
        raise DataError(f"{file.filename}: a value is nested more than {DEEPEST} deep.")
    if isinstance(item, h5py.Group):
        return {name: _stored(file, item[name], depth + 1) for name in item}
    if item.nbytes > LARGEST:
        raise DataError(f"{file.filename}: {item.name} has {item.nbytes / MIB:.0f} MiB; at most {LARGEST / MIB:g} are read.")
    if item.attrs.get("MATLAB_empty"):
        return None
    if item.dtype == h5py.ref_dtype:
        return [_stored(file, file[each], depth + 1) for each in item[()].T.ravel(order="F")]
    values = item[()].T if item.ndim else np.asarray(item[()])
    if item.attrs.get("MATLAB_class", b"") == b"char":
        return "".join(chr(code) for code in np.asarray(values, int).ravel())
    return values
