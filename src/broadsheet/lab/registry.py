"""Which papers run here: found by file in `broadsheet.papers` and by entry point, described by a generated index.

The index holds facts, claims and presets as JSON, so that listing, planning and judging import neither JAX nor torch.
`python -m broadsheet.lab.registry` writes it.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from broadsheet.cache import write_atomic
from broadsheet.errors import InputError, MissingExtraError
from broadsheet.lab import schema
from broadsheet.lab.claims import SYSTEM, Claim

PACKAGE = "broadsheet.papers"
GROUP = "broadsheet.papers"
EXTRAS = (
    {"h5py": "data"}
    | dict.fromkeys(
        ("torch", "transformers", "tokenizers", "trl", "peft", "datasets", "av", "math_verify", "langdetect"), "language"
    )
    | dict.fromkeys(("lmdb", "pyscf", "rdkit", "tblite"), "atoms")
    | dict.fromkeys(("pynwb", "pynapple", "neo", "networkx", "pandas", "pyarrow"), "recordings")
)
"""Module of an optional dependency -> the extra that brings it."""


@dataclass(frozen=True)
class ExperimentEntry:
    """What the coordinator knows of an experiment. `command` is set for experiments of other repositories."""

    name: str
    summary: str
    presets: Mapping[str, Mapping[str, Any]]
    variants: Mapping[str, Mapping[str, Any]]
    claims: tuple[Claim, ...]
    fields: tuple[schema.Field, ...] = ()
    figures: tuple[str, ...] = ()
    precision: str = "float32"
    deterministic: bool = False
    exclusive: bool = False
    data: str | None = None
    cost: float = 10.0
    command: Mapping[str, Any] | None = None

    def variant_names(self) -> list[str]:
        return [SYSTEM, *self.variants]

    def configure(self, preset: str, variant: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration as JSON values, read by the same code as the experiment's own (`broadsheet.lab.schema`)."""
        changed = schema.changes(self, preset, variant, overrides)
        return {**self.presets[preset], **schema.jsonable(changed)}

    def claims_at(self, preset: str) -> list[Claim]:
        """The claims that have a bound at this preset."""
        return [claim for claim in self.claims if claim.judged_at(preset)]

    def seeds_at(self, preset: str) -> int:
        """How many seeds a verdict on all its claims takes."""
        if self.deterministic:
            return 1
        return max((claim.seeds for claim in self.claims_at(preset)), default=1)

    def to_dict(self) -> dict[str, Any]:
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["claims"] = [claim.to_dict() for claim in self.claims]
        data["fields"] = [field.to_json() for field in self.fields]
        data["figures"] = list(self.figures)
        return {name: value for name, value in data.items() if name != "command" or value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ExperimentEntry:
        claims = tuple(Claim.from_dict(claim) for claim in data["claims"])
        fields = tuple(schema.Field.from_json(field) for field in data["fields"])
        return cls(**{**data, "claims": claims, "fields": fields, "figures": tuple(data["figures"])})


@dataclass(frozen=True)
class Entry:
    """A paper, or another repository with claims, as the coordinator sees it."""

    facts: Mapping[str, Any]
    module: str
    experiments: Mapping[str, ExperimentEntry]
    untested: tuple[Claim, ...] = field(default_factory=tuple)
    folder: Path | None = None

    @property
    def slug(self) -> str:
        return self.facts["slug"]

    def claims(self) -> list[tuple[str, Claim]]:
        """(experiment, claim) for each, those without a test last, under no experiment."""
        tested = [(name, claim) for name, made in self.experiments.items() for claim in made.claims]
        return tested + [("", claim) for claim in self.untested]

    def experiment(self, name: str) -> ExperimentEntry:
        if name not in self.experiments:
            raise InputError(f"{self.slug} has no experiment {name!r}; there are {', '.join(self.experiments)}.")
        return self.experiments[name]

    def to_dict(self) -> dict[str, Any]:
        return {
            "facts": dict(self.facts),
            "module": self.module,
            "experiments": {name: made.to_dict() for name, made in self.experiments.items()},
            "untested": [claim.to_dict() for claim in self.untested],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Entry:
        experiments = {name: ExperimentEntry.from_dict(made) for name, made in data["experiments"].items()}
        return cls(data["facts"], data["module"], experiments, tuple(Claim.from_dict(c) for c in data["untested"]))


def describe(paper: Any, module: str) -> Entry:
    """The entry of a `Paper` that has been imported."""
    experiments = {
        name: ExperimentEntry(
            name=name,
            summary=made.summary,
            presets={preset: _json(dataclasses.asdict(config)) for preset, config in made.presets.items()},
            variants=_json(made.variants),
            claims=tuple(made.claims),
            fields=made.fields,
            figures=tuple(made.figures),
            precision=made.precision,
            deterministic=made.deterministic,
            exclusive=made.exclusive,
            data=made.data,
            cost=made.cost,
        )
        for name, made in paper.experiments.items()
    }
    return Entry(paper.facts(), module, experiments, tuple(paper.untested))


def papers_folder() -> Path:
    """Where the package's own papers are."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError("The package's papers are missing; install Broadsheet again.")
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def entries() -> dict[str, Entry]:
    """slug -> entry of every paper that runs here, the package's own from the index, others by entry point."""
    index = papers_folder() / "index.json"
    found = {}
    if index.exists():
        found = {slug: Entry.from_dict(data) for slug, data in json.loads(index.read_text()).items()}
    for point in importlib.metadata.entry_points(group=GROUP):
        paper = point.load()
        found[paper.slug] = describe(paper, point.module)
    return found


def entry(slug: str) -> Entry:
    """The paper's entry; raises `InputError` with the nearest names where none runs here."""
    found = entries()
    if slug not in found:
        import difflib

        near = difflib.get_close_matches(slug, found, n=3, cutoff=0.4)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise InputError(f"No paper called {slug!r} runs here.{hint} 'broadsheet list' shows them all.")
    return found[slug]


def import_paper(module: str) -> Any:
    """The `paper` object of a module; raises `MissingExtraError` where an optional dependency is missing."""
    try:
        return importlib.import_module(module).paper
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        extra = EXTRAS.get(missing)
        if extra is None:
            raise
        raise MissingExtraError(f"This paper ({missing} is not installed)", extra) from None


def missing_extra(found: Entry) -> str | None:
    """An extra that the paper requires and that is not installed here."""
    wanted = found.facts.get("requires", ())
    return next((e for module, e in EXTRAS.items() if e in wanted and importlib.util.find_spec(module) is None), None)


def build_index() -> dict[str, Any]:
    """The index of the package's own papers, made by importing each file."""
    index = {}
    for file in sorted(papers_folder().glob("*.py")):
        if file.stem != "__init__":
            module = f"{PACKAGE}.{file.stem}"
            paper = import_paper(module)
            index[paper.slug] = describe(paper, module).to_dict()
    return _json(index)


def index_text() -> str:
    return json.dumps(build_index(), indent=1, ensure_ascii=False) + "\n"


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value))


if __name__ == "__main__":
    write_atomic(papers_folder() / "index.json", index_text())
