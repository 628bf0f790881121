"""What makes two runs the same: configuration, seed, versions, data, and the code that the experiment uses."""

from __future__ import annotations

import ast
import contextlib
import copy
import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from broadsheet.cache import checksum, digest, home, write_atomic
from broadsheet.errors import InputError
from broadsheet.lab.location import leads_out
from broadsheet.lab.registry import Entry, ExperimentEntry

OUTSIDE = ("broadsheet.lab", "broadsheet.page", "broadsheet.cli", "broadsheet.web", "broadsheet.errors")
"""Modules that run and show experiments; a change of theirs changes no result."""


def run_identity(
    entry: Entry,
    experiment: ExperimentEntry,
    config: dict[str, Any],
    seed: int,
    *,
    device: str,
    data_checksum: str | None,
) -> str:
    """SHA-256 over all that decides a run's result. The variant's name is not in it: its configuration is."""
    return digest(
        {
            "slug": entry.slug,
            "experiment": experiment.name,
            "config": config,
            "seed": 0 if experiment.deterministic else seed,
            "precision": experiment.precision,
            "device": device,
            "versions": versions(tuple(entry.facts.get("requires", ()))) if experiment.command is None else {},
            "data": data_checksum,
            "code": code_hash(entry, experiment),
        }
    )


@cache
def versions(requires: tuple[str, ...] = ()) -> dict[str, str]:
    """Versions of the libraries that results depend on."""
    names = ["jax", "numpy"] + (["torch"] if "language" in requires else [])
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def device_kind() -> str:
    """ "gpu" where JAX's CUDA plug-in and a card are there, else "cpu"; found out without importing JAX."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if asked:
        return "cpu" if asked.split(",")[0] == "cpu" else "gpu"
    plugin = any(importlib.util.find_spec(f"jax_cuda{n}_plugin") for n in (12, 13))
    return "gpu" if plugin and Path("/dev/nvidia0").exists() else "cpu"


def environment() -> dict[str, Any]:
    """Where a run was made, for its provenance."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "broadsheet": importlib.metadata.version("broadsheet"),
        **versions(),
    }


def data_checksum(path: str | None) -> str | None:
    """A checksum of a data file or folder: names, sizes, and the first and last MiB of each file."""
    if path is None:
        return None
    root = Path(path).expanduser()
    if not root.exists():
        raise InputError(f"{root}: there is no such file or folder.")
    total = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]:
        size = file.stat().st_size
        total.update(f"{file.relative_to(root) if root.is_dir() else file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            total.update(stream.read(1 << 20))
            if size > 1 << 20:
                stream.seek(max(1 << 20, size - (1 << 20)))
                total.update(stream.read())
    return total.hexdigest()


def code_hash(entry: Entry, experiment: ExperimentEntry) -> str:
    """A hash of the syntax trees, docstrings left out, of the experiment, its config and the modules they use.

    Claims, facts and figures are outside it: an edited bound leaves stored metrics valid.
    """
    if experiment.command is not None:
        return repository_hash(entry.folder or Path(), json.dumps(dict(experiment.command), sort_keys=True))
    return _paper_hashes(entry.module)[experiment.name]


@cache
def _paper_hashes(module: str) -> dict[str, str]:
    """Experiment -> code hash for one paper's module, kept on disk as long as no file of its package changes."""
    root = module.split(".")[0]
    files = sorted({path for name in {root, "broadsheet"} for path in _package_files(name)})
    stamp = digest([[str(p), p.stat().st_mtime_ns, p.stat().st_size] for p in files])
    cache_file = home() / "cache" / "code-hashes" / f"{module}.json"
    try:
        kept = json.loads(cache_file.read_text())
        if kept["stamp"] == stamp:
            return kept["hashes"]
    except (OSError, ValueError, KeyError):
        pass
    with _without_collection():
        hashes = _hash_experiments(module, (root, "broadsheet"))
    with contextlib.suppress(OSError):  # a home that cannot be written to is only slower
        write_atomic(cache_file, json.dumps({"stamp": stamp, "hashes": hashes}))
    return hashes


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Syntax trees are many objects and no cycles: looking for these takes as long as all the rest."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


@cache
def _package_files(name: str) -> list[Path]:
    spec = importlib.util.find_spec(name)
    if spec is None:
        return []
    if spec.submodule_search_locations:
        places = [Path(place) for place in spec.submodule_search_locations]
        return [file for place in places for ending in ("py", "pyi") for file in place.rglob(f"*.{ending}")]
    return [Path(spec.origin)] if spec.origin else []


def _hash_experiments(module: str, roots: tuple[str, ...]) -> dict[str, str]:
    tree = _tree(_file(module))
    hashes = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(_is_mark(mark, "experiment") for mark in node.decorator_list):
            hashes[node.name.strip("_")] = _hash_one(module, tree, node, roots)
    return hashes


def _is_mark(mark: ast.expr, name: str) -> bool:
    """Whether a decorator is `@paper.experiment(…)` or `@experiment.figure`."""
    called = mark.func if isinstance(mark, ast.Call) else mark
    return isinstance(called, ast.Attribute) and called.attr == name


def _without_claims(node: ast.FunctionDef | ast.ClassDef) -> ast.stmt:
    """A definition without the claims that stand over an experiment, which another one may use."""
    bare = copy.copy(node)
    bare.decorator_list = [mark for mark in node.decorator_list if not _is_mark(mark, "experiment")]
    return bare


def _hash_one(module: str, tree: ast.Module, function: ast.FunctionDef, roots: tuple[str, ...]) -> str:
    """The function without its decorators, what it uses of its own file by name, and the modules behind its imports."""
    own: dict[str, ast.stmt] = {}
    imported: dict[str, set[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for local, behind in _imports(node, roots).items():
                imported.setdefault(local, set()).update(behind)
        elif isinstance(node, ast.FunctionDef) and any(_is_mark(mark, "figure") for mark in node.decorator_list):
            continue
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            own[node.name] = _without_claims(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        own[part.id] = node
    bare = _without_claims(function)
    pieces: dict[str, str] = {function.name: ast.dump(bare)}
    modules: set[str] = set()
    configs = [
        word.value for mark in function.decorator_list for word in getattr(mark, "keywords", []) if word.arg == "presets"
    ]
    classes = {node.func for value in configs for node in ast.walk(value) if isinstance(node, ast.Call)}
    todo: list[ast.AST] = [bare, *classes]
    while todo:
        for name in {node.id for node in ast.walk(todo.pop()) if isinstance(node, ast.Name)}:
            modules |= imported.get(name, set())
            if name in own and name not in pieces and name != "paper":
                pieces[name] = ast.dump(own[name])
                todo.append(own[name])
    for used in sorted(_closure(modules, roots)):
        pieces[f"{used}."] = _module(used, roots)[0]
    return digest(pieces)


def _closure(modules: set[str], roots: tuple[str, ...]) -> set[str]:
    """These modules and all that they import from the same packages."""
    found: set[str] = set()
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module in found or module.startswith(OUTSIDE):
            continue
        found.add(module)
        todo.extend(_module(module, roots)[1])
    return found


@cache
def _module(module: str, roots: tuple[str, ...]) -> tuple[str, frozenset[str]]:
    """A module's hash, and the modules of the packages that it imports, at its top or within."""
    tree = _tree(_file(module))
    nodes = [node for node in _statements(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = frozenset(name for node in nodes for behind in _imports(node, roots).values() for name in behind)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imported


def _imports(node: ast.Import | ast.ImportFrom, roots: tuple[str, ...]) -> dict[str, set[str]]:
    """Local name -> modules of the packages that define it, looking through what a package re-exports."""
    if isinstance(node, ast.Import):
        return {
            (alias.asname or alias.name.split(".")[0]): {alias.name}
            for alias in node.names
            if alias.name.split(".")[0] in roots and "." in alias.name
        }
    if node.level or not node.module or node.module.split(".")[0] not in roots:
        return {}
    return {alias.asname or alias.name: {_defined_in(node.module, alias.name)} for alias in node.names}


def _defined_in(module: str, name: str) -> str:
    """The module that defines `name` of `module`: a submodule, or where an `__init__` takes it from."""
    file = _file(module)
    if file.name == "__init__.py":
        for candidate in (file.parent / f"{name}.py", file.parent / name / "__init__.py"):
            if candidate.exists():
                return f"{module}.{name}"
        if name in (passed_on := _passed_on(module)):
            behind, original = passed_on[name]
            return _defined_in(behind, original) if behind.split(".")[0] == module.split(".")[0] else module
    return module


@cache
def _passed_on(package: str) -> dict[str, tuple[str, str]]:
    """Name -> the module that a package takes it from, and what it is called there."""
    file = _file(package)
    stub = file.with_suffix(".pyi")  # of a package that imports its parts when they are asked for
    found: dict[str, tuple[str, str]] = {}
    for node in _tree(stub if stub.exists() else file).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.level < 2:
            behind = f"{package}.{node.module}" if node.level else node.module
            for alias in node.names:
                found.setdefault(alias.asname or alias.name, (behind, alias.name))
    return found


@cache
def _file(module: str) -> Path:
    """The module's file, found without importing its package's `__init__`."""
    first, *rest = module.split(".")
    spec = importlib.util.find_spec(first)
    if spec is None or spec.origin is None:
        raise InputError(f"The module {module} cannot be found.")
    place = Path(spec.origin)
    if rest:
        place = place.parent.joinpath(*rest)
        place = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not place.exists():
        raise InputError(f"The module {module} has no file {place.name}.")
    return place


def _tree(file: Path) -> ast.Module:
    """The file's syntax tree without docstrings."""
    tree = ast.parse(file.read_text())
    for node in (tree, *_statements(tree)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            kept = [statement for statement in node.body if not _is_text(statement)]
            node.body = kept or ([] if isinstance(node, ast.Module) else [ast.Pass()])
    return tree


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """All statements within, at any depth; expressions, which are most of a tree, are not looked into."""
    for part in ("body", "handlers", "cases", "orelse", "finalbody"):
        for inner in getattr(node, part, ()):
            if isinstance(inner, ast.stmt):
                yield inner
            yield from _statements(inner)


def _is_text(statement: ast.stmt) -> bool:
    """Docstrings, and the strings under constants that document them."""
    return (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    )


def repository_hash(folder: Path, salt: str) -> str:
    """A hash of a repository's files: those that git tracks, else all that are not hidden; results are left out.

    Of a link that leads out of the repository counts where it leads, and not what is there; devices and pipes are not read.
    """
    total = hashlib.sha256(salt.encode())
    for name in sorted(_repository_files(folder)):
        file = folder / name
        if file.is_symlink() and leads_out(file, folder):
            total.update(os.fsencode(name) + b"\0link\0" + os.fsencode(os.readlink(file)))
        elif file.is_file() and name != "claims.toml":
            total.update(os.fsencode(name) + b"\0" + bytes.fromhex(checksum(file)))
    return total.hexdigest()


def _repository_files(folder: Path) -> list[str]:
    import subprocess

    with contextlib.suppress(OSError):  # git is not here
        listed = subprocess.run(
            ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True
        )
        if listed.returncode == 0 and listed.stdout:
            return [name for name in os.fsdecode(listed.stdout).split("\0") if name]
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return [str(path) for path in found if not any(part.startswith(".") for part in path.parts)]
