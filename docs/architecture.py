"""Writes the part of guide/architecture.md that follows from the code: the rooms, and who may import whom.

    python docs/architecture.py

The rooms are the packages with the first line of their docstrings, the rest are the contracts of pyproject.toml, which
import-linter enforces.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "broadsheet"
PAGE = ROOT / "docs" / "guide" / "architecture.md"
MARKS = ("<!-- rooms: written by docs/architecture.py -->", "<!-- end of rooms -->")


def rooms_table() -> str:
    """A row a room, the highest layer first: what is in it, what of ours it may import, what of others it may not."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layered,) = (contract for contract in contracts if contract["type"] == "layers")
    layers = [[name for name in map(short, re.split(r"[|:]", layer)) if exists(name)] for layer in layered["layers"]]
    forbidden: dict[str, set[str]] = {}
    exceptions = []
    for contract in contracts:
        if contract["type"] == "forbidden":
            for name in map(short, contract["source_modules"]):
                forbidden.setdefault(name, set()).update(map(short, contract["forbidden_modules"]))
            exceptions += [line for line in contract.get("ignore_imports", []) if line not in exceptions]
    lines = ["| layer | room | what is in it | may import | never |", "| ---: | --- | --- | --- | --- |"]
    for height, layer in enumerate(layers):
        below = [name for lower in layers[height + 1 :] for name in lower]
        for name in layer:
            barred = forbidden.get(name, set())
            others = ", ".join(f"`{other}`" for other in sorted(barred) if not exists(other))
            row = (str(len(layers) - height), f"`{name}`", first_line(name), may_import(below, barred), others)
            lines.append(f"| {' | '.join(row)} |")
    named = ", ".join(f"`{line.replace('broadsheet.', '')}`" for line in exceptions)
    return "\n".join([*lines, "", f"Rooms of one layer do not import each other. Exceptions: {named}.", ""])


def may_import(below: list[str], barred: set[str]) -> str:
    """In words, where few of the rooms below are barred; else by name."""
    allowed, left_out = [name for name in below if name not in barred], [name for name in below if name in barred]
    if not allowed:
        return "nothing of ours"
    if len(left_out) > 2:
        return ", ".join(f"`{name}`" for name in allowed)
    return "all below" + (f" but {' and '.join(f'`{name}`' for name in left_out)}" if left_out else "")


def short(module: str) -> str:
    """The name of a room in a contract; those that may be missing stand in brackets."""
    return module.strip(" ()").removeprefix("broadsheet.")


def exists(name: str) -> bool:
    return (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()


def first_line(name: str) -> str:
    folder = SOURCE / name
    text = ast.get_docstring(ast.parse((folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")).read_text()))
    return (text or "").splitlines()[0].replace("|", "\\|")


def page_text(old: str) -> str:
    """The page with its table made anew."""
    before, _, rest = old.partition(MARKS[0])
    return f"{before}{MARKS[0]}\n\n{rooms_table()}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"


if __name__ == "__main__":
    PAGE.write_text(page_text(PAGE.read_text()))
