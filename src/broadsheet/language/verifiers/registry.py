"""Verifiers by name: those of the files beside this one, of other packages, and those registered in this process.

A package brings its own by the entry-point group `broadsheet.verifiers`, `name = "module:function"`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from broadsheet.errors import InputError

PACKAGE = "broadsheet.language.verifiers"
GROUP = "broadsheet.verifiers"

Verifier = Callable[[str, Any], float]
"""From an answer's text and the label of its prompt to how right it is: 0 (wrong) to 1."""

_verifiers: dict[str, Verifier] = {}


def verifier(name: str) -> Callable[[Verifier], Verifier]:
    """Marks a function `(text, label) -> float` as a verifier.

    ```python
    @verifier("palindrome")
    def palindrome(text, label):
        return float(text == text[::-1])
    ```

    It gives a number in [0, 1] (or a bool), raises on no text, whatever a model may write, and takes no long time over a
    million characters. A label that it cannot read raises an `InputError`: that is the data's fault.

    **Raises:** `InputError` for a name that another function has, for `@verifier` without a name, and for a function that does
    not take a text and a label.
    """
    if not isinstance(name, str):
        raise InputError(f"@verifier needs a name: @verifier({getattr(name, '__name__', 'name')!r}).")

    def register(check: Verifier) -> Verifier:
        try:
            inspect.signature(check).bind("text", "label")
        except TypeError:
            raise InputError(f"The verifier {name!r} has to be called with (text, label).") from None
        known = _verifiers.get(name)
        if known is not None and _place(known) != _place(check):
            raise InputError(f"The verifier {name!r} is {'.'.join(_place(known))} already.")
        _verifiers[name] = check
        return check

    return register


def _place(check: Verifier) -> tuple[str, str]:
    return check.__module__, getattr(check, "__qualname__", type(check).__qualname__)


def names() -> list[str]:
    """All verifiers."""
    _load_own()
    return sorted({*(point.name for point in importlib.metadata.entry_points(group=GROUP)), *_verifiers})


def verifier_of(name: str) -> Verifier:
    """A verifier by its name, as the function that was registered.

    **Raises:** `InputError` where there is none, or where the entry point of that name cannot be loaded.
    """
    _load_own()
    if name not in _verifiers:
        for point in importlib.metadata.entry_points(group=GROUP, name=name):
            try:
                found = point.load()
            except (ImportError, AttributeError) as error:
                raise InputError(f"The verifier {name!r} of {point.value} cannot be loaded ({str(error)[:120]}).") from None
            if name not in _verifiers:
                verifier(name)(found)
    if name not in _verifiers:
        raise InputError(f"There is no verifier called {name!r}; there are {', '.join(names())}.")
    return _verifiers[name]


@cache
def _load_own() -> None:
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if file.stem not in ("__init__", "registry"):
            importlib.import_module(f"{PACKAGE}.{file.stem}")


def verify(name: str, text: str, label: Any) -> float:
    """How right a text is, 0 to 1, by the verifier of that name.

    **Arguments:** `text`: the answer alone, without its prompt; `label`: what is right, in the form that the verifier reads.

    **Raises:** `InputError` for an unknown name, a label that the verifier cannot read, and a verifier that gives something
    else than a number in [0, 1].
    """
    value = verifier_of(name)(text, label)
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = float("nan")
    if not 0 <= score <= 1:
        raise InputError(f"The verifier {name!r} gave {value!r} for {text[:60]!r}; a number in [0, 1] is wanted.")
    return score
