"""The folders of stages: what each was made from, how it gets in its place, and what tells one from another."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from broadsheet.cache import digest
from broadsheet.errors import DataError, JobError, MissingExtraError
from broadsheet.files import read_json

try:
    from datasets.fingerprint import Hasher
    from safetensors import SafetensorError
    from torch import uint8
except ImportError:
    raise MissingExtraError("Training language models", "language") from None

RECORD = "stage.json"


@dataclass(frozen=True)
class Stage:
    """What became of a stage: its record, and whether it was found or made."""

    name: str
    folder: Path | None
    record: dict[str, Any]
    found: bool


def read_record(folder: Path) -> dict[str, Any] | None:
    """What a stage's folder says of itself, or None.

    **Raises:** `DataError` for a folder of that name that is no stage.
    """
    if not folder.exists():
        return None
    if not (folder / RECORD).is_file():
        raise DataError(f"{folder} is there and is no stage (it has no {RECORD}); move it away.")
    found = read_json(folder / RECORD)
    if not isinstance(found, dict) or "identity" not in found:
        raise DataError(f"{folder / RECORD} is no record of a stage; move the folder away.")
    return found


def settle(scratch: Path, place: Path) -> None:
    """Puts a stage that is whole where it belongs, also where a kill came between; then what was there before goes."""
    whole = scratch / "whole"
    if whole.is_dir():
        if place.exists():
            place.rename(scratch / "before")
        whole.rename(place)
        shutil.rmtree(scratch)


def align(model: Any) -> None:
    """Weights where a new tensor would have them: those of a file begin at any byte, and the last digit of a sum depends on it,
    so that a stage would end otherwise from the model in memory than from its folder."""
    for weights in model.parameters():
        if weights.data_ptr() % 64:
            weights.data = weights.data.clone()


def weights_identity(model: Any, words: Any) -> str:
    """SHA-256 of a model's weights and configuration and of its tokenizer."""
    total = sha256(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for name, weights in model.state_dict().items():
        plain = weights.detach().cpu().contiguous()
        total.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        total.update(plain.flatten().view(uint8).numpy().tobytes())
    total.update(repr((sorted(words.get_vocab().items()), words.chat_template)).encode())
    return total.hexdigest()


def named(of: Any) -> Any:
    """What a function is: the name of a verifier, or its own name with its source and what it holds."""
    if of is None or isinstance(of, str):
        return of
    if is_dataclass(of) and not isinstance(of, type):
        return {"name": type(of).__qualname__} | {
            field.name: value if isinstance(value := getattr(of, field.name), str | int | float) else named(value)
            for field in fields(of)
        }
    kind = of if inspect.isroutine(of) else type(of)
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        source = ""
    try:
        held = Hasher.hash(of)
    except Exception:  # whatever can't be pickled
        held = ""
    return {"name": f"{kind.__module__}.{kind.__qualname__}", "content": digest([source, held])}


@contextmanager
def written(title: str) -> Iterator[None]:
    """A full disk, whoever noticed it, in one sentence."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if not isinstance(error, OSError | SafetensorError) and "PytorchStreamWriter" not in str(error):
            raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise JobError(f"{title} could not be written ({said}); it goes on from its last whole checkpoint.") from error
