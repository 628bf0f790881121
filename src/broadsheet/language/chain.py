"""Chains of checkpoints: each is made from one before it by a stage of training, once, and kept as a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from broadsheet.cache import digest, fixture, unfinished
from broadsheet.errors import InputError, JobError
from broadsheet.files import read_json
from broadsheet.language.models import load, model_identity, one_thread
from broadsheet.language.registry import Stage, stage_of

CACHE = "language-stages"
START = "start"

Report = Callable[[float, dict[str, float]], None]


def silent(fraction: float, metrics: dict[str, float]) -> None:
    """The report of one who does not ask for progress."""


@dataclass(frozen=True)
class Link:
    """A checkpoint of a chain: its name, and the stage that makes it.

    **Arguments:** `stage`: a registered name, or the function; `settings`: those of the stage that differ from its defaults;
    `after`: the link that it starts from, by default the one before it in the chain; `uses`: other links whose models the stage
    may ask for; `share`: its part of the whole time, for the progress that is shown.
    """

    name: str
    stage: str | Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    after: str | None = None
    uses: Sequence[str] = ()
    share: float = 1.0


class Context:
    """What a stage is given beside the model.

    - `seed`: the chain's.
    - `folder`: for what the stage needs to go on after an interruption, such as a trainer's own checkpoints; it is there again
      when the stage is run again, and goes when the stage is done.
    - `record`: JSON values to be kept beside the model; tensors and arrays become numbers and lists of them.
    - `report`: takes the fraction done and metrics.
    """

    def __init__(self, seed: int, folder: Path, report: Report, made: Path, models: Mapping[str, Callable[[], Any]]) -> None:
        self.seed, self.folder, self.report = seed, folder, report
        self.record: dict[str, Any] = {}
        self._made, self._models = made, models

    def model(self, name: str) -> Any:
        """A copy of the model of another link: one that `uses` names, or the one that the stage starts from.

        **Raises:** `InputError` for any other.
        """
        if name not in self._models:
            raise InputError(f"This stage is given no model {name!r}: the link's `uses` has to name it.")
        return self._models[name]()

    def keep(self, step: int, model: Any, words: Any) -> None:
        """Keeps a checkpoint on the way, which `Chain.model(name, step)` reads."""
        save(model, words, self._made / f"step-{step}")
        self.record.setdefault("steps", []).append(step)


class Chain:
    """Checkpoints made one after another, or branching: several links may start from the same.

    A checkpoint is found by the hash of its stage, its settings and the seed, and those of all before it; what is found is not
    made again, so that a chain goes on where it stopped, and chains with a common beginning share it.

    ```python
    chain = Chain(
        [
            Link("sft", "my_sft", {"data": "chats.jsonl"}),
            Link("dpo", "my_dpo", {"beta": 0.1}),
            Link("rl", "my_rl", after="sft"),
        ],
        start="meta-llama/Llama-3.1-8B",
    )
    chain.build()
    model = chain.model("rl")
    ```

    **Arguments:** `start`: a folder, or a name on the Hugging Face Hub at `revision`, from which the first link starts; it is
    called `"start"` in `after` and `uses`. Without it the first link's stage makes the model. `attention`: as in
    `broadsheet.language.models.load`.

    **Raises:** `InputError` for a name twice, a link that starts from or uses one that does not come before it, and a stage or
    setting that is none.
    """

    def __init__(
        self,
        links: Sequence[Link],
        *,
        seed: int = 0,
        start: str | None = None,
        revision: str | None = None,
        attention: str | None = None,
    ) -> None:
        self.links: dict[str, Link] = {}
        self.seed, self.start, self.revision, self.attention = seed, start, revision, attention
        self._after: dict[str, str | None] = {}
        self._stages: dict[str, Stage] = {}
        self._folders: dict[str, Path] = {}
        self._identities: dict[str, Any] = {}
        before = None if start is None else START
        there = {before}
        for link in links:
            after = link.after or before
            if link.name in {START, *there}:
                raise InputError(f"A chain has one checkpoint called {link.name!r}.")
            if wrong := [name for name in (after, *link.uses) if name not in there]:
                raise InputError(f"The link {link.name!r} asks for {wrong[0]!r}, which does not come before it.")
            found = stage_of(link.stage)
            found.settings(link.settings)
            self.links[link.name], self._stages[link.name], self._after[link.name] = link, found, after
            before = link.name
            there.add(before)

    @property
    def names(self) -> list[str]:
        """The links, in order."""
        return list(self.links)

    def build(self, report: Report | None = None) -> Chain:
        """Makes what is not there yet."""
        whole, done = sum(link.share for link in self.links.values()), 0.0
        for name, link in self.links.items():

            def part(fraction: float, metrics: dict[str, float], start: float = done, share: float = link.share) -> None:
                if report is not None:
                    report((start + fraction * share) / whole, metrics)

            self._make(name, part)
            done += link.share
        return self

    def folder(self, name: str, step: int | None = None) -> Path:
        """The Hugging Face folder of a link, or of a checkpoint that its stage kept on the way; made where it is not there yet.

        **Raises:** `InputError` for a link or step that does not exist.
        """
        if name not in self.links:
            raise InputError(f"The chain has no checkpoint {name!r}; there are {', '.join(self.links)}.")
        whole = self._folders.get(name) or self._make(name)
        if step is None:
            return whole
        found = whole / f"step-{step}"
        if not found.is_dir():
            raise InputError(f"{name} has no checkpoint {step} on the way; it has {self.steps(name) or 'none'}.")
        return found

    def model(self, name: str, step: int | None = None) -> Any:
        """The model of a link, or of a step on the way to it, in evaluation mode."""
        return self._load(name, step)[0]

    def words(self, name: str) -> Any:
        """The tokenizer of a link."""
        return self._load(name)[1]

    def record(self, name: str) -> dict[str, Any]:
        """What the stage kept beside the model."""
        return read_json(self.folder(name) / "record.json")

    def steps(self, name: str) -> list[int]:
        """Checkpoints that the stage kept on the way."""
        return self.record(name).get("steps", [])

    def _load(self, name: str, step: int | None = None) -> tuple[Any, Any]:
        if name == START and self.start is not None:
            return load(self.start, self.revision, attention=self.attention)
        return load(str(self.folder(name, step)), attention=self.attention)

    @cached_property
    def _origin(self) -> str | None:
        """What the start is: the content of a folder, the commit of a model on the Hub."""
        return None if self.start is None else model_identity(self.start, self.revision)

    def _identity(self, name: str | None) -> Any:
        """What decides the weights of a link, as JSON: its stage, and the hash of the same of each that it is made from."""
        if name in (None, START):
            return self._origin
        if name not in self._identities:
            link = self.links[name]
            self._identities[name] = {
                **self._stages[name].identity(link.settings),
                "seed": self.seed,
                "attention": self.attention,
                "after": digest(self._identity(self._after[name])),
                "uses": {other: digest(self._identity(other)) for other in link.uses},
                "versions": {package: version(package) for package in ("torch", "transformers")},
            }
        return self._identities[name]

    def _make(self, name: str, report: Report = silent) -> Path:
        """The folder of a link, made where there is none; what it needs is made before."""
        link, after, identity = self.links[name], self._after[name], self._identity(name)
        needed = {*link.uses, *([after] if after else [])}
        for other in needed - {START}:
            self.folder(other)

        def make(folder: Path) -> None:
            with unfinished(CACHE, identity) as parts:
                train(folder, parts)

        def train(folder: Path, parts: Path) -> None:
            models = {other: partial(self.model, other) for other in needed}
            context = Context(self.seed, parts, report, folder, models)
            model, words = (None, None) if after is None else self._load(after)
            made = _run(self._stages[name], link.settings, model, words, context)
            model, words = made if isinstance(made, tuple) else (made, words)
            try:
                record = _plain(context.record)
            except TypeError as error:
                save(model, words, parts / "trained")
                raise JobError(f"{name}: {error}; what was trained is in {parts / 'trained'}.") from None
            save(model, words, folder)
            (folder / "record.json").write_text(json.dumps(record))

        self._folders[name] = fixture(CACHE, identity, make)
        report(1.0, {})
        return self._folders[name]


def _run(stage: Stage, settings: Mapping[str, Any], model: Any, words: Any, context: Context) -> Any:
    """What a stage gives.

    **Raises:** `InputError` where it needs a model and begins the chain.
    """
    try:
        with one_thread() if stage.one_thread else nullcontext():
            return stage.run(model, words, context, **stage.settings(settings))
    except (AttributeError, TypeError) as error:
        if model is None and "NoneType" in str(error):
            raise InputError(
                f"{stage.name!r} is given no model: it has to come after another link, or the chain needs start=… ({error})."
            ) from error
        raise


def _plain(value: Any, key: str = "") -> Any:
    """A record as JSON has it: tensors and arrays as numbers and lists.

    **Raises:** `TypeError` for what JSON does not have, with its key.
    """
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        if wrong := [name for name in value if not isinstance(name, str | int | float)]:
            raise TypeError(f"the record{key and f' {key!r}'} has the key {wrong[0]!r}, which JSON cannot have")
        return {str(name): _plain(each, f"{key}.{name}" if key else name) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, key) for each in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"the record {key!r} is a {type(value).__name__}, which is no JSON value")


def save(model: Any, words: Any, folder: Path) -> None:
    """A model and its tokenizer as Hugging Face writes them.

    **Raises:** `JobError` for what is no Hugging Face model with finite weights, or has no tokenizer.
    """
    if model is None:
        raise JobError("The stage gave nothing; return the model.")
    if not isinstance(model, PreTrainedModel):
        raise JobError(f"The stage gave a {type(model).__name__}; a Hugging Face model is wanted (an adapter: merged into it).")
    if words is None:
        raise JobError("The stage begins a chain and gave no tokenizer; return (model, words).")
    if bad := [name for name, weights in model.named_parameters() if not torch.isfinite(weights).all()]:
        raise JobError(f"The stage gave weights that are not finite, {bad[0]} among them.")
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
