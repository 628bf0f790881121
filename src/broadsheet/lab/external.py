"""Claims of any repository: a `claims.toml` beside its code, checked by the same engine, in any language.

[repository]
name = "my-sampler"
title = "A sampler that forgets its start"

[[experiment]]
name = "mixing"
command = "./sample --seed {seed} --out {out}"        # writes {"error": 0.01, …} to {out}
controls = { frozen = "./sample --frozen --seed {seed} --out {out}" }

[[experiment.claim]]
id = "C1"
statement = "the mean is right after 1000 steps"
where = "section 3"
checks = [{ metric = "error", at_most = 0.05 }, { metric = "error", at_least = 0.5, of = "frozen" }]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broadsheet.errors import DataError, InputError
from broadsheet.files import MIB, read_text
from broadsheet.lab.claims import SYSTEM, Check, Claim
from broadsheet.lab.registry import Entry, ExperimentEntry

SENSES = ("at_least", "at_most", "equals")


def load_repository(folder: str | Path) -> Entry:
    """The entry of a folder with a `claims.toml` (or of that file itself).

    **Raises:** `DataError` with the place of the mistake.
    """
    path = Path(folder)
    path = path / "claims.toml" if path.is_dir() else path
    if not path.exists():
        raise InputError(f"{folder} has no claims.toml; 'broadsheet new ARXIV_ID' drafts one.")
    try:
        data = tomllib.loads(read_text(path, MIB))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not valid TOML: {error}.") from None
    about = data.get("repository", {})
    name = _text(about, "name", path, default=path.absolute().parent.name)
    experiments = {}
    for item in _list(data, "experiment", path):
        made = _experiment(item, path)
        if made.name in experiments:
            raise DataError(f"{path}: two experiments are called {made.name!r}.")
        experiments[made.name] = made
    if not experiments:
        raise DataError(f"{path} has no [[experiment]].")
    facts = {
        "slug": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "repository",
        "arxiv": about.get("arxiv", ""),
        "title": _text(about, "title", path, default=name),
        "published": about.get("published", ""),
        "authors": about.get("authors", 0),
        "basis": "code",
        "summary": about.get("summary", ""),
        "code": str(path.parent),
        "topics": [], "parts": [], "requires": [], "notes": [],
    }  # fmt: skip
    return Entry(facts, "", experiments, folder=path.absolute().parent)


def _experiment(item: Mapping[str, Any], path: Path) -> ExperimentEntry:
    name = _text(item, "name", path)
    where = f"{path}, experiment {name!r}"
    command = _text(item, "command", where)
    controls = item.get("controls", {})
    if not isinstance(controls, dict) or not all(isinstance(line, str) for line in controls.values()):
        raise DataError(f'{where}: controls is a table of name = "command".')
    commands = {SYSTEM: command, **controls}
    for line in commands.values():
        if "{out}" not in line:
            raise DataError(f"{where}: the command {line!r} has no {{out}}, the file that it has to write.")
    claims = tuple(_claim(claim, where) for claim in _list(item, "claim", where))
    used = {
        name
        for claim in claims
        for name in (*claim.controls, *(c.of for c in claim.checks), *filter(None, (c.minus for c in claim.checks)))
    }
    if used - set(commands):
        raise DataError(f"{where}: no command is given for the control {', '.join(sorted(used - set(commands)))}.")
    return ExperimentEntry(
        name=name,
        summary=item.get("summary", ""),
        presets={"quick": {}},
        variants={control: {} for control in controls},
        claims=claims,
        deterministic=bool(item.get("deterministic", "{seed}" not in command)),
        exclusive=bool(item.get("exclusive", False)),
        command={
            "commands": commands,
            "folder": str(path.absolute().parent),
            "timeout": float(item.get("timeout", 600)),
        },
    )


def _claim(item: Mapping[str, Any], where: str) -> Claim:
    name = _text(item, "id", where)
    checks = []
    for check in _list(item, "checks", f"{where}, claim {name}"):
        senses = [sense for sense in SENSES if sense in check]
        if len(senses) != 1 or "metric" not in check:
            raise DataError(f"{where}, claim {name}: a check has a metric and one of {', '.join(SENSES)}; got {check}.")
        rest = {key: value for key, value in check.items() if key not in (*SENSES, "metric")}
        try:
            checks.append(Check(check["metric"], senses[0], float(check[senses[0]]), **rest))  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}, claim {name}: {error}.") from None
    try:
        return Claim(
            name, _text(item, "statement", where), item.get("kind", "paper"), tuple(checks), where=item.get("where", ""),
            control=item.get("control"), seeds=int(item.get("seeds", 3)), reason=item.get("reason", ""),
            reference=item.get("reference", ""),
        )  # fmt: skip
    except InputError as error:
        raise DataError(f"{where}: {error}") from None


def _text(table: Mapping[str, Any], key: str, where: Any, default: str | None = None) -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f'{where}: {key} = "…" is missing.')
    return value


def _list(table: Mapping[str, Any], key: str, where: Any) -> list[dict[str, Any]]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{where}: {key} has to be a list of tables.")
    return value
