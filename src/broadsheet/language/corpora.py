"""Texts to calibrate and to test language models with: from files, or by their names on the Hugging Face Hub."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.files import MIB, read_text

NAMES = {
    "c4": ("allenai/c4", "en"),
    "wikitext-2": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
}
"""What the Hub calls them: data set and configuration."""
LONGEST = 2**24
"""Characters that a line of a file may have."""


def read_corpus(name: str, split: str = "train", *, most: int | None = None) -> list[str]:
    """Texts of a corpus, `most` at most. WikiText, whose rows are lines of articles, comes as one text.

    **Arguments:** `name`: one of `NAMES`, read with the package datasets as a stream; or a file: a .txt, which is one text, or
    lines of JSON with a field `text` (.jsonl, .json, also .gz), as C4 is kept; `split`: of a name.

    **Raises:** `MissingDataError` without the package or the network, `DataError` for a file of another form.
    """
    if name in NAMES:
        rows = _from_hub(name, split)
        return ["\n\n".join(rows)] if name == "wikitext-2" else list(itertools.islice(rows, most))
    path = Path(name)
    if not path.is_file():
        raise MissingDataError(f"{name} is no corpus: {', '.join(NAMES)}, or a .txt or .jsonl file is wanted.")
    if path.suffix == ".txt":
        return [read_text(path, 1024 * MIB)]
    if set(path.suffixes) & {".jsonl", ".json"}:
        return list(itertools.islice(_from_lines(path), most))
    raise InputError(f"{name}: a .txt, .jsonl or .json.gz file is wanted.")


def _from_hub(name: str, split: str) -> Iterator[str]:
    """Texts as they come."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise MissingDataError(
            f"The corpus {name} is read with the package datasets (pip install datasets); a .txt or .jsonl file does as well."
        ) from None
    place, kind = NAMES[name]
    try:
        rows: Iterable[Any] = load_dataset(place, kind, split=split, streaming=True)
        for row in rows:
            yield row["text"]
    except (OSError, ValueError, KeyError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MissingDataError(f"The corpus {name} cannot be read from {place}: {said}") from None


def _from_lines(path: Path) -> Iterator[str]:
    """The field `text` of each line."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as stream:
            for number in itertools.count(1):
                line = stream.readline(LONGEST)
                if not line:
                    return
                if len(line) == LONGEST:
                    raise DataError(f"{path}, line {number}: it is longer than {LONGEST} characters.")
                if line.strip():
                    yield _text(path, number, line)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({str(error)[:80]}).") from None


def _text(path: Path, number: int, line: str) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{path}, line {number}: it is no JSON.") from None
    if not isinstance(found, dict) or not isinstance(found.get("text"), str):
        raise DataError(f"{path}, line {number}: an object with a field 'text' is wanted.")
    return found["text"]
