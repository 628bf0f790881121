"""Following the geometry of representations over checkpoints, and while a Hugging Face trainer runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from broadsheet.errors import InputError
from broadsheet.language.geometry import GeometryTrace, spectrum_of
from broadsheet.language.models import features, load, positions, tokenize


def model_features(
    model: Any, words: Any, texts: Sequence[str], *, max_length: int = 128, layer: int = -1, pool: str = "last", batch: int = 32
) -> Iterator[np.ndarray]:
    """A model's features over texts, a batch (texts, width) at a time.

    Texts are cut at `max_length` tokens, or at as many positions as the model has where those are fewer.

    **Raises:** `InputError` for a text without a token, beside those of `broadsheet.language.models.features`.
    """
    rows = tokenize(words, texts, min(max_length, positions(model) or max_length))
    if len(rows) < len(texts):
        first = next(k for k, text in enumerate(texts) if not words(text)["input_ids"])
        raise InputError(f"{len(texts) - len(rows)} of {len(texts)} texts have no token (the first is {texts[first][:40]!r}).")
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


class GeometryCallback(TrainerCallback):
    """Records RankMe and alpha of a fixed set of token rows while any Hugging Face or TRL trainer runs.

    **Arguments:** `rows`: token ids of the probe texts; `every`: steps between looks. `trace` holds what was found; the
    readings also go to the trainer's log.
    """

    def __init__(self, rows: Sequence[Sequence[int]], every: int = 100, *, pool: str = "last", batch: int = 32) -> None:
        self.rows, self.every, self.pool, self.batch = list(rows), every, pool, batch
        self.trace = GeometryTrace()

    def _look(self, step: int, model: torch.nn.Module) -> dict[str, float]:
        training = model.training
        model.eval()
        self.trace.add(step, spectrum_of(features(model, self.rows, pool=self.pool, batch=self.batch)))
        model.train(training)
        return {f"geometry/{name}": values[-1] for name, values in self.trace.readings.items()}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self._look(state.global_step, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step % self.every == 0:
            found = self._look(state.global_step, model)
            state.log_history.append({"step": state.global_step, **found})
