"""The control of the tiny pretraining: words drawn evenly and independently."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from broadsheet.language import tiny_world as tiny
from broadsheet.language.chain import Context
from broadsheet.language.registry import stage
from broadsheet.language.stages.tiny_pretraining import CONTEXT, checkpoint_steps, pretrain
from broadsheet.language.tiny_model import BATCH, tiny_model


@stage("tiny_even_words", one_thread=True)
def tiny_even_words(model: Any, words: Any, context: Context, *, steps: int = 300, cosine: int = 1500) -> tuple[Any, Any]:
    """A new model, pretrained on even words: the first `steps` steps of a cosine of `cosine`."""
    model, words, rng = tiny_model(context.seed), tiny.tokenizer(), np.random.default_rng(context.seed)
    losses = context.record["losses"] = []
    context.keep(0, model, words)
    batches = (torch.from_numpy(even_words(rng, BATCH, CONTEXT + 1)) for _ in range(steps))
    for step, loss in pretrain(model, batches, cosine):
        losses.append(loss)
        if step in checkpoint_steps(steps):
            context.keep(step, model, words)
            context.report(step / steps, {"loss": loss})
    return model, words


def even_words(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    """Token ids (rows, length), every word of the documents equally likely at each place."""
    return rng.integers(len(tiny.SPECIAL), len(tiny.WORDS) - len(tiny.RESERVED), (rows, length))
