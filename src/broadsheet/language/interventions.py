"""Steering: adding a direction to a model's states, or taking it out of them, and what that does to an answer.

As in arXiv 2504.02904 and its official code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from broadsheet.errors import InputError
from broadsheet.language.directions import Vector
from broadsheet.language.hooks import Change, hooked
from broadsheet.language.states import Rows, batches, run

Positions = slice | Sequence[int]
ALL = slice(None)


@contextmanager
def intervene(
    model: Any, directions: Mapping[int, Vector], positions: Positions = ALL, mode: Literal["add", "ablate"] = "add"
) -> Iterator[None]:
    """Adds a vector (width,) to the output of each block, or takes its component out, at token positions.

    Within it, all forward passes are changed, generation with a cache too: with all positions, as if the whole text were passed
    anew at each token; with positions from the end, at those of what is passed.

    **Raises:** `InputError` for a vector of another width, a block that does not exist, or an unknown mode.
    """
    if mode not in ("add", "ablate"):
        raise InputError(f"The mode is {mode!r}; add or ablate is wanted.")
    like = next(model.parameters())
    width = model.config.get_text_config(decoder=True).hidden_size
    changes: dict[int, Change] = {}
    for layer, vector in directions.items():
        if np.shape(vector) != (width,):
            raise InputError(f"The direction has a width of {np.size(vector)}, the model one of {width}.")
        made = torch.as_tensor(np.array(vector), dtype=torch.float32, device=like.device)
        if mode == "ablate" and not float(made.norm()) > 0:
            raise InputError("A direction of length 0 cannot be taken out.")
        changes[layer] = _change(made, positions, mode)
    with hooked(model, changes):
        yield


def _change(vector: torch.Tensor, positions: Positions, mode: str) -> Change:
    where = positions if isinstance(positions, slice) else list(positions)
    unit = vector / vector.norm() if mode == "ablate" else vector

    def change(states: torch.Tensor) -> torch.Tensor:
        moved, here = states.clone(), states[:, where]
        more = unit if mode == "add" else -(here.float() @ unit)[..., None] * unit
        moved[:, where] = (here.float() + more).to(states.dtype)
        return moved

    return change


def as_long_as(one: Vector, other: Vector) -> Vector:
    """The other direction at the length of the one."""
    return other / np.linalg.norm(other) * np.linalg.norm(one)


def random_directions(vector: Vector, count: int, seed: int = 0) -> np.ndarray:
    """Directions (count, width) drawn evenly, as long as a vector."""
    drawn = np.random.default_rng(seed).standard_normal((count, len(vector)))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True) * np.linalg.norm(vector)


def preference(model: Any, rows: Rows, one: int, other: int, *, batch: int = 64) -> np.ndarray:
    """P(one) - P(other) of the next token, for each row of token ids (texts,)."""
    made = np.empty(len(rows))
    for chosen, ids in batches(rows, batch):
        law = torch.softmax(run(model, ids)[:, -1], -1)
        made[chosen] = (law[:, one] - law[:, other]).cpu().numpy()
    return made


@dataclass(frozen=True)
class Effect:
    """Normalised indirect effects of a direction on an answer: 1 where it turns the answer over, 0 where it does nothing.

    `to_false` is that on true statements, from which it is subtracted, `to_true` that on false ones, to which it is added.
    """

    to_false: float
    to_true: float

    @property
    def mean(self) -> float:
        return (self.to_false + self.to_true) / 2


def nie(
    model: Any,
    vector: Vector,
    true_rows: Rows,
    false_rows: Rows,
    *,
    layers: Iterable[int],
    positions: Positions,
    answers: tuple[int, int],
    plain: tuple[float, float] | None = None,
    batch: int = 64,
) -> Effect:
    """(PD with it - PD without) / (-1 or 1 - PD without), PD the mean of P(TRUE) - P(FALSE) over the prompts.

    **Arguments:** `vector`: added after each of `layers` at `positions`, which count from the end; `answers`: the ids of the
    words TRUE and FALSE; `plain`: PD without it of the true and of the false prompts, where it is known.

    **Raises:** `InputError` as `intervene` does.
    """
    layers, found = list(layers), []
    before = plain or plain_preference(model, true_rows, false_rows, answers=answers, batch=batch)
    for rows, sign, start in ((true_rows, -1.0, before[0]), (false_rows, 1.0, before[1])):
        with intervene(model, {layer: sign * np.asarray(vector) for layer in layers}, positions):
            moved = preference(model, rows, *answers, batch=batch).mean()
        found.append(float((moved - start) / (sign - start)))
    return Effect(*found)


def plain_preference(
    model: Any, true_rows: Rows, false_rows: Rows, *, answers: tuple[int, int], batch: int = 64
) -> tuple[float, float]:
    """Mean P(TRUE) - P(FALSE) of the true and of the false prompts, without any change."""
    true, false = (float(preference(model, rows, *answers, batch=batch).mean()) for rows in (true_rows, false_rows))
    return true, false
