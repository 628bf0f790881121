"""Files and fixtures that are made once: found by name and parameters, checked by checksum, written whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any


def home() -> Path:
    """The folder where everything is kept: `BROADSHEET_HOME`, else the platform's folder for user data."""
    given = os.environ.get("BROADSHEET_HOME")
    if given:
        return Path(given).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("broadsheet", appauthor=False))


def digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def checksum(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files of a folder."""
    total = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            total.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def _part(path: Path) -> tuple[int, str]:
    """A new file beside `path`, held until it is closed, by whatever."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        if _lock(handle) is not False and os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # another process looked through what is left just now, and removed it


def _lock(handle: int) -> bool | None:
    """Holds an open file; False where another process does, None where the system or the disk cannot say."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A stream into a file that appears when the block has ended well: a reader sees the old content or the new one, never a
    part. What a process that was killed in the middle left beside it goes with the next writing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.part"):
        with contextlib.suppress(OSError), left.open("rb") as stream:
            if _lock(stream.fileno()):
                left.unlink()
    handle, name = _part(path)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)  # while it is held: else others could take it for what a killed process left
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def write_atomic(path: Path, content: bytes | str) -> Path:
    """Writes a whole file, as `writing` does."""
    with writing(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`; other processes wait. The system frees the lock of a killed process."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def fixture(name: str, parameters: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder that `build(folder)` fills, made once for each name and parameters.

    The folder is built beside its place and renamed, under a lock, so that two processes build it once and a killed one
    leaves nothing behind that looks finished. Its checksum is verified when it is found; a damaged one is built again.

    **Arguments:** `name`: a plain name; `parameters`: JSON values that decide the content (seed, sizes, version).
    """
    root = home() / "cache" / name
    place = root / digest(dict(parameters))[:20]
    with locked(root / f"{place.name}.lock"):
        manifest = root / f"{place.name}.json"
        if place.is_dir() and manifest.is_file():
            if json.loads(manifest.read_text())["checksum"] == checksum(place):
                return place
            shutil.rmtree(place)
        scratch = root / f".building-{place.name}"
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        scratch.mkdir()
        try:
            build(scratch)
            shutil.rmtree(place, ignore_errors=True)
            os.replace(scratch, place)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        write_atomic(manifest, json.dumps({"parameters": dict(parameters), "checksum": checksum(place)}))
    return place


@contextlib.contextmanager
def unfinished(name: str, parameters: Mapping[str, Any]) -> Iterator[Path]:
    """A folder for the parts of a long work, which is there again when the same work begins anew after an interruption, and
    goes when the block has ended well. Write into it by `writing`; while one process holds it, others wait.

    **Arguments:** as of `fixture`: JSON values that decide what the parts are.
    """
    folder = home() / "cache" / f"{name}-unfinished" / digest(dict(parameters))[:20]
    with locked(folder.with_suffix(".lock")):
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
