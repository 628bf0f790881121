"""Following representations, their geometry and directions in them, over checkpoints and while a Hugging Face trainer runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from broadsheet.errors import InputError
from broadsheet.language.directions import cosine, mass_mean, separation
from broadsheet.language.geometry import GeometryTrace, spectrum_of
from broadsheet.language.models import features, load, positions, tokenize
from broadsheet.language.states import read_states


def token_rows(model: Any, words: Any, texts: Sequence[str], max_length: int = 128) -> list[list[int]]:
    """Token ids of texts, cut at `max_length`, or at as many positions as the model has where those are fewer.

    **Raises:** `InputError` for a text without a token.
    """
    rows = tokenize(words, texts, min(max_length, positions(model) or max_length))
    if len(rows) < len(texts):
        first = next(k for k, text in enumerate(texts) if not words(text)["input_ids"])
        raise InputError(f"{len(texts) - len(rows)} of {len(texts)} texts have no token (the first is {texts[first][:40]!r}).")
    return rows


def model_features(
    model: Any, words: Any, texts: Sequence[str], *, max_length: int = 128, layer: int = -1, pool: str = "last", batch: int = 32
) -> Iterator[np.ndarray]:
    """A model's features over texts, a batch (texts, width) at a time.

    Texts are cut at `max_length` tokens, or at as many positions as the model has where those are fewer.

    **Raises:** `InputError` for a text without a token, beside those of `broadsheet.language.models.features`.
    """
    rows = token_rows(model, words, texts, max_length)
    return features(model, rows, layer=layer, pool=pool, batch=batch, pad=words.pad_token_id or 0)


def track(
    checkpoints: Iterable[tuple[int, str, str | None]],
    texts: Sequence[str],
    *,
    max_length: int = 128,
    layer: int = -1,
    pool: str = "last",
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> GeometryTrace:
    """The geometry of (step, name, revision) checkpoints, loaded one at a time, over the same texts."""
    trace = GeometryTrace()
    for step, name, revision in checkpoints:
        model, words = load(name, revision)
        found = model_features(model, words, texts, max_length=max_length, layer=layer, pool=pool)
        trace.add(step, spectrum_of(found))
        if report is not None:
            report(step, {key: values[-1] for key, values in trace.readings.items()})
        del model
    return trace


@dataclass(frozen=True)
class LabelledRows:
    """Token rows whose labels stand for a property, to follow its direction: after a block, at a token from the end."""

    rows: Sequence[Sequence[int]]
    labels: Sequence[int]
    layer: int
    groups: Sequence[Any] | None = None
    position: int = -1


class GeometryCallback(TrainerCallback):
    """Follows RankMe and alpha of token rows, and directions of labelled ones, while any Hugging Face or TRL trainer runs.

    `GeometryCallback(rows).attach(trainer)` sends the readings through the trainer's own log, and so to every tracker that it
    has (TensorBoard, Weights & Biases, Trackio), from the start on; among `callbacks=[…]` it only adds them to the trainer's
    history. Of a direction: `cosine` to that at the start, `separation` of the labels along it (d'), `length`.

    **Arguments:** `rows`: token ids of the probe texts; `every`: steps between looks; `directions`: name -> labelled rows.
    `trace` and `followed` hold what was found.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[int]],
        every: int = 100,
        *,
        pool: str = "last",
        batch: int = 32,
        directions: Mapping[str, LabelledRows] | None = None,
    ) -> None:
        self.rows, self.every, self.pool, self.batch = list(rows), every, pool, batch
        self.directions = dict(directions or {})
        self.trace = GeometryTrace()
        self.followed: dict[str, list[dict[str, float]]] = {name: [] for name in self.directions}
        self._start: dict[str, np.ndarray] = {}
        self._log: Callable[[dict[str, float]], None] | None = None

    def attach(self, trainer: Any) -> GeometryCallback:
        """Becomes a callback of a trainer, and logs through it."""
        trainer.add_callback(self)
        self._log = trainer.log
        return self

    def _look(self, step: int, model: torch.nn.Module) -> dict[str, float]:
        training = model.training
        model.eval()
        self.trace.add(step, spectrum_of(features(model, self.rows, pool=self.pool, batch=self.batch)))
        found = {f"geometry/{name}": values[-1] for name, values in self.trace.readings.items()}
        for name, of in self.directions.items():
            states = read_states(model, of.rows, of.layer, position=of.position, batch=self.batch)
            vector = mass_mean(states, of.labels, of.groups)
            readings = {
                "cosine": cosine(self._start.setdefault(name, vector), vector),
                "separation": separation(states, of.labels, vector, of.groups),
                "length": float(np.linalg.norm(vector)),
            }
            self.followed[name].append(readings)
            found |= {f"direction/{name}/{reading}": value for reading, value in readings.items()}
        model.train(training)
        return found

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        found = self._look(state.global_step, model)
        if self._log is not None:
            self._log(found)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step % self.every == 0:
            found = self._look(state.global_step, model)
            if self._log is not None:
                self._log(found)
            else:
                state.log_history.append({"step": state.global_step, **found})
