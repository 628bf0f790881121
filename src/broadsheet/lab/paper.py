"""The contract of a paper's file: facts, experiments with presets, variants and claims, and figures.

This module imports neither JAX nor torch: a paper's file does, when its experiments run.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from broadsheet.errors import InputError
from broadsheet.lab import schema
from broadsheet.lab.claims import SYSTEM, Claim

PRESETS = ("smoke", "quick", "paper")
FIRST_SEED = 100
"""Verdicts are made on seeds 100, 101, …, which no development run used."""


@runtime_checkable
class Log(Protocol):
    """What an experiment may say while it runs."""

    def progress(self, fraction: float, **metrics: float) -> None:
        """How far it is, from 0 to 1, with live metrics."""

    def checkpoint(self, name: str) -> Path | None:
        """A file that stays until the run has ended, to go on from after a stop (see `broadsheet.learn.fit`)."""

    def alone(self) -> AbstractContextManager[None]:
        """While it is open the jobs beside this one stand still: for times that are measured within an experiment."""


@dataclass
class Report:
    """What an experiment returns: scalars to judge, arrays to plot.

    Where variants share one training, `arms` holds the scalars of each (`"system"` and the controls); otherwise `metrics`
    holds those of the variant that was run.
    """

    metrics: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Any] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def scalars(self) -> dict[str, dict[str, float]]:
        """Arm -> metric -> number; `metrics` under the empty name, which stands for the variant itself."""
        table = {"": self.metrics, **self.arms} if self.metrics or not self.arms else dict(self.arms)
        return {arm: {name: _number(arm, name, value) for name, value in row.items()} for arm, row in table.items()}

    def numpy_arrays(self) -> dict[str, Any]:
        """The arrays as NumPy arrays; raises `InputError` where one holds Python objects."""
        import numpy as np

        arrays = {name: np.asarray(value) for name, value in self.arrays.items()}
        for name, value in arrays.items():
            if value.dtype.hasobject:
                raise InputError(f"The report's array {name!r} holds Python objects; numbers are wanted.")
        return arrays


def _number(arm: str, name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"The report's metric {name!r} {arm and f'of {arm!r} '}is {value!r}; a number is wanted.") from None


Runs = Mapping[str, Report]
"""What a figure is drawn from: variant -> report of one seed, `"system"` first."""


@dataclass(frozen=True)
class Experiment:
    """One experiment: a function of (config, key, log), its presets, variants, claims and figures."""

    name: str
    function: Callable[[Any, Any, Log], Report]
    presets: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    claims: Sequence[Claim] = ()
    figures: dict[str, Callable[[Runs], Any]] = field(default_factory=dict)
    precision: Literal["float32", "float64"] = "float32"
    deterministic: bool = False
    exclusive: bool = False
    data: str | None = None
    cost: float = 10.0

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.function) or "").split("\n\n")[0].replace("\n", " ")

    @property
    def fields(self) -> tuple[schema.Field, ...]:
        """The settings of its config."""
        config: type = type(next(iter(self.presets.values())))
        return schema.fields_of(config)

    def variant_names(self) -> list[str]:
        return [SYSTEM, *self.variants]

    def configure(self, preset: str, variant: str = SYSTEM, overrides: Mapping[str, Any] | None = None) -> Any:
        """The config of a preset with a variant's overrides and the user's, which count where both set a name."""
        changed = schema.changes(self, preset, variant, overrides or {})
        try:
            return dataclasses.replace(self.presets[preset], **changed)
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.name}: {error}") from None

    def figure(self, function: Callable[[Runs], Any]) -> Callable[[Runs], Any]:
        """Decorator: a function from the reports of all variants to a Matplotlib figure. Not part of the code hash."""
        self.figures[function.__name__] = function
        return function


@dataclass
class Paper:
    """A paper and what is built of it.

    - `basis`: `"paper"` (text read), `"code"` (official code read or run) or `"reconstructed"` (abstract only).
    - `summary`, `topics`, `parts`: in our own words; what to import of it (`broadsheet.neurons.ELMCell`).
    - `code`: where the authors' code is, with its licence; empty where none was found.
    - `requires`: extras that its experiments need.
    - `verbs`: commands that do on a user's own files what the paper does.
    - `tasks`: a task that other systems do too -> `"experiment:metric"`, by which they are set side by side.
    - `answers`: what the authors say to a verdict: claim id (or "") -> their words, with date and source.
    - `notes`: figures that could not be reproduced, and why.
    """

    slug: str
    arxiv: str
    title: str
    published: str
    authors: int
    basis: Literal["paper", "code", "reconstructed"]
    summary: str
    topics: Sequence[str] = ()
    code: str = ""
    parts: Sequence[str] = ()
    requires: Sequence[str] = ()
    verbs: Sequence[str] = ()
    tasks: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    experiments: dict[str, Experiment] = field(default_factory=dict)
    untested: list[Claim] = field(default_factory=list)

    def experiment(
        self,
        *,
        presets: Mapping[str, Any],
        variants: Mapping[str, Mapping[str, Any]] | None = None,
        claims: Sequence[Claim] = (),
        precision: Literal["float32", "float64"] = "float32",
        deterministic: bool = False,
        exclusive: bool = False,
        data: str | None = None,
        cost: float = 10.0,
    ) -> Callable[[Callable[[Any, Any, Log], Report]], Experiment]:
        """Decorator that makes a function `(config, key, log) -> Report` an experiment of this paper.

        **Arguments:** `presets`: name -> config dataclass, sizes of the same code; `variants`: name -> overrides, the
        controls among them; `data`: the config field that `--data PATH` sets; `cost`: seconds that all variants take at
        `quick` for one seed, until a run was measured; `exclusive`: runs with nothing beside it, as claims about time need
        where `log.alone` around what is measured does not do.
        """

        def decorate(function: Callable[[Any, Any, Log], Report]) -> Experiment:
            made = Experiment(
                function.__name__.strip("_"), function, dict(presets), dict(variants or {}), tuple(claims),
                precision=precision, deterministic=deterministic, exclusive=exclusive, data=data, cost=cost,
            )  # fmt: skip
            if len({type(config) for config in made.presets.values()}) != 1:
                raise InputError(f"{self.slug}: the presets of {made.name} are to be configs of one class.")
            for variant in made.variant_names():
                for preset in made.presets:
                    made.configure(preset, variant)
            taken = {claim.id for claim in self.claims()}
            for claim in made.claims:
                if claim.id in taken:
                    raise InputError(f"{self.slug}: two claims are called {claim.id}.")
            self.experiments[made.name] = made
            return made

        return decorate

    def claims(self) -> list[Claim]:
        """All claims, those that cannot be tested here last."""
        return [claim for made in self.experiments.values() for claim in made.claims] + list(self.untested)

    def facts(self) -> dict[str, Any]:
        """The facts as JSON values."""
        names = ("slug", "arxiv", "title", "published", "authors", "basis", "summary", "code")
        lists = ("topics", "parts", "requires", "verbs", "notes")
        tables = ("tasks", "answers")
        facts = {name: getattr(self, name) for name in names} | {name: list(getattr(self, name)) for name in lists}
        return facts | {name: dict(getattr(self, name)) for name in tables}
