"""States of texts at one token, after any block: read a layer at a time, or all layers in one pass onto the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from broadsheet.cache import write_atomic
from broadsheet.errors import InputError
from broadsheet.language.anatomy import blocks
from broadsheet.language.hooks import AnyPlace, Change, hooked
from broadsheet.language.models import check_finite, check_tokens, within_positions

States = Float[np.ndarray, "texts width"]
Rows = Sequence[Sequence[int]]
Report = Callable[[float], None]


def batches(rows: Rows, size: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """(which rows, their ids) in batches of rows of the same length, shortest first, so that none is padded and positions count
    from the end as well."""
    lengths = np.array([len(row) for row in rows])
    for length in np.unique(lengths):
        same = np.flatnonzero(lengths == length)
        for start in range(0, len(same), size):
            chosen = same[start : start + size]
            yield chosen, torch.tensor([list(rows[k]) for k in chosen], dtype=torch.long)


def run(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits (rows, tokens, words) of ids without padding, float32, where the model is.

    **Raises:** `InputError` for more tokens than the model has positions for, or numbers that are not finite.
    """
    with torch.no_grad(), within_positions(model, ids.shape[1]):
        logits = model(input_ids=ids.to(next(model.parameters()).device), use_cache=False).logits.float()
    check_finite(model, logits)
    return logits


def read_states(model: Any, rows: Rows, layer: int | torch.nn.Module, *, position: int = -1, batch: int = 64) -> States:
    """States (texts, width) after a block, counted from 0, at a token of each row; the pass ends there.

    **Arguments:** `layer`: a block, or another part whose output is wanted, such as the embedding; `position`: of the token,
    counted from the end (-1 the last).

    **Raises:** `InputError` for a block that is not there, a row too short for the position, or what the model cannot read.
    """
    _check(model, rows, position)
    made: np.ndarray | None = None
    for chosen, ids in batches(rows, batch):
        found = _states(model, ids, [layer], position)[layer]
        made = np.empty((len(rows), found.shape[1]), np.float32) if made is None else made
        made[chosen] = found
    assert made is not None
    return made


def mean_states(model: Any, rows: Rows, *, position: int = -1, batch: int = 64) -> Float[np.ndarray, "blocks width"]:
    """The mean over rows of their states at a token after each block, in one pass that holds no more than a batch.

    **Raises:** `InputError` as `read_states` does.
    """
    _check(model, rows, position)
    layers = range(len(blocks(model)))
    total: Any = 0.0
    for _, ids in batches(rows, batch):
        found = _states(model, ids, layers, position)
        total = total + np.array([found[layer].sum(axis=0, dtype=np.float64) for layer in layers])
    return np.asarray(total) / len(rows)


class Spool:
    """States of many texts at one token after many blocks, from one pass over the model, in a folder: a file a layer.

    No more than a batch's states and, by `read`, one layer's are in memory. A spool that was interrupted goes on in the same
    folder.
    """

    def __init__(self, folder: Path, layers: Iterable[int], texts: int) -> None:
        self.folder, self.layers, self.texts = folder, list(layers), texts

    def write(
        self, model: Any, rows: Rows, *, position: int = -1, batch: int = 64, report: Report = lambda done: None
    ) -> Spool:
        """Reads the states of all rows; `report` takes the fraction done.

        **Raises:** `InputError` as `read_states` does.
        """
        _check(model, rows, position)
        counted = self.folder / "batches"
        done = int(counted.read_text()) if counted.is_file() else 0
        seen = 0
        for k, (chosen, ids) in enumerate(batches(rows, batch)):
            seen += len(chosen)
            if k < done:
                continue
            for layer, states in _states(model, ids, self.layers, position).items():
                self._put(layer, chosen, states)
            write_atomic(counted, str(k + 1))
            report(seen / len(rows))
        return self

    def read(self, layer: int) -> States:
        """The states (texts, width) after a block."""
        return np.fromfile(self._file(layer), np.float32).reshape(self.texts, -1)

    def _file(self, layer: int) -> Path:
        return self.folder / f"{layer}.f32"

    def _put(self, layer: int, chosen: np.ndarray, states: States) -> None:
        with open(self._file(layer), "r+b" if self._file(layer).is_file() else "w+b") as stream:
            for k, row in zip(chosen, states, strict=True):
                stream.seek(int(k) * row.nbytes)
                stream.write(row.tobytes())


class _Enough(Exception):
    """All that was wanted of a forward pass is there."""


def _states(model: Any, ids: torch.Tensor, places: Sequence[AnyPlace], position: int) -> dict[AnyPlace, States]:
    """States at a token after each place, of a pass that ends when the last of them is there."""
    found: dict[AnyPlace, States] = {}

    def keep(place: AnyPlace) -> Change:
        def look(states: torch.Tensor) -> torch.Tensor:
            here = states[:, position].float()
            check_finite(model, here)
            found[place] = here.cpu().numpy()
            if len(found) == len(places):
                raise _Enough
            return states

        return look

    looks = {place: keep(place) for place in places}
    with torch.no_grad(), hooked(model, looks), within_positions(model, ids.shape[1]), suppress(_Enough):
        model(input_ids=ids.to(next(model.parameters()).device), use_cache=False)
    return found


def _check(model: Any, rows: Rows, position: int) -> None:
    if not rows:
        raise InputError("There are no texts to read states of.")
    if position >= 0:
        raise InputError(f"Position {position}: tokens are counted from the end, -1 is the last.")
    if short := [row for row in rows if len(row) < -position]:
        raise InputError(f"A text of {len(short[0])} tokens has none at position {position}, counted from the end.")
    blocks(model)
    check_tokens(model, rows)
