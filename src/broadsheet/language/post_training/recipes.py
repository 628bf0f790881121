"""Recipes: post-training written down as a TOML file, read whole before anything is trained.

model = "tiny-model"                # a folder, or a name on the Hugging Face Hub
folder = "trained"                  # for the stages; paths are from the recipe's folder
tracker = "trackio"                 # tensorboard, wandb, none; by default trackio where it is installed

[stages.sft]                        # stages in their order; a stage of another name says its kind
data = "chats.jsonl"
steps = 400
rate = 3e-3

[stages.rlvr]
data = "sums.jsonl"
columns = { prompt = "question", label = "answer" }
chat = true                         # texts become turns of a user and an assistant
verifier = "gsm8k"

[evaluation]                        # after each stage
suite = "suite.jsonl"
samples = 8
k = [1, 8]
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from broadsheet.errors import DataError, InputError
from broadsheet.files import read_text
from broadsheet.language.post_training.settings import DPOSettings, RLSettings, SFTSettings, TrainingSettings
from broadsheet.language.verifiers import verifier_of

SETTINGS: dict[str, type[TrainingSettings]] = {"sft": SFTSettings, "dpo": DPOSettings, "rlvr": RLSettings}
DATA = {"kind": str, "data": str, "split": str, "columns": dict, "chat": bool}
OWN: dict[str, dict[str, Any]] = {
    "sft": DATA,
    "dpo": DATA | {"verifier": str, "samples": int, "answer_tokens": int, "temperature": float},
    "rlvr": DATA | {"verifier": str, "worth": float},
}
"""Keys of a stage's table beside its settings."""
EVALUATION = {"suite": str, "samples": int, "k": list, "temperature": float, "tokens": int, "unseen": bool, "seed": int}
KINDS = {str: "a text", dict: "a table", bool: "true or false", int: "a whole number", float: "a number", list: "a list"}
TRACKERS = ("trackio", "tensorboard", "wandb", "none")


@dataclass(frozen=True)
class StageRecipe:
    """A stage as a recipe has it.

    **Arguments:** `data`: a file, a folder or a name on the Hub; `options`: what else its table says (`verifier`, `worth`, …).
    """

    name: str
    kind: str
    data: str
    settings: TrainingSettings
    split: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    chat: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A recipe, its paths absolute."""

    model: str
    stages: tuple[StageRecipe, ...]
    folder: Path
    tracker: str | None = None
    evaluation: dict[str, Any] = field(default_factory=dict)


def read_recipe(file: str | Path) -> Recipe:
    """The recipe in a TOML file.

    **Raises:** `InputError`, which names the table and the key, for a key that there is not, one that is missing and a value of
    another kind; `DataError` for a file that is no TOML.
    """
    file = Path(file)
    try:
        found = tomllib.loads(read_text(file))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{file} is no TOML: {error}.") from None
    top = {"model": str, "folder": str, "tracker": str, "stages": dict, "evaluation": dict}
    _check(found, top, f"{file}", ("model", "folder", "stages"))
    if found.get("tracker", "none") not in TRACKERS:
        raise InputError(f"{file}: tracker is {found['tracker']!r}; one of {', '.join(TRACKERS)} is wanted.")
    if not found["stages"]:
        raise InputError(f"{file}: [stages] is empty; a table [stages.sft], [stages.dpo] or [stages.rlvr] is wanted.")
    stages = tuple(_stage(f"{file}: [stages.{name}]", name, table, file.parent) for name, table in found["stages"].items())
    return Recipe(
        _here(found["model"], file.parent),
        stages,
        (file.parent / Path(found["folder"]).expanduser()).absolute(),
        found.get("tracker"),
        _evaluation(f"{file}: [evaluation]", found["evaluation"], file.parent) if "evaluation" in found else {},
    )


def _stage(where: str, name: str, table: Any, folder: Path) -> StageRecipe:
    if not isinstance(table, dict):
        raise InputError(f"{where} is {table!r}; a table is wanted.")
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"{where}: a stage's name has letters, digits, - and _ alone.")
    kind = table.get("kind", name)
    if kind not in SETTINGS:
        raise InputError(f"{where}: the kind of stage is {kind!r}; one of {', '.join(SETTINGS)} is wanted (kind = …).")
    ours = set(OWN[kind]) - {field.name for field in fields(SETTINGS[kind])}
    known = dict.fromkeys(field.name for field in fields(SETTINGS[kind])) | OWN[kind]
    _check(table, known, where, ("data",))
    columns = table.get("columns", {})
    if wrong := [ours for ours, theirs in columns.items() if not isinstance(theirs, str)]:
        raise InputError(f"{where}: columns.{wrong[0]} is {columns[wrong[0]]!r}; the name of a column is wanted.")
    if "verifier" in table:
        try:
            verifier_of(table["verifier"])
        except InputError as error:
            raise InputError(f"{where}: verifier: {error}") from None
    if kind == "dpo" and "verifier" not in table and (more := sorted({"samples", "answer_tokens", "temperature"} & set(table))):
        raise InputError(f"{where}: {more[0]} is of answers that a verifier rates; verifier is missing.")
    try:
        settings = SETTINGS[kind].read({key: value for key, value in table.items() if key not in ours}, where)
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    return StageRecipe(
        name,
        kind,
        _here(table["data"], folder),
        settings,
        table.get("split"),
        columns,
        table.get("chat", False),
        {key: table[key] for key in OWN[kind] if key in ours - set(DATA) and key in table},
    )


def _evaluation(where: str, table: dict[str, Any], folder: Path) -> dict[str, Any]:
    _check(table, EVALUATION, where, ("suite",))
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in table.get("k", [])):
        raise InputError(f"{where}: k is {table['k']!r}; a list of numbers is wanted.")
    return table | {"suite": str(folder / Path(table["suite"]).expanduser())}


def _check(table: dict[str, Any], known: dict[str, Any], where: str, wanted: tuple[str, ...]) -> None:
    """Keys that there are, and values of their kinds; a kind of None is checked elsewhere."""
    for key, value in table.items():
        if key not in known:
            raise InputError(f"{where} has no key {key!r}; it has {', '.join(known)}.")
        kind = known[key]
        like = (int, float) if kind is float else kind
        if kind is not None and (not isinstance(value, like) or (isinstance(value, bool) and kind is not bool)):
            raise InputError(f"{where}: {key} is {value!r}; {KINDS[kind]} is wanted.")
    for key in wanted:
        if key not in table:
            raise InputError(f"{where}: {key} is missing.")


def _here(name: str, folder: Path) -> str:
    """A path from the recipe's folder where there is such a file or folder, or where it can be nothing else; else the name."""
    path = folder / Path(name).expanduser()
    return str(path.absolute()) if path.exists() or name.startswith((".", "/", "~")) else name
