"""Metrics as one table, seed -> variant or arm -> metric -> number, and what they are in JSON.

JSON has neither NaN nor infinity: both are null there, and null is read as NaN, which meets no bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from broadsheet.lab.claims import SYSTEM

Metrics = Mapping[str, float]
"""metric -> number"""

Arms = Mapping[str, Metrics]
"""variant or arm -> metrics; in a run's own record the variant itself is the arm with the empty name."""

Table = Mapping[int, Arms]
"""seed -> variant or arm -> metrics"""

Filled = dict[int, dict[str, dict[str, float]]]
"""A table that runs are added to."""


def add_run(table: Filled, seed: int, variant: str, arms: Arms) -> None:
    """Takes a run's arms into the table: the variant's own under its name; the controls that share its training, where the
    variant is the system, under theirs."""
    row = table.setdefault(seed, {})
    for arm, metrics in arms.items():
        if not arm or variant == SYSTEM:
            row[arm or variant] = dict(metrics)


def to_json(arms: Mapping[str, Mapping[str, float]], digits: int | None = None) -> dict[str, dict[str, float | None]]:
    """Arms as JSON values, rounded to so many significant digits where a number of them is given."""
    return {arm: {name: finite(_rounded(value, digits)) for name, value in row.items()} for arm, row in arms.items()}


def from_json(arms: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    """Arms from JSON values."""
    return {
        arm: {name: math.nan if value is None else float(value) for name, value in row.items()} for arm, row in arms.items()
    }


def table_to_json(table: Table, digits: int | None = None) -> dict[str, dict[str, dict[str, float | None]]]:
    """A table as JSON values; the seeds become text."""
    return {str(seed): to_json(arms, digits) for seed, arms in table.items()}


def table_from_json(table: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Filled:
    """A table from JSON values."""
    return {int(seed): from_json(arms) for seed, arms in table.items()}


def finite(value: Any) -> Any:
    """A value with None for every float that is not finite, in tables and lists too."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _rounded(value: float, digits: int | None) -> float:
    return float(value) if digits is None else float(f"{value:.{digits}g}")
