"""Rows of a data set, one after the other, whatever it is kept in: files, a folder of the package datasets, a name on the Hub.

Nothing is read whole: JSON Lines and CSV go line by line, Parquet by groups of rows, folders are mapped into memory, and data
sets of the Hub are streamed.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TextIO

from broadsheet.cache import writing
from broadsheet.errors import DataError, InputError, MissingDataError

LONGEST = 2**26
"""Characters that a line may have."""
TOGETHER = 1024
"""Rows of a Parquet file that are read or written at a time."""
HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
LINES, TABLES = (".jsonl", ".json", ".ndjson"), {".csv": ",", ".tsv": "\t"}
Row = dict[str, Any]


def kind_of(source: str | Path) -> str:
    """`lines`, `table`, `parquet`, `folder`, or `hub` for a name that is no path.

    **Raises:** `InputError` for a file of another ending, `MissingDataError` for a path at which nothing is.
    """
    path = Path(source).expanduser()
    endings = [ending for ending in path.suffixes if ending != ".gz"][-1:]
    if path.is_dir():
        return "folder"
    kinds = dict.fromkeys(LINES, "lines") | dict.fromkeys(TABLES, "table") | {".parquet": "parquet"}
    kind = kinds.get(endings[0]) if endings else None
    if not path.exists():
        if kind is None and HUB.fullmatch(str(source)):
            return "hub"
        raise MissingDataError(f"{source}: there is no such file or folder.")
    if kind is None:
        raise InputError(f"{source}: rows are read from .jsonl, .csv, .tsv, .parquet and folders of the package datasets.")
    return kind


def read_rows(source: str | Path, split: str = "train", configuration: str | None = None) -> Iterator[Row]:
    """The rows.

    **Arguments:** `source`: a .jsonl (a JSON object a line), .csv, .tsv (with a header) or .parquet file, all but the last also
    .gz; a folder that `save_to_disk` wrote; or a name on the Hub; `split`, `configuration`: of the latter two.

    **Raises:** `DataError`, with the line, for what is no such file; `MissingDataError` for what is not there.
    """
    kind = kind_of(source)
    if kind in ("folder", "hub"):
        return (dict(row) for row in _data_set(str(source), kind, split, configuration))
    return {"lines": _lines, "table": _table, "parquet": _parquet}[kind](Path(source).expanduser())


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not empty.

    **Raises:** `DataError` for a line that is too long, and for what is no UTF-8 or damaged.
    """
    number = 0
    try:
        with _opened(path) as stream:
            while line := stream.readline(LONGEST):
                number += 1
                if len(line) == LONGEST:
                    raise DataError(f"{path}, line {number}: it is longer than {LONGEST} characters.")
                if line.strip():
                    yield number, line
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}, behind line {number}: it cannot be read ({str(error)[:80]}).") from None


def _lines(path: Path) -> Iterator[Row]:
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: a JSON object a line is wanted.")
        yield row


def _table(path: Path) -> Iterator[Row]:
    between = next(TABLES[ending] for ending in path.suffixes if ending in TABLES)
    reader = csv.DictReader((line for _, line in read_lines(path)), delimiter=between)
    csv.field_size_limit(LONGEST)  # the same for all of the process
    try:
        for row in reader:
            if None in row or None in row.values():
                raise DataError(f"{path}, line {reader.line_num}: it has not as many fields as the header.")
            yield row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from None


@contextlib.contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    """An open Parquet file; raises `DataError` for what is none or is damaged."""
    import pyarrow as arrow
    import pyarrow.parquet

    try:
        with arrow.parquet.ParquetFile(path) as file:
            yield file
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{path} is no Parquet file that can be read ({str(error)[:80]}).") from None


def _parquet(path: Path) -> Iterator[Row]:
    with _parquet_file(path) as file:
        for batch in file.iter_batches(TOGETHER):
            yield from batch.to_pylist()


def _data_set(source: str, kind: str, split: str, configuration: str | None) -> Iterable[Mapping[str, Any]]:
    """The data set of a folder, or as a stream from the Hub."""
    from datasets import DatasetDict, load_dataset, load_from_disk

    from broadsheet.language.hub import hub_or_cache

    try:
        if kind == "hub":
            with hub_or_cache():
                return load_dataset(source, configuration, split=split, streaming=True)
        found = load_from_disk(source)
    except Exception as error:  # the package and what it calls raise a score of different ones
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = "the Hugging Face Hub" if kind == "hub" else "that folder"
        raise MissingDataError(f"The data set {source} cannot be read from {where}: {said[:160]}") from None
    if isinstance(found, DatasetDict):
        if split not in found:
            raise InputError(f"{source} has the splits {', '.join(found)}; {split!r} is none of them.")
        found = found[split]
    return found


def count_rows(source: str | Path, split: str = "train") -> int | None:
    """How many rows there are, where that is known without reading them one by one; of lines, at least as many as there are."""
    kind, path = kind_of(source), Path(source).expanduser()
    if kind == "hub":
        return None
    if kind == "folder":
        return len(_data_set(str(source), kind, split, None))  # type: ignore[arg-type]
    if kind == "parquet":
        with _parquet_file(path) as file:
            return file.metadata.num_rows
    if path.suffix == ".gz":
        return None
    with path.open("rb") as stream:
        return 1 + sum(block.count(b"\n") for block in iter(lambda: stream.read(2**20), b""))


def write_rows(path: str | Path, rows: Iterable[Row], like: str | Path | None = None) -> int:
    """Writes rows to a .jsonl, .csv, .tsv or .parquet file, which is there once all are written; how many there were.

    **Arguments:** `like`: a Parquet file whose types of columns are kept; without, those of the first thousand rows are.

    **Raises:** `InputError` for another ending; `DataError` for a row that does not fit the first ones.
    """
    path = Path(path).expanduser()
    check_written(path)
    counted = _Counted(rows)
    with writing(path) as stream:
        if path.suffix == ".parquet":
            _write_parquet(path, stream, counted, like)
        elif path.suffix == ".jsonl":
            for row in counted:
                stream.write(json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n")
        else:
            _write_table(path, stream, counted)
    return counted.count


def check_written(path: str | Path) -> None:
    """Raises `InputError` where rows could not be written to a file of that ending."""
    if Path(path).suffix not in (".jsonl", ".parquet", *TABLES):
        raise InputError(f"{path}: rows are written as .jsonl, .csv, .tsv or .parquet.")


class _Counted:
    """The same rows, counted as they go."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows, self.count = rows, 0

    def __iter__(self) -> Iterator[Row]:
        for row in self.rows:
            self.count += 1
            yield row


def _write_table(path: Path, stream: IO[bytes], rows: Iterable[Row]) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    made = None
    try:
        for row in rows:
            if made is None:
                made = csv.DictWriter(text, list(row), delimiter=TABLES[path.suffix])
                made.writeheader()
            made.writerow(row)
    except ValueError as error:
        raise DataError(f"{path}: a row does not fit the first one ({str(error)[:80]}).") from None
    finally:
        text.detach()


def _write_parquet(path: Path, stream: IO[bytes], rows: Iterable[Row], like: str | Path | None) -> None:
    import pyarrow as arrow
    import pyarrow.parquet

    made, schema = None, arrow.parquet.read_schema(like) if like is not None else None
    waiting = iter(rows)
    try:
        while (some := list(itertools.islice(waiting, TOGETHER))) or made is None:
            table = arrow.Table.from_pylist(some, schema)
            if made is None:
                schema = table.schema
                made = arrow.parquet.ParquetWriter(stream, schema)
            made.write_table(table)
            if not some:
                break
        made.close()
    except arrow.ArrowException as error:
        raise DataError(f"{path}: a row does not fit the first ones ({str(error)[:80]}).") from None
