"""What is looked at in an HDF5 file before anything of it is believed."""

from __future__ import annotations

from typing import Any

import h5py

from broadsheet.errors import DataError, UntrustedError

MOST_OBJECTS, DEEPEST = 200_000, 32


def check_file(file: h5py.File, path: str) -> None:
    """Raises where the file reaches outside itself, is nested without end, or is of NWB 1.

    **Raises:** `UntrustedError` for links to other files, data outside the file and virtual datasets over other files;
    `DataError` for the rest. The sentence names the place in the file.
    """
    if "nwb_version" not in file.attrs:
        if "nwb_version" in file:
            version = _text(file["nwb_version"])
            raise DataError(
                f"{path} is of {version or 'NWB 1'}; files of NWB 2 are read (its authors' tools convert older ones)."
            )
        raise DataError(f"{path} is an HDF5 file, but no NWB file: it has no nwb_version.")
    version = str(file.attrs["nwb_version"])
    if not version.startswith("2."):
        raise DataError(f"{path} is of NWB {version[:20]}; files of NWB 2 are read.")
    seen: set[Any] = set()
    waiting: list[tuple[str, h5py.Group, int]] = [("", file["/"], 0)]
    objects = 0
    while waiting:
        place, group, depth = waiting.pop()
        for name in group:
            where = f"{place}/{name}"
            objects += 1
            if objects > MOST_OBJECTS:
                raise DataError(f"{path} holds more than {MOST_OBJECTS} objects; no recording has so many.")
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise UntrustedError(f"{path}: {where} is a link to another file, {link.filename!r}, which is not followed.")
            if isinstance(link, h5py.SoftLink):
                continue
            item = group[name]
            if isinstance(item, h5py.Dataset):
                _check_dataset(item, path, where)
            elif isinstance(item, h5py.Group):
                address = h5py.h5o.get_info(item.id).addr
                if address in seen:
                    continue
                seen.add(address)
                if depth >= DEEPEST:
                    raise DataError(f"{path}: {where} lies more than {DEEPEST} groups deep.")
                waiting.append((where, item, depth + 1))


def _check_dataset(dataset: h5py.Dataset, path: str, where: str) -> None:
    if dataset.external:
        raise UntrustedError(f"{path}: the data of {where} lie in another file, {dataset.external[0][0]!r}, which is not read.")
    if dataset.is_virtual:
        others = [source.file_name for source in dataset.virtual_sources() if source.file_name != "."]
        if others:
            raise UntrustedError(f"{path}: {where} is put together from another file, {others[0]!r}, which is not read.")


def _text(item: Any) -> str:
    """A short text that a dataset holds."""
    if not isinstance(item, h5py.Dataset) or item.size != 1:
        return ""
    value = item[()]
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))[:20]
