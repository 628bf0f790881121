"""The start of visual puzzles: a tiny model that sees, fine-tuned on answers of which a part is drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np

from broadsheet.language.chain import Context
from broadsheet.language.jigsaw.tiny_puzzles import tiny_puzzles
from broadsheet.language.jigsaw.training import demonstrations
from broadsheet.language.jigsaw.vision_models import vision_model, vision_processor
from broadsheet.language.post_training.settings import SFTSettings
from broadsheet.language.post_training.trainers import Run, fine_tune
from broadsheet.language.registry import stage


@stage("jigsaw_sft", one_thread=True)
def jigsaw_sft(
    model: Any,
    words: Any,
    context: Context,
    *,
    puzzles: str = "strips",
    count: int = 2000,
    steps: int = 350,
    batch: int = 24,
    rate: float = 2e-3,
    right: float = 0.6,
) -> Any:
    """A new model after `steps` of AdamW on puzzles (`tiny_puzzles`) of whose answers the share `right` is right; the mean loss
    of the last tenth is kept."""
    if model is None:
        model, words = vision_model(context.seed), vision_processor()
    items = tiny_puzzles(puzzles, min(count, steps * batch), context.seed, "start")
    rows = demonstrations(items, right=right, seed=context.seed)
    run = Run(watch=context.report)
    settings = SFTSettings(steps=steps, batch=batch, rate=rate, schedule="linear", seed=context.seed, log_every=1)
    model = fine_tune(model, words, rows, settings, run)
    losses = [record["loss"] for record in run.records if "loss" in record]
    context.record["loss"] = float(np.mean(losses[-max(1, steps // 10) :]))
    return model, words
