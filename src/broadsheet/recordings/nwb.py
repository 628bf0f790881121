"""Sessions from files: NWB 2 (local, or streamed from DANDI), .npz and CSV.

NWB is the field's format (Rübel et al. 2022, eLife 11:e78362); files are read by pynwb. Nothing of a
series is read before it is asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from broadsheet.errors import BroadsheetError, DataError, InputError, MissingExtraError
from broadsheet.files import MIB, existing, limited
from broadsheet.recordings.nwb_writing import write_nwb
from broadsheet.recordings.session_files import read_arrays, read_table
from broadsheet.recordings.sessions import Session

__all__ = ["open_session", "write_nwb"]

OPENING_BYTES, OPENING_SECONDS = 2048 * MIB, 120.0
SIGNATURE = b"\x89HDF\r\n\x1a\n"
REMOTE = ("dandi://", "http://", "https://")


def open_session(source: str | Path, *, mend: bool = False) -> Session:
    """The session of a file.

    **Arguments:** `source`: an NWB 2 file, a .npz, a .csv, `dandi://DANDISET/PATH/OF/ASSET.nwb` (also
    `dandi://DANDISET@VERSION/…`) or the address of an NWB file; the last two are streamed; `mend`: of NWB, spikes are put in
    order, those that come twice, are no numbers or lie outside what was observed are left out, and so are trials without a
    length. Without it they are refused when they are asked for.

    Times are seconds of the session, values those of the file with its conversion and offset applied. What the file holds and
    the session does not is in `unused`. An open NWB session holds its file until `close()`; it is also a context manager.

    **Raises:** `DataError` for files that are damaged or something else, `UntrustedError` for those that reach into
    others, `SourceError` where a server does not answer. What is wrong within a part is raised when that part is asked for.
    """
    text = str(source)
    if text.startswith(REMOTE):
        from broadsheet.recordings.streaming import open_remote

        return _read_nwb(open_remote(text), text, mend, limits=False)
    path = existing(source)
    if path.is_dir():
        zarr = any((path / name).exists() for name in (".zgroup", "zarr.json"))
        raise InputError(f"{path} is a folder; {'NWB in Zarr is not read, only in HDF5' if zarr else 'a file is wanted'}.")
    with path.open("rb") as stream:
        start = stream.read(8)
    if start == SIGNATURE:
        return _read_nwb(path, str(path), mend, limits=True)
    if mend:
        raise InputError(f"{path}: mend is for NWB files.")
    if start[:4] == b"PK\x03\x04" or path.suffix.lower() == ".npz":
        return read_arrays(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return read_table(path)
    raise DataError(f"{path} is no HDF5 file, so no NWB file, and no .npz or .csv either.")


def _read_nwb(source: Any, name: str, mend: bool, limits: bool) -> Session:
    try:
        import h5py
        import pynwb

        from broadsheet.recordings.nwb_checks import check_file
        from broadsheet.recordings.nwb_reading import StoredSession
    except ImportError:
        raise MissingExtraError("Reading NWB", "recordings") from None
    try:
        file = h5py.File(source, "r")
    except OSError as error:
        what = "is truncated" if "truncated" in str(error) else f"cannot be read as HDF5 ({_first(error)})"
        raise DataError(f"{name} {what}.") from None

    def opening() -> Iterator[Any]:
        check_file(file, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pynwb's, of what is checked here in sentences where it is asked for
            io = pynwb.NWBHDF5IO(file=file, mode="r", load_namespaces=True)
            yield StoredSession(name, io.read(), io, file, mend)

    try:
        steps = limited(opening(), memory=OPENING_BYTES, seconds=OPENING_SECONDS) if limits else opening()
        return next(steps)
    except BroadsheetError:
        file.close()
        raise
    except Exception as error:  # whatever pynwb meets in a damaged file
        file.close()
        raise DataError(f"{name} cannot be read as NWB ({_first(error)}).") from None


def _first(error: BaseException) -> str:
    """The first line of what an error says, short."""
    return " ".join((str(error).splitlines() or [""])[0].split())[:120] or type(error).__name__
