"""Rows that come from outside, of an archive or a folder on disk, checked before anything is made of them."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, NoReturn

from sqlalchemy import JSON, Boolean, Column, Float, Integer, LargeBinary, String, Table

from broadsheet.errors import DataError
from broadsheet.lab.messages import JobSpec
from broadsheet.lab.tables import Moment

RUN_ID = re.compile(r"[0-9a-f]{64}")
"""What `identity.run_identity` makes; a folder of `runs/` is called so."""

PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
"""What may be a part of a path: no way up, nothing hidden."""

STATES = ("queued", "running", "cancelling", "done", "failed", "cancelled", "lost")
DEEPEST = 64
"""How deeply JSON values may be nested."""

FACTS: dict[str, type] = {
    "title": str, "arxiv": str, "abstract": str, "authors": int, "names": list, "published": str, "comments": int,
    "upvotes": int, "names_cut": bool,
}  # fmt: skip


def parsed(text: str | bytes) -> Any:
    """A JSON value whose numbers are finite; raises `DataError` for anything else."""

    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is no number of JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is not JSON ({str(error)[:80]})") from None


def checked(table: Table, row: Any) -> dict[str, Any]:
    """A row of JSON values as one of the table, each column of its type; raises `DataError` that names what is wrong."""
    if not isinstance(row, dict):
        raise DataError(f"it is {_kind(row)} where a row is wanted")
    unknown = sorted(set(row) - {column.name for column in table.columns})
    if unknown:
        raise DataError(f"there is no column {unknown[0][:40]!r}")
    made = {}
    for column in table.columns:
        if column.name not in row:
            raise DataError(f"its {column.name} is missing")
        try:
            made[column.name] = _value(column, row[column.name])
        except DataError as error:
            raise DataError(f"its {column.name} is {error}") from None
    _MEANT.get(table.name, lambda _: None)(made)
    return made


def _value(column: Column[Any], value: Any) -> Any:
    """A value of a column; `DataError` says what it is instead."""
    if value is None and column.nullable:
        return None
    kind = column.type
    if isinstance(kind, Moment):
        return _moment(value)
    if isinstance(kind, LargeBinary):
        return _bytes(value)
    if isinstance(kind, JSON):
        if not isinstance(value, dict):
            raise DataError(f"{_kind(value)}, no object")
        _sound(value, DEEPEST)
        return value
    if isinstance(kind, Boolean):
        if not isinstance(value, bool):
            raise DataError(f"{_kind(value)}, neither true nor false")
        return value
    if isinstance(kind, Integer | Float):
        if isinstance(value, bool) or not isinstance(value, int if isinstance(kind, Integer) else (int, float)):
            raise DataError(f"{_kind(value)}, no number" if not isinstance(value, float) else "no whole number")
        if not abs(value) < (2**63 if isinstance(kind, Integer) else math.inf):
            raise DataError("a number too large")
        return value
    if not isinstance(value, str):
        raise DataError(f"{_kind(value)}, no text")
    _sound(value, DEEPEST)
    if isinstance(kind, String) and kind.length is not None and len(value) > kind.length:
        raise DataError(f"a text of {len(value)} characters; {kind.length} are allowed")
    return value


def _moment(value: Any) -> datetime:
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{str(value)[:40]!r}, no time") from None


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise DataError("not bytes in base 64") from None


def _sound(value: Any, depth: int) -> None:
    """Raises `DataError` for text that no database takes, numbers that are none, and what is nested too deeply."""
    if depth < 0:
        raise DataError("nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            _sound(key, 0)
            _sound(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _sound(item, depth - 1)
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise DataError("text with characters that are none")
    elif isinstance(value, float) and not math.isfinite(value):
        raise DataError("a number that is not finite")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _run(row: Mapping[str, Any]) -> None:
    if not RUN_ID.fullmatch(row["id"]):
        raise DataError(f"its id is {row['id'][:80]!r}, which is no run's")
    for arm in row["scalars"].values():
        if not isinstance(arm, dict) or not all(value is None or type(value) in (int, float, bool) for value in arm.values()):
            raise DataError("its scalars are no table of numbers")


def _job(row: Mapping[str, Any]) -> None:
    if row["state"] not in STATES:
        raise DataError(f"its state is {row['state']!r}; {', '.join(STATES)} are known")
    spec = row["spec"]
    JobSpec.from_json(spec)
    texts = [
        spec.get("slug"),
        spec.get("experiment"),
        spec.get("preset", ""),
        spec.get("data") or "",
        *_items(spec, "variants"),
    ]
    if not all(isinstance(text, str) for text in texts) or not isinstance(spec.get("overrides") or {}, dict):
        raise DataError("its spec has something else than texts where names stand")
    if not all(type(seed) is int for seed in _items(spec, "seeds")):
        raise DataError("its seeds are no whole numbers")


def _items(spec: Mapping[str, Any], name: str) -> list[Any]:
    found = spec.get(name) or []
    if not isinstance(found, list):
        raise DataError(f"its {name} are {_kind(found)}, no list")
    return found


def _named(row: Mapping[str, Any]) -> None:
    if not PLAIN.fullmatch(row["slug"]):
        raise DataError(f"its slug is {row['slug'][:80]!r}, which is no short name")


def _sighting(row: Mapping[str, Any]) -> None:
    _named(row)
    for name in ("as_of", "first"):
        _day(row[name], name)
    facts = row["facts"]
    if "title" not in facts:
        raise DataError("its facts have no title")
    for name, value in facts.items():
        if name not in FACTS or type(value) is not FACTS[name]:
            raise DataError(f"its facts have {name[:40]!r} as {_kind(value)}")
    if "published" in facts:
        _day(facts["published"], "date of publication")
    if not all(isinstance(name, str) for name in facts.get("names", ())):
        raise DataError("its names are no list of texts")


def _day(text: str, name: str) -> None:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise DataError(f"its {name} is {text[:40]!r}, no day") from None


def _vector(row: Mapping[str, Any]) -> None:
    _named(row)
    if len(row["value"]) % 2 or not row["value"]:
        raise DataError(f"its value has {len(row['value'])} bytes, which are no numbers of half precision")


_MEANT = {
    "runs": _run,
    "jobs": _job,
    "papers": _named,
    "sightings": _sighting,
    "verifications": _named,
    "vectors": _vector,
}
