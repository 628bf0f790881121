"""Text as bytes for language models: Python's own documentation, enwik8, WikiText-103; and what an n-gram makes of it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from broadsheet.errors import DataError, InputError, MissingDataError

VOCABULARY = 256
ENWIK8 = 100_000_000
"""Bytes of enwik8; by custom the first 90 % train, 5 % validate and 5 % test."""


def python_documentation() -> tuple[np.ndarray, np.ndarray]:
    """Bytes to train on and to test on: the language reference that comes with every Python, every tenth topic held out.

    **Raises:** `MissingDataError` for a Python that was installed without it.
    """
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise MissingDataError("This Python has no pydoc_data, its documentation; give a file of text with data=…") from None
    names = sorted(topics)
    held = names[4::10]
    parts = ["\n".join(topics[name] for name in names if (name in held) == test) for test in (False, True)]
    return _bytes(parts[0].encode()), _bytes(parts[1].encode())


def read_bytes_split(path: str | Path, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Bytes to train on and to test on, `most` to train on at most.

    **Arguments:** `path`: a file, of which the last 5 % test and the 5 % before them are left for validation, as is the custom
    with enwik8 (unzip enwik8.zip first); or a folder of WikiText-103, as its archive has it (`wiki.train.tokens` or `.raw`,
    `wiki.test.…`) or as the Hub has it (`train-….parquet`, `test-….parquet`; needs the package pyarrow).

    **Raises:** `MissingDataError` where nothing is there, `DataError` for a zip or less text than a test takes.
    """
    found = Path(path).expanduser()
    if found.is_dir():
        train, test = (_wikitext(found, part, limit) for part, limit in (("train", most), ("test", None)))
    elif found.is_file():
        data = np.memmap(found, np.uint8, "r") if found.stat().st_size else np.zeros(0, np.uint8)
        if bytes(data[:4]) == b"PK\x03\x04":
            raise DataError(f"{found} is a zip; unpack it first.")
        train, test = data[: int(0.9 * len(data))][:most], data[int(0.95 * len(data)) :]
    else:
        raise MissingDataError(
            f"{found} is not there; enwik8 (mattmahoney.net/dc/enwik8.zip, unpacked) or a folder of WikiText-103 is wanted."
        )
    if len(train) < 1000 or len(test) < 100:
        raise DataError(f"{found} holds {len(train)} bytes to train on and {len(test)} to test on; 1000 and 100 are wanted.")
    return np.asarray(train), np.asarray(test)


def _wikitext(folder: Path, part: str, most: int | None) -> np.ndarray:
    for ending in ("tokens", "raw"):
        if (file := folder / f"wiki.{part}.{ending}").is_file():
            return np.asarray(np.memmap(file, np.uint8, "r")[:most])
    files = sorted(folder.glob(f"{part}-*.parquet"))
    if not files:
        raise MissingDataError(f"{folder} holds neither wiki.{part}.tokens nor {part}-….parquet of WikiText-103.")
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingDataError(f"{files[0]} is read with the package pyarrow (pip install pyarrow).") from None
    parts, size = [], 0
    try:
        for file in files:
            for batch in parquet.ParquetFile(file).iter_batches(columns=["text"]):
                parts.append("".join(filter(None, batch.column(0).to_pylist())).encode())
                size += len(parts[-1])
                if most is not None and size >= most:
                    return _bytes(b"".join(parts))[:most]
    except (ArrowException, OSError, TypeError) as error:
        raise DataError(f"{folder} is no WikiText-103 ({str(error).splitlines()[0][:80]}).") from None
    return _bytes(b"".join(parts))


def _bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


def windows(text: np.ndarray, size: int, length: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Without end, batches (size, length) of pieces at random places of a text."""
    while True:
        starts = rng.integers(0, len(text) - length + 1, (size, 1))
        yield text[starts + np.arange(length)].astype(np.int32)


def pieces(text: np.ndarray, length: int, count: int) -> np.ndarray:
    """`count` pieces (count, length), evenly spread over a text; raises `InputError` where the text is shorter than one."""
    if len(text) < length:
        raise InputError(f"A text of {len(text)} tokens is shorter than a piece of {length}.")
    starts = np.linspace(0, len(text) - length, count).astype(int)
    return text[starts[:, None] + np.arange(length)].astype(np.int32)


class ByteNGram:
    """Interpolated n-grams of bytes (Witten and Bell, 1991): each order backs off by how many kinds of bytes it has seen.

    **Arguments:** `order`: bytes of context at most, 7 or fewer.
    """

    def __init__(self, text: np.ndarray, order: int = 5) -> None:
        if not 0 <= order <= 7:
            raise InputError(f"order = {order}; 0 to 7 bytes of context fit.")
        if len(text) <= order:
            raise InputError(f"A text of {len(text)} bytes holds no context of {order}.")
        self.order, self._tables = order, []
        for n in range(order + 1):
            grams, counts = np.unique(_codes(text, n + 1), return_counts=True)
            contexts, first = np.unique(grams >> np.uint64(8), return_index=True)
            kinds = np.diff([*first, len(grams)])
            self._tables.append((grams, counts, contexts, np.add.reduceat(counts, first), kinds))

    def bits(self, tokens: np.ndarray) -> float:
        """Bits a byte of rows (rows, time), each byte but the first of a row predicted from those before it in the row."""
        rows = np.asarray(tokens, np.uint8)
        chance = np.full((len(rows), rows.shape[1] - 1), 1 / VOCABULARY)
        for n, (grams, counts, contexts, totals, kinds) in enumerate(self._tables):
            codes = np.stack([_codes(row, n + 1) for row in rows])[:, 1 if n == 0 else 0 :]
            if codes.shape[1] == 0:
                break
            seen, total, types = (_look_up(contexts, values, codes >> np.uint64(8)) for values in (totals, totals, kinds))
            longer = (_look_up(grams, counts, codes) + types * chance[:, max(n - 1, 0) :]) / np.maximum(total + types, 1)
            chance[:, max(n - 1, 0) :] = np.where(seen > 0, longer, chance[:, max(n - 1, 0) :])
        return float(-np.log2(chance).mean())


def _codes(text: np.ndarray, length: int) -> np.ndarray:
    """Each run of `length` bytes as one number, the last byte lowest."""
    total = np.zeros(len(text) - length + 1, np.uint64)
    for k in range(length):
        total = (total << np.uint64(8)) | text[k : len(text) - length + 1 + k].astype(np.uint64)
    return total


def _look_up(known: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values of what is known, 0 for the rest."""
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[places] == wanted, values[places], 0)
