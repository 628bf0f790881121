"""Rejection-sampling fine-tuning: answers are drawn, and those that a verifier accepts are learned (arXiv 2304.06767)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from broadsheet.errors import JobError
from broadsheet.language.post_training.sampling import answers
from broadsheet.language.post_training.settings import SFTSettings
from broadsheet.language.post_training.trainers import fine_tune
from broadsheet.language.verifiers import verify


def fine_tune_on_verified(
    model: Any, words: Any, prompts: Sequence[dict[str, Any]], settings: SFTSettings, *, rounds: int, samples: int, tokens: int
) -> Any:
    """The model after `rounds` of drawing `samples` answers to each prompt at temperature 1 and fine-tuning, for an equal share
    of the steps, on those that are right; weights are changed in place.

    **Arguments:** `prompts`: rows with `prompt` (turns), `label` and `verifier`; `tokens`: longest answer.

    **Raises:** `JobError` where no answer of a round is right.
    """
    each = max(1, (settings.steps or rounds) // rounds)
    for number in range(rounds):
        drawn = answers(
            model, words, [row["prompt"] for row in prompts], tokens=tokens, samples=samples, temperature=1.0, batch=512,
            seed=settings.seed + number,
        )  # fmt: skip
        kept = [
            {"messages": [*row["prompt"], {"role": "assistant", "content": text}]}
            for row, texts in zip(prompts, drawn, strict=True)
            for text in texts
            if verify(row["verifier"], text, row["label"]) == 1
        ]
        if not kept:
            raise JobError(f"In round {number + 1} of rejection sampling no answer was right; there is nothing to learn from.")
        model = fine_tune(model, words, kept, dataclasses.replace(settings, steps=each, seed=settings.seed + number))
    return model
