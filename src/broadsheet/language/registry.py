"""Stages of training by name: each is a file of `broadsheet.language.stages` that bears its name, or of another package.

Names are known without importing a stage, or torch. A package brings its own by the entry-point group `broadsheet.stages`,
`name = "module:function"`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from broadsheet.cache import checksum
from broadsheet.errors import InputError
from broadsheet.files import existing

PACKAGE = "broadsheet.language.stages"
GROUP = "broadsheet.stages"
FOLDER = Path(__file__).parent / "stages"
ARGUMENTS = ("model", "words", "context")

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Stage:
    """A stage by its name: the function that trains, its settings with their defaults, and the version of what it does.

    `one_thread`: whether a chain runs it in a single thread of PyTorch.
    """

    name: str
    run: Callable[..., Any]
    version: int
    one_thread: bool = False

    @property
    def defaults(self) -> dict[str, Any]:
        """Setting -> default; `inspect.Parameter.empty` for one that has to be given."""
        return {name: found.default for name, found in _settings(self.run).items()}

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of a run.

        **Raises:** `InputError` for an unknown, a missing or a mistyped one, naming it.
        """
        defaults = self.defaults
        if unknown := sorted(set(given) - set(defaults)):
            raise InputError(f"{self.name} has no setting {unknown[0]!r}; it has {', '.join(defaults) or 'none'}.")
        chosen = {**defaults, **given}
        for name, value in chosen.items():
            default = defaults[name]
            if value is inspect.Parameter.empty:
                raise InputError(f"{self.name} needs the setting {name!r}.")
            if default is inspect.Parameter.empty or default is None:
                continue
            like = {float: (float, int), tuple: (tuple, list)}.get(type(default), type(default))
            if not isinstance(value, like) or isinstance(value, bool) != isinstance(default, bool):
                raise InputError(f"{self.name}: {name} is {value!r}; {type(default).__name__} is wanted.")
        return chosen

    def identity(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What decides the outcome of a run, as JSON: name, version and all settings; of a file, its content.

        **Raises:** `InputError` for a file that is not there and a setting that JSON does not have.
        """
        kinds = _settings(self.run)
        values = dict(self.settings(given))
        for name, value in values.items():
            if value is not None and "Path" in str(kinds[name].annotation):
                values[name] = [checksum(existing(path)) for path in (value if isinstance(value, list | tuple) else [value])]
        try:
            return {"stage": self.name, "version": self.version, "settings": json.loads(json.dumps(values, allow_nan=False))}
        except (TypeError, ValueError) as error:
            raise InputError(f"A setting of {self.name} is no JSON value: {error}.") from None


def _settings(run: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = inspect.signature(run).parameters.values()
    return {each.name: each for each in found if each.kind is inspect.Parameter.KEYWORD_ONLY}


def _check_arguments(name: str, run: Callable[..., Any]) -> None:
    """Raises `InputError` where a chain could not call the function, or would not find its settings."""
    found = inspect.signature(run).parameters.values()
    given = [each.name for each in found if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if tuple(given[: len(ARGUMENTS)]) != ARGUMENTS:
        raise InputError(f"The stage {name!r} takes ({', '.join(given)}); (model, words, context, *, …settings) is wanted.")
    if more := given[len(ARGUMENTS) :]:
        raise InputError(f"The stage {name!r}: settings are keyword arguments: put * before {more[0]!r}.")


_stages: dict[str, Stage] = {}


def stage(name: str, *, version: int = 1, one_thread: bool = False) -> Callable[[Function], Function]:
    """Marks a function as a stage: `run(model, words, context, *, …settings)`, which gives the model.

    ```python
    @stage("averaged")
    def averaged(model, words, context, *, share: float = 0.5):
        base = context.model("base").state_dict()
        with torch.no_grad():
            for name, weights in model.state_dict().items():
                weights.lerp_(base[name], 1 - share)
        return model
    ```

    The model is a Hugging Face model that the function may change, or None where the chain begins with this stage; `words` is
    its tokenizer, and a stage with a new one gives `(model, words)`; `context` is a `broadsheet.language.chain.Context`.
    Settings are JSON values. One annotated as `Path` is a file or folder, whose content counts, wherever it lies.

    **Arguments:** `name`: in the package, that of the file too; `version`: raise it when what the stage makes changes, so that
    checkpoints made before are made anew; `one_thread`: a chain runs it in a single thread of PyTorch, which is much faster for
    a tiny model on a busy machine, and gives the same numbers on every one.

    **Raises:** `InputError` for a name that another function has, for `@stage` without a name, and for a function with other
    positional arguments than the three.
    """
    if not isinstance(name, str):
        raise InputError(f"@stage needs a name: @stage({getattr(name, '__name__', 'name')!r}).")

    def register(run: Function) -> Function:
        _check_arguments(name, run)
        known = _stages.get(name)
        if known is not None and (known.run.__module__, known.run.__qualname__) != (run.__module__, run.__qualname__):
            raise InputError(f"The stage {name!r} is {known.run.__module__}.{known.run.__qualname__} already.")
        _stages[name] = Stage(name, run, version, one_thread)
        return run

    return register


def names() -> list[str]:
    """All stages: the package's own, those of other packages, and those registered in this process."""
    return sorted({*own_names(), *(point.name for point in importlib.metadata.entry_points(group=GROUP)), *_stages})


@cache
def own_names() -> tuple[str, ...]:
    """The package's own stages, by their files."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__"))


def stage_of(of: str | Callable[..., Any]) -> Stage:
    """A stage by its name or its function. A paper gives the function, since what a run depends on is read from its imports.

    **Raises:** `InputError` where there is none, and where the file or entry point of that name registers another.
    """
    if not isinstance(of, str):
        found = next((each for each in _stages.values() if each.run is of), None)
        if found is None:
            raise InputError(f"{getattr(of, '__name__', of)} is no stage; @stage(name) before the function makes it one.")
        return found
    if of not in _stages:
        _load(of)
    if of not in _stages:
        there = names()
        if of in there:
            raise InputError(f"The module of the stage {of!r} registers none of that name by @stage({of!r}).")
        raise InputError(f"There is no stage called {of!r}; there are {', '.join(there)}.")
    return _stages[of]


def _load(name: str) -> None:
    """Imports the file or the entry point that bears the name."""
    if name in own_names():
        importlib.import_module(f"{PACKAGE}.{name}")
        return
    for point in importlib.metadata.entry_points(group=GROUP, name=name):
        try:
            point.load()
        except (ImportError, AttributeError) as error:
            raise InputError(f"The stage {name!r} of {point.value} cannot be loaded ({str(error)[:120]}).") from None
