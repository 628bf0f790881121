"""Claims of any repository: a `claims.toml` beside its code, checked by the same engine, in any language.

[repository]
name = "my-sampler"
title = "A sampler that forgets its start"

[[experiment]]
name = "mixing"
command = "./sample --seed {seed} --steps {steps} --out {out}"        # writes {"error": 0.01, …} to {out}
ablations = { frozen = "./sample --frozen --seed {seed} --steps {steps} --out {out}" }
nulls = { constant = "./always-the-mean --seed {seed} --out {out}" }
settings = { steps = 1000 }

[[experiment.claim]]
id = "C1"
statement = "the mean is right after 1000 steps"
where = "section 3"
grows = "steps"
checks = [{ metric = "error", at_most = 0.05 }, { metric = "error", at_least = 0.5, of = "frozen" }]
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from broadsheet.errors import DataError, InputError
from broadsheet.files import MIB, read_text
from broadsheet.lab.claims import NONE_YET, SYSTEM, Check, Claim
from broadsheet.lab.location import leads_out
from broadsheet.lab.registry import Entry, ExperimentEntry
from broadsheet.lab.schema import PLAIN, Field

SENSES = ("at_least", "at_most", "equals")
TOP = ("repository", "experiment")
ABOUT = ("name", "arxiv", "title", "published", "authors", "summary")
EXPERIMENT = (
    "name", "summary", "command", "ablations", "nulls", "settings", "deterministic", "exclusive", "timeout", "claim",
)  # fmt: skip
OPTIONS = ("no_ablation", "no_null", "about", "grows", "answers_to", "seeds", "reason", "reference", "published")
CLAIM = ("id", "statement", "kind", "where", "checks", "ablation", "null", *OPTIONS)
DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){32}""")
LONGEST = 30 * 24 * 3600
"""Seconds that a command may have at the most."""

CHECK = ("metric", *SENSES, "tol", "of", "minus", "over", "count", "within", "chance")


def load_repository(folder: str | Path) -> Entry:
    """The entry of a folder with a `claims.toml` (or of that file itself).

    **Raises:** `DataError` with the place of the mistake.
    """
    path = Path(folder)
    path = path / "claims.toml" if path.is_dir() else path
    if not path.exists():
        raise InputError(f"{folder} has no claims.toml; 'broadsheet new ARXIV_ID' drafts one.")
    if leads_out(path, path.parent):
        raise DataError(f"{path} is a link out of its repository; put the file itself there.")
    try:
        text = read_text(path, MIB)
        if DEEP_KEY.search(text):  # for which the time to read it grows with the square of its length
            raise RecursionError
        data = tomllib.loads(text)
        return _repository(data, path)
    except RecursionError:
        raise DataError(f"{path} is nested too deeply for claims.") from None
    except ValueError as error:
        raise DataError(f"{path} is not valid TOML: {str(error)[:200]}.") from None


def _repository(data: Mapping[str, Any], path: Path) -> Entry:
    _only(data, TOP, path)
    about = data.get("repository", {})
    _only(about, ABOUT, f"{path}, [repository]")
    for key in ("arxiv", "published", "summary"):
        if not isinstance(about.get(key, ""), str):
            raise DataError(f'{path}, [repository]: {key} = "…" is text; got {about[key]}.')
    if type(about.get("authors", 0)) is not int:
        raise DataError(f"{path}, [repository]: authors is their number.")
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
        "basis": "repository",
        "summary": about.get("summary", ""),
        "code": str(path.parent),
        "topics": [], "parts": [], "requires": [], "notes": [],
    }  # fmt: skip
    return Entry(facts, "", experiments, folder=path.absolute().parent)


def _experiment(item: Mapping[str, Any], path: Path) -> ExperimentEntry:
    name = _text(item, "name", path)
    where = f"{path}, experiment {name!r}"
    item = _renamed(item, where)
    _only(item, EXPERIMENT, where)
    command = _text(item, "command", where)
    ablations, nulls = (_commands(item, key, where) for key in ("ablations", "nulls"))
    commands = {SYSTEM: command, **ablations, **nulls}
    if len(commands) < 1 + len(ablations) + len(nulls):
        raise DataError(f"{where}: two commands have one name, or that of the system.")
    settings = _settings(item, where)
    for line in commands.values():
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise DataError(f"{where}: the command {line!r} is no line of a shell ({str(error).lower()}).") from None
        if "\0" in line or not words:
            raise DataError(f"{where}: the command {line!r} names no program.")
        if "{out}" not in line:
            raise DataError(f"{where}: the command {line!r} has no {{out}}, the file that it has to write.")
        for word in re.findall(r"\{(\w+)\}", line):
            if word not in ("seed", "out", *settings):
                raise DataError(f"{where}: the command {line!r} has {{{word}}}, which its settings do not give.")
    claims = tuple(_claim(claim, where, ablations, nulls) for claim in _list(item, "claim", where))
    for claim in claims:
        unknown = set(claim.needs()) - set(commands)
        if unknown:
            raise DataError(f"{where}: no command is given for {', '.join(sorted(unknown))}.")
        if claim.grows and f"{{{claim.grows}}}" not in command:
            raise DataError(f"{where}, claim {claim.id} grows with {claim.grows!r}, which the command does not take.")
    return ExperimentEntry(
        name=name,
        summary=_text(item, "summary", where) if "summary" in item else "",
        presets={"quick": settings},
        variants={control: {} for control in (*ablations, *nulls)},
        claims=claims,
        fields=tuple(Field(name, PLAIN[type(value)], default=value) for name, value in settings.items()),
        deterministic=_truth(item, "deterministic", where, "{seed}" not in command),
        exclusive=_truth(item, "exclusive", where, False),
        command={
            "commands": commands,
            "folder": str(path.absolute().parent),
            "timeout": _seconds(item, where),
            **({"settings": settings} if settings else {}),
        },
    )


def _renamed(item: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """An experiment whose `controls` are called so, from before null models had a name of their own: they are ablations, and a
    null model is none yet."""
    if "controls" not in item:
        return item
    if {"ablations", "nulls"} & item.keys():
        raise DataError(f"{where}: controls is an older name of ablations; say each under ablations or nulls.")
    claims = [
        {"null": NONE_YET, **{"ablation" if key == "control" else key: value for key, value in claim.items()}}
        for claim in _list(item, "claim", where)
    ]
    return {"ablations": item["controls"], **{key: value for key, value in item.items() if key != "controls"}, "claim": claims}


def _truth(item: Mapping[str, Any], key: str, where: str, default: bool) -> bool:
    found = item.get(key, default)
    if not isinstance(found, bool):
        raise DataError(f"{where}: {key} is true or false; got {found!r}.")
    return found


def _seconds(item: Mapping[str, Any], where: str) -> float:
    """The time that a command has."""
    found = item.get("timeout", 600)
    if type(found) not in (int, float) or not 0 < found <= LONGEST:
        raise DataError(f"{where}: timeout is a number of seconds up to {LONGEST}; got {str(found)[:40]!r}.")
    return float(found)


def _commands(item: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    found = item.get(key, {})
    if not isinstance(found, dict) or not all(isinstance(line, str) for line in found.values()):
        raise DataError(f'{where}: {key} is a table of name = "command".')
    return found


def _settings(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of the commands' placeholders where nobody asks for others."""
    found = item.get("settings", {})
    if not isinstance(found, dict) or not all(type(value) in PLAIN for value in found.values()):
        raise DataError(f"{where}: settings is a table of name = number, text, true or false.")
    taken = set(found) & {"seed", "out"}
    if taken:
        raise DataError(f"{where}: {', '.join(sorted(taken))} cannot be a setting; it is given anyway.")
    return found


def _claim(item: Mapping[str, Any], where: str, ablations: Iterable[str], nulls: Iterable[str]) -> Claim:
    """A claim; where it names no controls, all of its experiment's are tried on it."""
    name = _text(item, "id", where)
    place = f"{where}, claim {name}"
    _only(item, CLAIM, place)
    checks = [_check(check, place) for check in _list(item, "checks", place)]
    rest = {key: item[key] for key in OPTIONS if key in item}
    for key, found in (("ablation", ablations), ("null", nulls)):
        if key in item:
            rest[key] = item[key]
        elif f"no_{key}" not in item:
            rest[key] = tuple(found)
    try:
        return Claim(
            name, _text(item, "statement", place), item.get("kind", "paper"), checks, where=item.get("where", ""), **rest
        )  # fmt: skip
    except DataError:
        raise
    except InputError as error:
        raise DataError(f"{where}: {str(error).replace('NONE_YET', repr(NONE_YET))}") from None
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: {error}.") from None


def _check(item: Mapping[str, Any], place: str) -> Check:
    _only(item, CHECK, f"{place}, a check")
    senses = [sense for sense in SENSES if sense in item]
    if len(senses) != 1 or "metric" not in item:
        raise DataError(f"{place}: a check has a metric and one of {', '.join(SENSES)}; got {dict(item)}.")
    rest = {key: value for key, value in item.items() if key not in (*SENSES, "metric")}
    try:
        return Check(item["metric"], senses[0], float(item[senses[0]]), **rest)  # type: ignore[arg-type]
    except InputError as error:
        raise DataError(f"{place}: {error}") from None
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: {error}.") from None


def _only(table: Mapping[str, Any], known: Iterable[str], where: Any) -> None:
    """Raises `DataError` for a key that nothing would be made of."""
    if not isinstance(table, Mapping):
        raise DataError(f"{where} has to be a table.")
    unknown = [key for key in table if key not in known]
    if unknown:
        raise DataError(f"{where}: there is no key {', '.join(map(repr, unknown))}; there are {', '.join(known)}.")


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
