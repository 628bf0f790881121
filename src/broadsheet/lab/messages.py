"""What processes say to each other and the store keeps, as frozen values with a JSON form.

Four words: a *job* is asked for by names (`JobSpec`), a *plan* is a job with its runs worked out (`broadsheet.lab.engine`), a
*task* is what a worker is told of a plan (`TaskSpec`), and a *run* is one variant with one seed (`RunSpec`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, get_args

from broadsheet.errors import DataError
from broadsheet.lab.metrics import finite, from_json
from broadsheet.lab.paper import FIRST_SEED
from broadsheet.lab.schema import jsonable


@dataclass(frozen=True)
class Message:
    """A value with a JSON form; `kind` tells it from others on the same way."""

    kind: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """As JSON values, without the kind."""
        return {item.name: jsonable(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """From JSON values; names that it does not know are left out. Raises `DataError` where one that it needs is missing."""
        known = {item.name for item in fields(cls)}
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items() if name in known}
        try:
            return cls(**given)
        except (TypeError, ValueError):
            found = ", ".join(data) or "nothing"
            raise DataError(f"A {cls.kind} has {', '.join(sorted(known))}; {found} is not enough.") from None


@dataclass(frozen=True)
class RunSpec(Message):
    """One run: its identity, variant and seed."""

    kind = "run"

    id: str
    variant: str
    seed: int


@dataclass(frozen=True)
class JobSpec(Message):
    """What is asked, by names only: an experiment of a paper at a preset, its variants (all where None), seeds and settings.

    - `overrides`: settings by name, as text or JSON values; `data`: the user's file for the setting that holds it.
    - `trust`: files that could run code may be read. It is said by whoever starts a command and not kept: a row of a database,
      or of a backup, cannot say it.
    - `figures`: whether figures are drawn where all variants are there.
    - `repository`: it is of a repository with a `claims.toml`, and not of the paper that may have the same short name.
    """

    kind = "job"

    slug: str
    experiment: str
    preset: str = "quick"
    variants: tuple[str, ...] | None = None
    seeds: tuple[int, ...] = (FIRST_SEED,)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    trust: bool = False
    figures: bool = True
    repository: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "variants", tuple(self.variants) if self.variants else None)
        object.__setattr__(self, "seeds", tuple(self.seeds or (FIRST_SEED,)))
        object.__setattr__(self, "overrides", dict(self.overrides or {}))

    def to_json(self) -> dict[str, Any]:
        """As the row of the job has it, without what is usual."""
        usual: dict[str, Any] = {"variants": None, "overrides": {}, "data": None, "figures": True, "repository": False}
        return {name: value for name, value in super().to_json().items() if name != "trust" and value != usual.get(name, ...)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """From the row of a job, of an older version too."""
        return super().from_json({name: value for name, value in data.items() if name != "trust"})


@dataclass(frozen=True)
class TaskSpec(Message):
    """What a worker is told: the runs that are to be done, and how.

    - `overrides`: the user's settings, checked, as JSON values.
    - `command`: of an experiment of another repository.
    - `figures`: variant -> folder of a recorded run, to draw from with the runs of `figure_seed`; None where nothing is drawn.
    - `scratch`: the folder for results that are not recorded yet; `disposable`: nobody looks at it without the coordinator.
    """

    kind = "task"

    slug: str
    module: str
    experiment: str
    preset: str
    overrides: Mapping[str, Any]
    precision: str
    device: str
    code_hash: str
    trust: bool
    command: Mapping[str, Any] | None
    figure_seed: int
    runs: tuple[RunSpec, ...] = ()
    figures: Mapping[str, str] | None = None
    scratch: str = ""
    disposable: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return super().from_json({**data, "runs": [RunSpec.from_json(run) for run in data["runs"]]})


@dataclass(frozen=True)
class Permit(Message):
    """To a worker that asked to be alone: now it is; these processes stand still."""

    kind = "permit"

    stopped: tuple[int, ...]


@dataclass(frozen=True)
class Begun(Message):
    """A worker has begun a run."""

    kind = "start"

    id: str
    variant: str
    seed: int


@dataclass(frozen=True)
class Progress(Message):
    """How far a run is, from 0 to 1, with live metrics."""

    kind = "progress"

    id: str
    fraction: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"metrics": finite(self.metrics)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return super().from_json({**data, "metrics": from_json({"": data["metrics"]})[""]})


@dataclass(frozen=True)
class Written(Message):
    """A worker has written a finished run into a folder."""

    kind = "run"

    id: str
    folder: str
    seconds: float


@dataclass(frozen=True)
class Painted(Message):
    """A worker has drawn a figure into a file."""

    kind = "figure"

    name: str
    path: str
    caption: str


@dataclass(frozen=True)
class Alone(Message):
    """A worker asks for the others to stand still."""

    kind = "alone"


@dataclass(frozen=True)
class Together(Message):
    """The others may go on."""

    kind = "together"


@dataclass(frozen=True)
class Failed(Message):
    """A worker's task has failed, and the worker ends; `trace` where it was no mistake of the user's."""

    kind = "failed"

    message: str
    trace: str = ""


@dataclass(frozen=True)
class Done(Message):
    """A worker's task is done, and it waits for the next."""

    kind = "done"


@dataclass(frozen=True)
class Started(Message):
    """A job has started a run; so many of its runs are done."""

    kind = "start"

    id: str
    variant: str
    seed: int
    done: int
    of: int


@dataclass(frozen=True)
class Recorded(Message):
    """A run of a job is in the store; so many are done now."""

    kind = "run"

    id: str
    done: int


@dataclass(frozen=True)
class Drawn(Message):
    """A figure of a job is in the store."""

    kind = "figure"

    name: str


@dataclass(frozen=True)
class Ended(Message):
    """A job is over: `state` is done, failed, cancelled or lost."""

    kind = "end"

    state: str
    message: str = ""


Told = TaskSpec | Permit
"""What a worker is told."""

Said = Begun | Progress | Written | Painted | Alone | Together | Failed | Done
"""What a worker says."""

News = Started | Progress | Recorded | Drawn | Ended
"""What the readers of a job are told; the rows of its events."""


def line(message: Message) -> str:
    """A message as one line of JSON."""
    return json.dumps({"kind": message.kind, **message.to_json()}) + "\n"


def read_line(text: str | bytes, family: Any) -> Any:
    """The message of a line, one of `Told` or `Said`. Raises `ValueError` where it is cut."""
    data = json.loads(text)
    return read(data.pop("kind"), data, family)


def read(kind: str, data: Mapping[str, Any], family: Any) -> Any:
    """A message of a kind, one of a family. Raises `DataError` where there is no such kind, or a part is missing."""
    found = {member.kind: member for member in get_args(family)}
    if kind not in found:
        raise DataError(f"{kind!r} is no kind of message; there are {', '.join(found)}.")
    return found[kind].from_json(data)
