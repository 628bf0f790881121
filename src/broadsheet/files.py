"""Reading files that are not trusted: sizes are limited, nothing in them is executed, nothing is written outside."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import signal
import struct
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from broadsheet.errors import DataError, InputError, UntrustedError

MIB = 1024 * 1024
Read = TypeVar("Read")
PICKLE_OPCODES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def existing(path: str | Path) -> Path:
    """`path` as a Path; raises `InputError` where nothing is there."""
    found = Path(path).expanduser()
    if not found.exists():
        raise InputError(f"{found}: there is no such file or folder.")
    return found


def natural(name: str) -> tuple[list[Any], str]:
    """A key that sorts names as people count, img2 before img10; names that count the same go by their letters."""
    parts = re.split("([0-9]+)", name)
    parts[1::2] = [digits.lstrip("0") for digits in parts[1::2]]
    return [(len(part), part) if k % 2 else part for k, part in enumerate(parts)], name


def read_bytes(path: str | Path, max_bytes: int) -> bytes:
    """The file's bytes; raises `DataError` where there are more than `max_bytes`."""
    path = existing(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; a file is wanted.")
    size = path.stat().st_size
    if size > max_bytes:
        raise DataError(f"{path} has {size / MIB:.1f} MiB; at most {max_bytes / MIB:g} MiB are read.")
    return path.read_bytes()


def read_text(path: str | Path, max_bytes: int = 8 * MIB) -> str:
    """The file's text, strictly UTF-8 (a byte order mark is allowed), without control characters."""
    raw = read_bytes(path, max_bytes)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start} is {raw[error.start]:#04x}); save it again as UTF-8."
        ) from None
    if any(ord(char) < 32 and char not in "\t\n\r\f" for char in text):
        raise DataError(f"{path} is not text: it holds control characters.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path, max_bytes: int = 64 * MIB) -> Any:
    """The JSON value in the file; raises `DataError` where it is not JSON or is nested too deeply."""
    try:
        return json.loads(read_text(path, max_bytes))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({str(error)[:80]}).") from None


def _npy_header(stream: Any, name: str, size_limit: int) -> int:
    """Checks the header of one .npy stream and returns the number of bytes that its array has."""
    import numpy as np

    try:
        version = np.lib.format.read_magic(stream)
        header_bytes = stream.read(2 if version == (1, 0) else 4)
        (length,) = struct.unpack("<H" if version == (1, 0) else "<I", header_bytes)
    except (ValueError, struct.error) as error:
        raise DataError(f"{name} is not a NumPy array ({error}).") from None
    if length > MIB:
        raise DataError(f"{name}: its header claims {length / MIB:.0f} MiB; a NumPy header has a few hundred bytes.")
    header = stream.read(length)
    try:
        fields = ast.literal_eval(header.decode("latin1"))
        dtype, shape = np.dtype(fields["descr"]), tuple(int(n) for n in fields["shape"])
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError):
        raise DataError(f"{name}: its header cannot be read.") from None
    if dtype.hasobject:
        raise UntrustedError(f"{name} holds Python objects, which could run code; only arrays of numbers are read.")
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    if size > size_limit or size < 0:
        raise DataError(f"{name} claims an array of {size / MIB:.0f} MiB; at most {size_limit / MIB:g} MiB are read.")
    return size


def load_arrays(path: str | Path, max_bytes: int = 2048 * MIB) -> dict[str, Any]:
    """The arrays of a .npz, .npy or .safetensors file, by name (`""` for .npy).

    The headers are checked before anything is allocated: sizes are limited, object arrays and pickles are refused.

    **Raises:** `UntrustedError` for objects and pickles, `DataError` for anything damaged or too large.
    """
    import numpy as np

    path = existing(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; a .npz, .npy or .safetensors file is wanted.")
    with path.open("rb") as stream:
        start = stream.read(9)
    if path.suffix == ".safetensors" and start[8:] == b"{":  # before it a length, which can be a pickle's first bytes
        return _load_safetensors(path, start[:8], max_bytes)
    if start[:2] in PICKLE_OPCODES:
        raise UntrustedError(f"{path} is a Python pickle, which could run code; save arrays as .npz or .safetensors.")
    if path.suffix == ".safetensors":
        raise DataError(f"{path} is not a safetensors file: no header begins behind its length.")
    if start[:6] == b"\x93NUMPY":
        with path.open("rb") as stream:
            size = _npy_header(stream, str(path), max_bytes)
            if path.stat().st_size < size:
                raise DataError(f"{path} is truncated: its header claims {size} bytes.")
        return {"": np.load(path, allow_pickle=False)}
    if start[:4] != b"PK\x03\x04":
        raise DataError(f"{path} is not a .npz, .npy or .safetensors file.")
    try:
        with zipfile.ZipFile(path) as archive:
            for member in safe_members(archive, path, max_bytes):
                if not member.filename.endswith(".npy"):
                    raise DataError(f"{path} holds {member.filename!r}, which is no array.")
                with archive.open(member) as inner:
                    if _npy_header(inner, f"{path}:{member.filename}", max_bytes) > member.file_size:
                        raise DataError(f"{path}:{member.filename} is truncated.")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is damaged ({error}).") from None


def _load_safetensors(path: Path, start: bytes, max_bytes: int) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    size = path.stat().st_size
    header = int.from_bytes(start, "little")
    if size > max_bytes or header > min(size, 100 * MIB):
        raise DataError(f"{path}: its header claims {header / MIB:.0f} MiB in a file of {size / MIB:.1f} MiB.")
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise DataError(f"{path} is not a safetensors file ({error}).") from None


def safe_members(archive: zipfile.ZipFile, path: Path, max_bytes: int) -> Iterator[zipfile.ZipInfo]:
    """The archive's members, after a check that none leaves its folder and that together they stay in the limit."""
    members = archive.infolist()
    if sum(member.file_size for member in members) > max_bytes or len(members) > 100_000:
        raise DataError(f"{path} unpacks to more than {max_bytes / MIB:g} MiB.")
    for member in members:
        parts = Path(member.filename.replace("\\", "/")).parts
        if ".." in parts or Path(member.filename).is_absolute() or ":" in member.filename[:2]:
            raise UntrustedError(f"{path} holds {member.filename!r}, which would be written outside its folder.")
    yield from members


def unpack(path: str | Path, folder: str | Path, max_bytes: int = 4096 * MIB) -> Path:
    """Unpacks a .zip or .tar archive into `folder` and nowhere else; links and devices are refused.

    **Raises:** `UntrustedError` where a member would leave the folder, `DataError` where the archive is damaged or large.
    """
    path, folder = existing(path), Path(folder)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = list(safe_members(archive, path, max_bytes))
            folder.mkdir(parents=True, exist_ok=True)
            for member in members:
                archive.extract(member, folder)
        return folder
    try:
        with tarfile.open(path) as tar:
            entries = tar.getmembers()
            if sum(entry.size for entry in entries) > max_bytes:
                raise DataError(f"{path} unpacks to more than {max_bytes / MIB:g} MiB.")
            folder.mkdir(parents=True, exist_ok=True)
            tar.extractall(folder, members=entries, filter="data")
    except tarfile.FilterError as error:
        raise UntrustedError(f"{path} is refused: {error}.") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path} is not a .zip or .tar archive ({error}).") from None
    return folder


def trusted() -> bool:
    """Whether the user said that the files of this run are trusted (`--trust`)."""
    return os.environ.get("BROADSHEET_TRUST") == "1"


def load_pickle(path: str | Path) -> Any:
    """The object of a Python pickle, which may run any code: only where the user said so with `--trust`.

    **Raises:** `UntrustedError` without that.
    """
    path = existing(path)
    if not trusted():
        raise UntrustedError(f"{path} is a Python pickle, which can run any code; pass --trust if you trust who made it.")
    import pickle

    try:
        with path.open("rb") as stream:
            return pickle.load(stream, encoding="latin1")
    except Exception as error:
        raise DataError(f"{path} is not a pickle that can be read here ({error}).") from None


def limited(steps: Iterator[Read], *, memory: int, seconds: float) -> Iterator[Read]:
    """The same, for readers that believe what a file says of its sizes: each step has limits.

    **Arguments:** `memory`: bytes that a step may take beyond what is taken, where the system can limit them.

    **Raises:** `MemoryError`; `RuntimeError` for a step that takes more than `seconds`, in the main thread, where a signal can
    stop it.
    """
    while True:
        with _less_memory(memory), _stopped_after(seconds):
            found = next(steps, None)
        if found is None:
            return
        yield found


@contextlib.contextmanager
def _less_memory(more: int) -> Iterator[None]:
    """At most so many bytes more than now, where the system says how many those are."""
    try:
        import resource

        now = re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())
    except (ImportError, OSError):
        now = None
    if now is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = 1024 * int(now[1]) + more
    if soft != resource.RLIM_INFINITY and soft <= wanted:
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextlib.contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """Also where another timer runs, which goes on afterwards; one that ends before this would is left alone."""
    other, begun = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()
    if threading.current_thread() is not threading.main_thread() or 0 < other < seconds:
        yield
        return

    def stop(*_: Any) -> None:
        raise RuntimeError(f"it takes longer than {seconds:.0f} s, far too long for a file of its size")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if other:
            signal.setitimer(signal.ITIMER_REAL, max(other - (time.monotonic() - begun), 0.001))
