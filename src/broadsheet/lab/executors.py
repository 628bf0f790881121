"""Where tasks run: one interface for local processes (`broadsheet.lab.local`) and for a Dask cluster without a shared disk
(`broadsheet.lab.cluster`). Both report to one handler in one process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from broadsheet.lab.messages import Begun, Ended, Painted, Progress, TaskSpec, Written

Event = Begun | Progress | Written | Painted | Ended
"""What a handler takes; after `Ended` nothing comes of a task."""


@dataclass
class Task:
    """A plan on its way through an executor: what the worker is told, and how it stands."""

    spec: TaskSpec
    exclusive: bool = False
    priority: float = 0.0
    state: str = "queued"
    message: str = ""
    trace: str = ""
    attempts: int = 0
    finished: set[str] = field(default_factory=set)

    def left(self) -> TaskSpec:
        """The spec without the runs that are finished."""
        return dataclasses.replace(self.spec, runs=tuple(run for run in self.spec.runs if run.id not in self.finished))

    def ended(self) -> Ended:
        """What is told when it is over."""
        return Ended(self.state, self.message)


Handler = Callable[[Task, Event], None]


class Executor(Protocol):
    """Runs tasks and hands each event to `handle`, one at a time, in the caller's thread."""

    def run(self, tasks: list[Task], handle: Handler, deadline: float | None = None) -> None: ...

    def cancel(self, task: Task) -> None: ...
