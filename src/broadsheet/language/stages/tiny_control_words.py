"""Controls of the tiny pretraining, one property of its words removed: their skew, their order, or their context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from broadsheet.errors import InputError
from broadsheet.language import tiny_world as tiny
from broadsheet.language.chain import Context
from broadsheet.language.registry import stage
from broadsheet.language.stages.tiny_pretraining import CONTEXT, checkpoint_steps, pretrain
from broadsheet.language.tiny_model import BATCH, tiny_model
from broadsheet.language.tiny_world import World

KINDS = ("even", "shuffled", "paired")
FOLLOWS = 0.9
FIRST, COUNT = len(tiny.SPECIAL), len(tiny.WORDS) - len(tiny.SPECIAL) - len(tiny.RESERVED)
"""First id, and number, of the words that documents have."""


@stage("tiny_control_words", one_thread=True)
def tiny_control_words(
    model: Any, words: Any, context: Context, *, kind: str = "even", steps: int = 450, cosine: int = 1500
) -> tuple[Any, Any]:
    """A new model, pretrained on words of a `kind` (`KINDS`): the first `steps` steps of a cosine of `cosine`.

    **Raises:** `InputError` for another kind.
    """
    if kind not in KINDS:
        raise InputError(f"Words of the kind {kind!r} are unknown; {', '.join(KINDS)} are there.")
    model, words, rng = tiny_model(context.seed), tiny.tokenizer(), np.random.default_rng(context.seed)
    losses = context.record["losses"] = []
    context.keep(0, model, words)
    batches = (torch.from_numpy(part) for part in control_batches(kind, rng, BATCH, CONTEXT + 1))
    for step, loss in pretrain(model, batches, cosine):
        losses.append(loss)
        if step in checkpoint_steps(steps):
            context.keep(step, model, words)
            context.report(step / steps, {"loss": loss})
        if step == steps:
            break
    return model, words


def control_batches(kind: str, rng: np.random.Generator, rows: int, length: int) -> Iterator[np.ndarray]:
    """Token ids (rows, length) without end; of `paired`, (rows (length - 1), 2).

    - `even`: bigrams of words that are all equally frequent: 90 % of words are one of four that follow the word before, the
      others any. There is as much to learn as in filler, and more; what is gone is Zipf's law.
    - `shuffled`: the words of as many documents, in an order drawn over the whole batch: their frequencies, and nothing else.
    - `paired`: each word of as many documents with the one before it: bigrams, and no context beyond.
    """
    if kind == "even":
        while True:
            yield even_bigrams(rng, rows, length)
    windows = World(0).windows(rng, length)
    while True:
        words = np.array([next(windows) for _ in range(rows)])
        if kind == "paired":
            yield np.stack([words[:, :-1], words[:, 1:]], axis=-1).reshape(-1, 2)
        else:
            yield rng.permutation(words.ravel()).reshape(rows, length)


def followers() -> np.ndarray:
    """(words, 4): what follows each word of the documents in `even_bigrams`; each word follows four."""
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(COUNT) for _ in range(4)], axis=1)


def even_bigrams(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    """Token ids (rows, length) of the even bigrams of `control_batches`."""
    table = followers()
    made = rng.integers(0, COUNT, (rows, length))
    stays, which = rng.random((rows, length)) < FOLLOWS, rng.integers(0, 4, (rows, length))
    for place in range(1, length):
        made[:, place] = np.where(stays[:, place], table[made[:, place - 1], which[:, place]], made[:, place])
    return made + FIRST
