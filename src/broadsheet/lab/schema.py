"""The settings of an experiment, as its config class declares them.

They are made from the class's type hints and kept in the index, so that who plans a run without importing the paper and the
experiment itself read a user's value by the same code, to the same value.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import cache
from os import PathLike
from typing import Any, Literal, Protocol

from broadsheet.errors import InputError
from broadsheet.lab.claims import SYSTEM

Kind = Literal["bool", "int", "float", "text", "choice", "list", "row", "config"]

BOOLS = dict.fromkeys(("true", "1", "yes"), True) | dict.fromkeys(("false", "0", "no"), False)
PLAIN: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "text"}
WANTED = {
    "bool": "true or false", "int": "a whole number", "float": "a finite number", "text": "text", "config": "a config",
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A setting.

    - `kind`: `"choice"` is one of `choices`; `"list"` has any number of values like `parts[0]`, `"row"` one like each of
      `parts`; `"config"` is a config of its own, which a preset sets as a whole and a user cannot.
    - `optional`: may be None, which a user writes `none`.
    - `default`: what the config class says, as a JSON value; `...` where every preset has to say it.
    """

    name: str
    kind: Kind
    choices: tuple[Any, ...] = ()
    parts: tuple[Field, ...] = ()
    optional: bool = False
    default: Any = ...

    def parse(self, value: Any) -> Any:
        """A text or a JSON value as this setting's value. In a text, `+` or a space is between the values of a list, `;`
        between lists in a list. Numbers that are not finite are refused: a configuration is compared, and kept as JSON.

        **Raises:** `InputError`, one sentence with what was got and what is wanted.
        """
        none = value is None or (isinstance(value, str) and value in ("none", "None") and value not in self.choices)
        if none and self.optional:
            return None
        if value is None:
            raise self._refused(value)
        return _READERS[self.kind](self, value)

    def to_json(self) -> dict[str, Any]:
        """As the index holds it, without what is usual."""
        data: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.choices:
            data["choices"] = list(self.choices)
        if self.parts:
            data["parts"] = [part.to_json() for part in self.parts]
        if self.optional:
            data["optional"] = True
        return data if self.default is ... else data | {"default": self.default}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Field:
        """From the index."""
        parts = tuple(cls.from_json(part) for part in data.get("parts", ()))
        return cls(**{**data, "choices": tuple(data.get("choices", ())), "parts": parts})

    def wanted(self) -> str:
        """What a user may give, in words."""
        if self.kind == "choice":
            words = f"one of {', '.join(map(str, self.choices))}"
        elif self.kind == "list":
            words = f"a list ({self.parts[0].wanted()} each)"
        elif self.kind == "row":
            words = f"{len(self.parts)} values ({'; '.join(part.wanted() for part in self.parts)})"
        else:
            words = WANTED[self.kind]
        return f"{words}, or none" if self.optional else words

    def _refused(self, value: Any) -> InputError:
        if self.kind == "config":
            return InputError(f"{self.name} is a config of its own, which presets set; it cannot be changed.")
        got = repr(value)
        return InputError(f"{self.name} is {got if len(got) <= 80 else f'{got[:80]}…'}; {self.wanted()} is wanted.")

    def _bool(self, value: Any) -> bool:
        try:
            return BOOLS[str(value).lower()]
        except KeyError:
            raise self._refused(value) from None

    def _int(self, value: Any) -> int:
        is_number = isinstance(value, str | numbers.Real) and not isinstance(value, bool)
        try:
            number = float(value) if isinstance(value, str) and re.search(r"[.eE]", value) else value
            whole = int(number) if is_number else None
        except (ValueError, OverflowError):
            whole = None
        if whole is None or (whole != number and not isinstance(number, str)):
            raise self._refused(value)
        return whole

    def _float(self, value: Any) -> float:
        try:
            if isinstance(value, bool) or not isinstance(value, str | numbers.Real):
                raise self._refused(value)
            number = float(value)
        except (ValueError, OverflowError):
            raise self._refused(value) from None
        if not math.isfinite(number):
            raise self._refused(value)
        return number

    def _text(self, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, str | numbers.Real | PathLike):
            raise self._refused(value)
        return str(value)

    def _choice(self, value: Any) -> Any:
        for choice in self.choices:
            if (type(value) is type(choice) and value == choice) or (isinstance(value, str) and value == str(choice)):
                return choice
        raise self._refused(value)

    def _list(self, value: Any) -> tuple[Any, ...]:
        return tuple(self._inner(self.parts[0], part, value) for part in self._parts(value))

    def _row(self, value: Any) -> tuple[Any, ...]:
        found = self._parts(value)
        if len(found) != len(self.parts):
            raise self._refused(value)
        return tuple(self._inner(field, part, value) for field, part in zip(self.parts, found, strict=True))

    def _parts(self, value: Any) -> list[Any]:
        if isinstance(value, str):
            nested = any(part.kind in ("list", "row") for part in self.parts)
            between = ";" if nested else r"\s+|(?<!\d[eE])\+"  # the + of 1e+3 is its own
            return [part for part in re.split(between, value) if part.strip()]
        if isinstance(value, Mapping | bytes) or not isinstance(value, Iterable):
            raise self._refused(value)
        return list(value)

    def _inner(self, field: Field, part: Any, whole: Any) -> Any:
        try:
            return field.parse(part)
        except InputError:
            raise self._refused(whole) from None

    def _config(self, value: Any) -> Any:
        raise self._refused(value)


_READERS: dict[str, Callable[[Field, Any], Any]] = {
    "bool": Field._bool, "int": Field._int, "float": Field._float, "text": Field._text, "choice": Field._choice,
    "list": Field._list, "row": Field._row, "config": Field._config,
}  # fmt: skip


@cache
def fields_of(config: type) -> tuple[Field, ...]:
    """The settings of a config dataclass, from its type hints: bool, int, float, str, `Literal`, tuples of those, one of them
    or None, and config dataclasses.

    **Raises:** `InputError` for a type that is none of these.
    """
    hints = typing.get_type_hints(config)
    return tuple(
        dataclasses.replace(_field(item.name, hints[item.name], config), default=_default(item))
        for item in dataclasses.fields(config)
        if item.init
    )


def _field(name: str, hint: Any, config: type) -> Field:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and type(None) in options and len(options) == 2:
        (wanted,) = (option for option in options if option is not type(None))
        return dataclasses.replace(_field(name, wanted, config), optional=True)
    if origin is Literal:
        return Field(name, "choice", tuple(option for option in options if option is not None), optional=None in options)
    if origin is tuple and options:
        if options[-1] is ...:
            return Field(name, "list", parts=(_field(name, options[0], config),))
        return Field(name, "row", parts=tuple(_field(name, option, config) for option in options))
    if hint in PLAIN:
        return Field(name, PLAIN[hint])
    if dataclasses.is_dataclass(hint):
        return Field(name, "config")
    raise InputError(
        f"{config.__name__}.{name} is of type {getattr(hint, '__name__', hint)}; a setting is bool, int, float, str, Literal, "
        f"a tuple of those, one of them or None, or a dataclass."
    )


def _default(item: dataclasses.Field) -> Any:
    if item.default_factory is not MISSING:
        return jsonable(item.default_factory())
    return ... if item.default is MISSING else jsonable(item.default)


def jsonable(value: Any) -> Any:
    """A value as JSON has it: lists for tuples, tables for dataclasses."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: jsonable(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: jsonable(part) for name, part in value.items()}
    return [jsonable(part) for part in value] if isinstance(value, list | tuple) else value


class Configurable(Protocol):
    """What has presets, variants and settings: an experiment, or its entry in the index."""

    @property
    def name(self) -> str: ...
    @property
    def presets(self) -> Mapping[str, Any]: ...
    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]: ...
    @property
    def fields(self) -> Sequence[Field]: ...


def changes(owner: Configurable, preset: str, variant: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What a variant and a user change in a preset's config; where both set a name, the user's value counts.

    **Raises:** `InputError` for names that do not exist and values that do not fit.
    """
    names = [SYSTEM, *owner.variants]
    if preset not in owner.presets:
        raise InputError(f"{owner.name} has no preset {preset!r}; there are {', '.join(owner.presets)}.")
    if variant not in names:
        raise InputError(f"{owner.name} has no variant {variant!r}; there are {', '.join(names)}.")
    fields = {field.name: field for field in owner.fields}
    parsed = {}
    for name, value in {**owner.variants.get(variant, {}), **overrides}.items():
        if name not in fields:
            raise InputError(f"{owner.name} has no setting {name!r}; there are {', '.join(fields) or 'none'}.")
        try:
            parsed[name] = fields[name].parse(value)
        except InputError as error:
            raise InputError(f"{owner.name}: {error}") from None
    return parsed
